//! `[redirect]`: keys from files, and what is told and believed with them.
//!
//! What must stay true: a key file that others may read or own, or that is too short, is refused by name; no refusal quotes a secret.

use std::fs::OpenOptions;
use std::io::Read as _;
use std::net::Ipv6Addr;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::time::Duration;

use nve_core::addr::Locator;
use nve_core::redirect::{Key, KeyId, Keys, PORT, Policy};
use rustix::fs::OFlags;

use super::raw::{RawRedirect, RawRedirectKey, Text};
use super::value::Judge;
use crate::private;
use crate::redirect::RedirectConfig;

/// How long a redirect counts, unless said otherwise.
const LIFETIME: Duration = Duration::from_secs(300);
/// A secret of 512 bytes in hexadecimal, and a line's end.
const LONGEST: u64 = 1025;

pub(super) fn section(judge: &mut Judge<'_>, raw: &RawRedirect) -> Option<RedirectConfig> {
    let mut keys: Vec<Option<Key>> = Vec::new();
    for raw in &raw.key {
        let read = key(judge, raw);
        let known = |read: &Key| keys.iter().flatten().any(|known: &Key| known.id() == read.id());
        if read.as_ref().is_some_and(known) {
            let what = format!("redirect.key.id: there are two keys of number {}", raw.id.get_ref());
            judge.refuse(
                raw.id.span(),
                what,
                "give each secret its own number, the same on every host".into(),
            );
        }
        keys.push(read);
    }
    let routers = raw.routers.iter().map(|text| judge.prefix("redirect.routers", text, 64));
    let routers: Vec<Option<Locator>> = routers.collect();
    let locators: Vec<Option<_>> = raw.locators.iter().map(|text| prefix(judge, text)).collect();
    let lifetime = match &raw.lifetime {
        Some(text) => judge.seconds("redirect.lifetime", text, 1..=86_400),
        None => Some(LIFETIME),
    };
    let port = match &raw.port {
        Some(port) => judge.number("redirect.port", port, 1..=u16::MAX),
        None => Some(PORT),
    };
    let policy = Policy {
        keys: Keys::new(keys.into_iter().collect::<Option<_>>()?),
        accept: raw.accept.unwrap_or(true),
        send: raw.send.unwrap_or(false),
        routers: routers.into_iter().collect::<Option<_>>()?,
        locators: locators.into_iter().collect::<Option<_>>()?,
        lifetime: lifetime?,
    };
    Some(RedirectConfig { policy, port: port? })
}

/// An IPv6 prefix that locators lie in.
fn prefix(judge: &mut Judge<'_>, text: &Text) -> Option<(Ipv6Addr, u8)> {
    let parts = text.get_ref().split_once('/');
    let parts = parts.and_then(|(a, n)| Some((a.parse::<Ipv6Addr>().ok()?, n.parse::<u8>().ok()?)));
    if let Some((address, length @ 1..=64)) = parts
        && address.to_bits() << length == 0
    {
        return Some((address, length));
    }
    let what = format!("redirect.locators: \"{}\" is no prefix that locators could lie in", text.get_ref());
    judge.refuse(text.span(), what, "write PREFIX/LENGTH, /1 to /64, such as 2001:db8::/48".into());
    None
}

fn key(judge: &mut Judge<'_>, raw: &RawRedirectKey) -> Option<Key> {
    let item = "redirect.key.id";
    let id = judge.number(item, &raw.id, 0..=u16::MAX).map(KeyId);
    let directory = judge.source().path.parent().unwrap_or(Path::new("."));
    let path = directory.join(raw.file.get_ref());
    let secret = match read(&path) {
        Ok(secret) => secret,
        Err((why, remedy)) => {
            let what = format!("redirect.key.file: {} {why}", path.display());
            judge.refuse(raw.file.span(), what, remedy);
            return None;
        }
    };
    Key::new(id?, &secret).ok()
}

const HOW: &str = "make one by `(umask 077; openssl rand -hex 32 > FILE)`, and copy it to every host";

/// The secret in a file, or what is wrong with the file and what to do.
fn read(path: &Path) -> Result<Vec<u8>, (String, String)> {
    let refused = |why: String| (why, HOW.to_owned());
    let unreadable = |e: std::io::Error| refused(format!("cannot be read: {e}"));
    // Pipes and devices are refused before they are opened: a reload must not wait for one.
    if !std::fs::metadata(path).map_err(unreadable)?.is_file() {
        return Err(refused("is no regular file".into()));
    }
    // Nor for one that has taken its place since.
    let nonblocking = OFlags::NONBLOCK.bits().cast_signed();
    let file = OpenOptions::new().read(true).custom_flags(nonblocking).open(path).map_err(unreadable)?;
    let facts = file.metadata().map_err(unreadable)?;
    if !facts.is_file() {
        return Err(refused("is no regular file".into()));
    }
    if !private::is_ours(facts.uid()) {
        let why = format!("belongs to user {}, who knows the secret and may change it", facts.uid());
        return Err((why, "run `chown` on it, and make a new key if its owner is not to have it".into()));
    }
    if facts.mode() & 0o077 != 0 {
        let why = format!("may be read by others than its owner (mode {:04o})", facts.mode() & 0o7777);
        return Err((why, "run `chmod 600` on it, and make a new key if others may have read it".into()));
    }
    let mut text = String::new();
    file.take(LONGEST + 1).read_to_string(&mut text).map_err(unreadable)?;
    let digits = text.trim_end();
    let is_hex = digits.len().is_multiple_of(2) && digits.bytes().all(|digit| digit.is_ascii_hexdigit());
    if !is_hex || text.len() as u64 > LONGEST {
        return Err(refused("is no line of 64 to 1024 hexadecimal digits".into()));
    }
    if digits.len() < 2 * Key::SHORTEST {
        let why =
            format!("holds a secret of {} bytes, and a key has {} or more", digits.len() / 2, Key::SHORTEST);
        return Err(refused(why));
    }
    let byte = |at: usize| u8::from_str_radix(digits.get(at..at + 2)?, 16).ok();
    let secret: Option<Vec<u8>> = (0..digits.len()).step_by(2).map(byte).collect();
    secret.ok_or_else(|| refused("is no line of hexadecimal digits".into()))
}
