//! Which kernel modules to load, and in which order.
//!
//! A package that was only unpacked has no `modules.dep`; every module names what it needs in its own `.modinfo`.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

/// The files of `wanted` and of all they depend on, dependencies first. Modules built into the kernel are left out.
///
/// # Errors
///
/// Fails when a module neither exists nor is built in, or is compressed.
pub(super) fn in_order(tree: &Path, wanted: &[&str]) -> Result<Vec<PathBuf>> {
    let mut known = HashMap::new();
    collect(&tree.join("kernel"), &mut known)?;
    let built_in = fs::read_to_string(tree.join("modules.builtin")).context("reading modules.builtin")?;
    let built_in: Vec<String> = built_in.lines().filter_map(|line| name_of(Path::new(line))).collect();
    let mut order = Vec::new();
    for module in wanted {
        visit(module, &known, &built_in, &mut order)?;
    }
    Ok(order)
}

fn visit(
    module: &str,
    known: &HashMap<String, PathBuf>,
    built_in: &[String],
    order: &mut Vec<PathBuf>,
) -> Result<()> {
    if built_in.iter().any(|name| name == module) {
        return Ok(());
    }
    let file = known.get(module).with_context(|| format!("the kernel has no module {module}"))?;
    if order.contains(file) {
        return Ok(());
    }
    for needed in depends(&fs::read(file)?)? {
        visit(&needed, known, built_in, order)?;
    }
    order.push(file.clone());
    Ok(())
}

/// The `depends=` entry of an uncompressed module's `.modinfo` section: names joined by commas.
fn depends(module: &[u8]) -> Result<Vec<String>> {
    const KEY: &[u8] = b"\0depends=";
    let Some(start) = module.windows(KEY.len()).position(|window| window == KEY) else {
        bail!("a module without depends=, perhaps compressed");
    };
    let value = module[start + KEY.len()..].split(|byte| *byte == 0).next().unwrap_or_default();
    let names = std::str::from_utf8(value).context("depends= is not text")?;
    Ok(names.split(',').filter(|name| !name.is_empty()).map(|name| name.replace('-', "_")).collect())
}

fn collect(directory: &Path, known: &mut HashMap<String, PathBuf>) -> Result<()> {
    for entry in fs::read_dir(directory).with_context(|| format!("reading {}", directory.display()))? {
        let path = entry?.path();
        if path.is_dir() {
            collect(&path, known)?;
        } else if let Some(name) = name_of(&path) {
            known.insert(name, path);
        }
    }
    Ok(())
}

/// `virtio_net` of `.../virtio-net.ko`.
fn name_of(path: &Path) -> Option<String> {
    Some(path.file_name()?.to_str()?.strip_suffix(".ko")?.replace('-', "_"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_module_names_what_it_needs_in_its_modinfo() {
        let module = b"\x7fELF license=GPL\0depends=virtio-ring,virtio\0name=virtio_pci\0";
        assert_eq!(depends(module).unwrap(), ["virtio_ring", "virtio"]);
        assert!(depends(b"\x7fELF\0depends=\0").unwrap().is_empty());
        assert!(depends(b"\xfd7zXZ").is_err());
    }
}
