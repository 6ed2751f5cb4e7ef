//! The metadata of one attachment, as the tree that cloud-init's EC2 data source walks.
//!
//! What must stay true: everything said is of the attachment that asks, and of the configuration in force; a directory lists what it has and
//! nothing else.
//!
//! ```text
//!   /VERSION/meta-data/            hostname instance-id ipv6 local-hostname local-ipv4 mac
//!                      network/interfaces/macs/MAC/   device-number ipv6s local-hostname local-ipv4s mac subnet-...
//!                      placement/  availability-zone region
//!                      public-keys/                   0=key0 ...;  0/openssh-key
//!   /VERSION/user-data
//!   /VERSION/dynamic/instance-identity/document
//!   /latest/api/token              PUT
//! ```

use core::fmt::Write as _;
use core::net::IpAddr;
use core::time::Duration;
use std::sync::Arc;

use super::http::{Asked, Method, Reply};
use super::tokens::Tokens;
use crate::policy::{Attachment, Network};

/// Versions of EC2's tree that are served, all with the same content; cloud-init takes the newest that it knows.
const VERSIONS: [&str; 5] = ["2009-04-04", "2016-09-02", "2018-09-24", "2021-03-23", "latest"];

/// What guests are told of where they are: nothing that names the host.
const REGION: &str = "nve-1";
const ZONE: &str = "nve-1a";

/// Who asks.
#[derive(Clone, Copy)]
pub(super) struct Asker<'a> {
    pub(super) attachment: &'a Attachment,
    pub(super) network: &'a Network,
}

/// What is at a path.
enum Node {
    Text(String),
    Bytes(Arc<[u8]>),
    /// Entries, those that are directories with a slash.
    Directory(Vec<String>),
}

/// The answer to one request at `now`.
pub(super) fn answer(asker: &Asker<'_>, tokens: &Tokens, asked: &Asked, now: Duration) -> Reply {
    let (name, vni) = (asker.attachment.name.as_str(), asker.network.vnid.get());
    if asked.path == "/latest/api/token" {
        return match (asked.method, asked.forwarded, &asked.ttl) {
            // A proxy that passes on what it should not must not get a token (EC2 does the same).
            (Method::Put, true, _) => Reply::status(403),
            (Method::Put, false, ttl) => {
                let ttl = ttl.as_deref().unwrap_or_default();
                match tokens.give(name, vni, ttl, now) {
                    Some(token) => {
                        Reply::ok(token.into_bytes()).with("X-aws-ec2-metadata-token-ttl-seconds", ttl)
                    }
                    None => Reply::status(400),
                }
            }
            _ => Reply::status(405).with("Allow", "PUT"),
        };
    }
    if !matches!(asked.method, Method::Get | Method::Head) {
        return Reply::status(405).with("Allow", "GET, HEAD");
    }
    if asked.token.as_deref().is_some_and(|token| !tokens.are_good(token, name, vni, now)) {
        return Reply::status(401);
    }
    let reply = match asker.node(&asked.path) {
        Some(Node::Text(text)) => Reply::ok(text.into_bytes()),
        Some(Node::Bytes(bytes)) => Reply::ok(bytes),
        Some(Node::Directory(entries)) => Reply::ok(entries.join("\n").into_bytes()),
        None => Reply::status(404),
    };
    if asked.method == Method::Head { reply.without_body() } else { reply }
}

impl Asker<'_> {
    fn node(&self, path: &str) -> Option<Node> {
        let path = path.strip_prefix('/')?;
        let segments: Vec<&str> = path.strip_suffix('/').unwrap_or(path).split('/').collect();
        let [version, rest @ ..] = segments.as_slice() else { return None };
        match rest {
            [] if version.is_empty() => Some(Node::Directory(VERSIONS.map(str::to_owned).to_vec())),
            _ if !VERSIONS.contains(version) => None,
            [] => self.directory(&["dynamic/", "meta-data/", "user-data"], |entry| self.top(&[entry])),
            rest => self.top(rest),
        }
    }

    /// Those of `entries` that `at` finds something under.
    fn directory(&self, entries: &[&str], at: impl Fn(&str) -> Option<Node>) -> Option<Node> {
        let there = entries.iter().filter(|entry| at(entry.trim_end_matches('/')).is_some());
        let there: Vec<String> = there.map(|entry| (*entry).to_owned()).collect();
        (!there.is_empty()).then_some(Node::Directory(there))
    }

    fn top(&self, path: &[&str]) -> Option<Node> {
        match path {
            ["meta-data", rest @ ..] => self.meta_data(rest),
            ["user-data"] => self.attachment.instance.user_data.clone().map(Node::Bytes),
            ["dynamic"] => Some(Node::Directory(vec!["instance-identity/".into()])),
            ["dynamic", "instance-identity"] => Some(Node::Directory(vec!["document".into()])),
            ["dynamic", "instance-identity", "document"] => Some(Node::Text(self.document())),
            _ => None,
        }
    }

    fn meta_data(&self, path: &[&str]) -> Option<Node> {
        const ENTRIES: [&str; 9] = [
            "hostname",
            "instance-id",
            "ipv6",
            "local-hostname",
            "local-ipv4",
            "mac",
            "network/",
            "placement/",
            "public-keys/",
        ];
        let text = match path {
            [] => return self.directory(&ENTRIES, |entry| self.meta_data(&[entry])),
            ["hostname" | "local-hostname"] => self.hostname(),
            ["instance-id"] => self.instance_id().to_owned(),
            ["ipv6"] => self.v6().first()?.clone(),
            ["local-ipv4"] => self.v4().first()?.clone(),
            ["mac"] => self.mac(),
            ["network"] => return Some(Node::Directory(vec!["interfaces/".into()])),
            ["network", "interfaces"] => return Some(Node::Directory(vec!["macs/".into()])),
            ["network", "interfaces", "macs"] => return Some(Node::Directory(vec![self.mac() + "/"])),
            ["network", "interfaces", "macs", mac, rest @ ..] if *mac == self.mac() => {
                return self.interface(rest);
            }
            ["placement"] => return Some(Node::Directory(vec!["availability-zone".into(), "region".into()])),
            ["placement", "availability-zone"] => ZONE.into(),
            ["placement", "region"] => REGION.into(),
            ["public-keys", rest @ ..] => return self.public_keys(rest),
            _ => return None,
        };
        Some(Node::Text(text))
    }

    fn interface(&self, path: &[&str]) -> Option<Node> {
        const ENTRIES: [&str; 7] = [
            "device-number",
            "ipv6s",
            "local-hostname",
            "local-ipv4s",
            "mac",
            "subnet-ipv4-cidr-block",
            "subnet-ipv6-cidr-blocks",
        ];
        let some = |lines: Vec<String>| (!lines.is_empty()).then(|| lines.join("\n"));
        Some(Node::Text(match path {
            [] => return self.directory(&ENTRIES, |entry| self.interface(&[entry])),
            ["device-number"] => "0".into(),
            ["ipv6s"] => some(self.v6())?,
            ["local-hostname"] => self.hostname(),
            ["local-ipv4s"] => some(self.v4())?,
            ["mac"] => self.mac(),
            ["subnet-ipv4-cidr-block"] => {
                let prefix = self.network.ipv4.filter(|_| !self.v4().is_empty())?.network();
                prefix.to_string()
            }
            ["subnet-ipv6-cidr-blocks"] => self.network.ipv6.filter(|_| !self.v6().is_empty())?.to_string(),
            _ => return None,
        }))
    }

    /// As EC2 lists them: `INDEX=NAME`; the key itself is at `INDEX/openssh-key`.
    fn public_keys(&self, path: &[&str]) -> Option<Node> {
        let keys = &self.attachment.instance.ssh_keys;
        let key = |index: &str| keys.get(index.parse::<usize>().ok()?);
        match path {
            [] if keys.is_empty() => None,
            [] => Some(Node::Directory((0..keys.len()).map(|index| format!("{index}=key{index}")).collect())),
            [index] => key(index).map(|_| Node::Directory(vec!["openssh-key".into()])),
            [index, "openssh-key"] => key(index).cloned().map(Node::Text),
            _ => None,
        }
    }

    fn instance_id(&self) -> &str {
        self.attachment.instance.id.as_deref().unwrap_or(&self.attachment.name)
    }

    /// With the network's domain, where it has one.
    fn hostname(&self) -> String {
        let mut name = self.attachment.hostname.clone().unwrap_or_else(|| self.attachment.name.clone());
        if let Some(domain) = &self.network.domain {
            name = format!("{name}.{domain}");
        }
        name
    }

    fn mac(&self) -> String {
        self.attachment.mac.to_string().to_ascii_lowercase().replace('-', ":")
    }

    fn v4(&self) -> Vec<String> {
        self.attachment.addresses.iter().filter(|address| address.is_ipv4()).map(IpAddr::to_string).collect()
    }

    fn v6(&self) -> Vec<String> {
        self.attachment.addresses.iter().filter(|address| address.is_ipv6()).map(IpAddr::to_string).collect()
    }

    /// The identity document's fields that we can fill in. It is not signed: who asks is who it is about.
    fn document(&self) -> String {
        let address = self.v4().first().map_or("null".into(), |address| json(address));
        let id = json(self.instance_id());
        format!(
            "{{\n  \"availabilityZone\": \"{ZONE}\",\n  \"instanceId\": {id},\n  \"privateIp\": {address},\n  \
             \"region\": \"{REGION}\",\n  \"version\": \"2017-09-30\"\n}}"
        )
    }
}

/// `text` as a JSON string (RFC 8259, 7).
fn json(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        // Writing to a String does not fail.
        let _ = match c {
            '"' | '\\' => write!(out, "\\{c}"),
            c if u32::from(c) < 0x20 => write!(out, "\\u{:04x}", u32::from(c)),
            c => write!(out, "{c}"),
        };
    }
    out + "\""
}
