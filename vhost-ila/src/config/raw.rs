//! The shape of a config file: which tables and keys there are, each value with its span, nothing judged yet.
//!
//! What must stay true: every table denies unknown keys, and every value that can be wrong is [`Spanned`].

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use toml::Spanned;

use super::source::Source;
use super::{Problem, nearest};

/// A value and where it is written.
pub(super) type Text = Spanned<String>;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawFile {
    pub(super) host: Option<Spanned<RawHost>>,
    pub(super) uplink: Option<Spanned<RawUplink>>,
    pub(super) redirect: Option<Spanned<RawRedirect>>,
    pub(super) gateway: Option<Spanned<RawGateway>>,
    pub(super) authority: Option<Spanned<RawAuthority>>,
    #[serde(default)]
    pub(super) domain: BTreeMap<Text, RawDomain>,
    #[serde(default)]
    pub(super) network: BTreeMap<Text, RawNetwork>,
    #[serde(default)]
    pub(super) attachment: BTreeMap<Text, RawAttachment>,
    #[serde(default)]
    pub(super) mapping: Vec<Spanned<RawMapping>>,
    pub(super) mappings: Option<Spanned<RawMappings>>,
    #[serde(default)]
    pub(super) listener: Vec<Spanned<RawListener>>,
    #[serde(default)]
    pub(super) service: BTreeMap<Text, RawService>,
    #[serde(default)]
    pub(super) alias: Vec<Spanned<RawAlias>>,
    #[serde(default)]
    pub(super) crossing: Vec<Spanned<RawCrossing>>,
    #[serde(default)]
    pub(super) peer: Vec<Spanned<RawPeer>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawPeer {
    pub(super) locator: Text,
    pub(super) checksum: Text,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawMappings {
    pub(super) file: Text,
    pub(super) room: Option<Spanned<i64>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawHost {
    pub(super) name: Text,
    pub(super) locator: Text,
    pub(super) sir: Text,
    pub(super) checksum: Option<Text>,
    pub(super) unknown: Option<Text>,
    #[serde(default)]
    pub(super) fabric: Vec<Text>,
    pub(super) runtime: Option<Text>,
    pub(super) moved: Option<Text>,
    pub(super) grace: Option<Text>,
    pub(super) spin: Option<Text>,
    pub(super) workers: Option<Spanned<i64>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawUplink {
    pub(super) kind: Text,
    pub(super) name: Option<Text>,
    pub(super) mtu: Option<Spanned<i64>>,
    pub(super) socket: Option<Text>,
    pub(super) mode: Option<Text>,
    pub(super) mac: Option<Text>,
    pub(super) next_hop: Option<Text>,
    pub(super) user: Option<Text>,
    pub(super) memory_max: Option<Text>,
    pub(super) queues: Option<Spanned<i64>>,
    #[serde(default)]
    pub(super) without: Vec<Text>,
    pub(super) packed: Option<Spanned<bool>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawAuthority {
    pub(super) kind: Text,
    pub(super) state: Option<Text>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawRedirect {
    #[serde(default)]
    pub(super) key: Vec<RawRedirectKey>,
    pub(super) accept: Option<bool>,
    pub(super) send: Option<bool>,
    #[serde(default)]
    pub(super) routers: Vec<Text>,
    #[serde(default)]
    pub(super) locators: Vec<Text>,
    pub(super) lifetime: Option<Text>,
    pub(super) port: Option<Spanned<i64>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawRedirectKey {
    pub(super) id: Spanned<i64>,
    pub(super) file: Text,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawGateway {
    pub(super) tun: Option<Text>,
    pub(super) interface: Option<Text>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawDomain {
    pub(super) sir: Text,
    pub(super) locator: Text,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawNetwork {
    pub(super) vni: Spanned<i64>,
    pub(super) sir_domain: Option<Text>,
    pub(super) ipv4: Option<Text>,
    pub(super) ipv6: Option<Text>,
    pub(super) gateway4: Option<Text>,
    pub(super) gateway6: Option<Text>,
    #[serde(default)]
    pub(super) dns: Vec<Text>,
    #[serde(default)]
    pub(super) dns_forward: Vec<Text>,
    pub(super) domain: Option<Text>,
    #[serde(default)]
    pub(super) search: Vec<Text>,
    #[serde(default)]
    pub(super) ntp: Vec<Text>,
    pub(super) dhcp4: Option<Text>,
    pub(super) multicast: Option<Text>,
    pub(super) metadata: Option<bool>,
    pub(super) outside: Option<bool>,
    #[serde(default)]
    pub(super) outside_deny: Vec<Text>,
    pub(super) nat64: Option<Text>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawAttachment {
    pub(super) network: Option<Text>,
    pub(super) kind: Option<Text>,
    pub(super) socket: Option<Text>,
    pub(super) mode: Option<Text>,
    pub(super) mac: Option<Text>,
    #[serde(default)]
    pub(super) macs: Vec<Text>,
    pub(super) addresses: Spanned<Vec<Text>>,
    pub(super) standby: Option<Spanned<bool>>,
    #[serde(default)]
    pub(super) prefixes: Vec<Text>,
    #[serde(default)]
    pub(super) shared: Vec<Text>,
    pub(super) hostname: Option<Text>,
    pub(super) instance_id: Option<Text>,
    #[serde(default)]
    pub(super) ssh_keys: Vec<Text>,
    pub(super) user_data: Option<Text>,
    pub(super) user: Option<Text>,
    pub(super) memory_max: Option<Text>,
    pub(super) queues: Option<Spanned<i64>>,
    #[serde(default)]
    pub(super) without: Vec<Text>,
    pub(super) packed: Option<Spanned<bool>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawMapping {
    pub(super) network: Option<Text>,
    pub(super) address: Text,
    pub(super) locator: Option<Text>,
    pub(super) locators: Option<Spanned<Vec<Text>>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawListener {
    pub(super) network: Text,
    pub(super) group: Text,
    pub(super) locator: Text,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawService {
    pub(super) address: Text,
    pub(super) from: Spanned<Vec<Text>>,
    pub(super) ports: Spanned<Vec<Text>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawAlias {
    pub(super) network: Text,
    pub(super) address: Text,
    pub(super) of: Text,
    pub(super) of_network: Option<Text>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawCrossing {
    pub(super) from: Text,
    pub(super) to: Text,
    pub(super) protocol: Option<Text>,
    #[serde(default)]
    pub(super) ports: Vec<Text>,
    pub(super) replies: Option<bool>,
    #[serde(default)]
    pub(super) from_addresses: Vec<Text>,
    #[serde(default)]
    pub(super) to_addresses: Vec<Text>,
}

/// Reads one file's text; the refusal says where and what to write instead.
pub(super) fn parse(source: &Source) -> Result<RawFile, Problem> {
    read(source)
}

/// `host.runtime` alone.
pub(super) fn runtime(source: &Source) -> Result<Option<PathBuf>, Problem> {
    #[derive(Deserialize)]
    struct File {
        host: Option<Host>,
    }
    #[derive(Deserialize)]
    struct Host {
        runtime: Option<PathBuf>,
    }
    Ok(read::<File>(source)?.host.and_then(|host| host.runtime))
}

fn read<T: DeserializeOwned>(source: &Source) -> Result<T, Problem> {
    toml::from_str(&source.text).map_err(|error| {
        let place = source.place(error.span().map_or(0, |span| span.start));
        Problem { place, what: error.message().trim().to_owned(), remedy: remedy(error.message()) }
    })
}

/// What to do about a message of serde or of the TOML parser. Both quote names in backticks.
fn remedy(message: &str) -> String {
    let quoted: Vec<&str> = message.split('`').skip(1).step_by(2).collect();
    match *quoted.as_slice() {
        [unknown, ref known @ ..] if message.starts_with("unknown field") => {
            match nearest::of(unknown, known.iter().copied()) {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!("remove it; known here: {}", known.join(", ")),
            }
        }
        [missing] if message.starts_with("missing field") => format!("add a line `{missing} = ...`"),
        _ if message.starts_with("duplicate key") => "keep one of the two".into(),
        _ if message.starts_with("invalid type") => "write a value of the expected type".into(),
        _ => "see docs/configuration.md for the syntax; the file is TOML".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(text: &str) -> (usize, String, String) {
        let source = Source { path: "x.toml".into(), text: text.into(), owns_host: true };
        let problem = parse(&source).expect_err("refused");
        (problem.place.line, problem.what, problem.remedy)
    }

    #[test]
    fn a_misspelt_key_is_refused_with_its_line_and_its_neighbour() {
        let (line, what, remedy) = refusal("[uplink]\nkind = \"tun\"\nmtuu = 1500\n");
        assert_eq!((line, remedy.as_str()), (3, "did you mean `mtu`?"));
        assert!(what.contains("mtuu"), "{what}");
    }

    #[test]
    fn a_key_like_no_other_is_refused_with_the_list() {
        let (line, _, remedy) = refusal("[uplink]\nkind = \"tun\"\ncolour = 1\n");
        assert_eq!(
            (line, remedy.as_str()),
            (
                3,
                "remove it; known here: kind, name, mtu, socket, mode, mac, next_hop, user, memory_max, queues, without, packed"
            )
        );
    }

    #[test]
    fn a_misspelt_table_is_refused() {
        let (line, _, remedy) = refusal("\n[netwrok.blue]\nvni = 1\n");
        assert_eq!((line, remedy.as_str()), (2, "did you mean `network`?"));
    }

    #[test]
    fn a_key_written_twice_is_refused_at_the_second() {
        let (line, _, remedy) = refusal("[uplink]\nkind = \"tun\"\nkind = \"none\"\n");
        assert_eq!((line, remedy.as_str()), (3, "keep one of the two"));
    }

    #[test]
    fn a_missing_key_is_named() {
        let (line, what, remedy) = refusal("[network.blue]\nipv4 = \"10.0.0.0/8\"\n");
        assert!(what.contains("vni"), "{what}");
        assert_eq!((line, remedy.as_str()), (1, "add a line `vni = ...`"));
    }

    #[test]
    fn a_value_of_another_type_is_refused() {
        let (line, what, _) = refusal("[network.blue]\nvni = \"1001\"\n");
        assert_eq!(line, 2);
        assert!(what.contains("expected i64"), "{what}");
    }

    #[test]
    fn text_that_is_no_toml_is_refused_with_its_line() {
        assert_eq!(refusal("[uplink]\nkind = tun\n").0, 2);
    }
}
