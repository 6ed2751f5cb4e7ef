//! What the metadata service tells a machine of itself: `instance_id`, `ssh_keys`, `user_data`.
//!
//! What must stay true: the file is read when the configuration is, whole and within [`LONGEST`]; what was read is what is served until the
//! next reload.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;
use std::sync::Arc;

use nve_core::setup::Instance;

use super::raw::{RawAttachment, Text};
use super::value::Judge;

/// Bytes of user data.
const LONGEST: u64 = 64 * 1024;
/// Bytes of a key, and how many there may be.
const LONGEST_KEY: usize = 16 * 1024;
const MOST_KEYS: usize = 64;

pub(super) fn section(
    judge: &mut Judge<'_>,
    at: &impl Fn(&str) -> String,
    raw: &RawAttachment,
) -> Option<Instance> {
    let id = judge.optional(&raw.instance_id, |judge, text| judge.name(&at("instance_id"), text));
    if let Some(further) = raw.ssh_keys.get(MOST_KEYS) {
        let what = format!("{}: more than {MOST_KEYS} keys", at("ssh_keys"));
        judge.refuse(further.span(), what, "tell the others by user_data".into());
    }
    let keys: Vec<Option<_>> = raw.ssh_keys.iter().map(|text| key(judge, &at("ssh_keys"), text)).collect();
    let user_data = judge.optional(&raw.user_data, |judge, text| user_data(judge, &at("user_data"), text));
    Some(Instance { id: id?, ssh_keys: keys.into_iter().collect::<Option<_>>()?, user_data: user_data? })
}

/// A line of `authorized_keys`: its type and the key at least.
fn key(judge: &mut Judge<'_>, item: &str, text: &Text) -> Option<String> {
    let key = text.get_ref().trim();
    let is_line = key.len() <= LONGEST_KEY && !key.chars().any(char::is_control);
    if is_line && key.split_whitespace().nth(1).is_some() {
        return Some(key.to_owned());
    }
    let what = format!("{item}: this is no public key");
    judge.refuse(
        text.span(),
        what,
        "write one line as in authorized_keys, such as \"ssh-ed25519 AAAA...\"".into(),
    );
    None
}

fn user_data(judge: &mut Judge<'_>, item: &str, text: &Text) -> Option<Arc<[u8]>> {
    let directory = judge.source().path.parent().unwrap_or(Path::new("."));
    let path = directory.join(text.get_ref());
    let (what, remedy) = match read(&path) {
        Ok(bytes) if bytes.len() as u64 <= LONGEST => return Some(bytes.into()),
        Ok(_) => (format!("has more than {LONGEST} bytes"), "let it fetch the rest from elsewhere"),
        Err(e) => (format!("cannot be read: {e}"), "name a file that exists and that this user may read"),
    };
    judge.refuse(text.span(), format!("{item}: {} {what}", path.display()), remedy.into());
    None
}

/// A little more than the most at most. Pipes and devices are refused: a reload must not wait for one.
fn read(path: &Path) -> std::io::Result<Vec<u8>> {
    if !std::fs::metadata(path)?.is_file() {
        return Err(std::io::Error::other("not a regular file"));
    }
    let mut bytes = Vec::new();
    File::open(path)?.take(LONGEST + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}
