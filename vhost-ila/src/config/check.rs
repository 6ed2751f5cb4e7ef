//! Raw -> checked: each value into its witness type, then the objects against each other.
//!
//! What must stay true: checking goes on after a problem, so that one run names them all; [`Config`] is made only if there is none.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use nve_core::setup::{
    Alias, Attachment, Crossing, FurtherDomain, GRACE, Host, Listener, Mapping, Moves, Network, Peer, Realm,
    Route, Setup, SetupError, Several, Task, TaskMapping,
};
use smoltcp::wire::Ipv6Cidr;

use super::GatewayConfig;
use super::across::{Item, Places};
use super::attachment::{self, Attached, Socket};
use super::bulk::{self, MappingsFile};
use super::raw::{RawAuthority, RawFile, RawGateway, RawHost, RawListener, RawMapping, RawNetwork, Text};
use super::source::Source;
use super::uplink::{self, Uplink};
use super::value::Judge;
use super::{
    AuthorityConfig, Config, Place, Problem, Refused, WorkerConfig, across, nearest, realms, redirect, value,
};
use crate::redirect::RedirectConfig;
use crate::worker::MAX_WORKERS;

/// Where a resolver listens, unless said otherwise.
const DNS_PORT: u16 = 53;

/// `[host]` with its values checked.
struct HostSection {
    host: Host,
    fabric: Vec<Ipv6Cidr>,
    moves: Moves,
    runtime: PathBuf,
    worker: WorkerConfig,
}

#[derive(Default)]
struct Gathered {
    host: Option<HostSection>,
    uplink: Option<Uplink>,
    redirect: Option<RedirectConfig>,
    redirect_place: Option<Place>,
    gateway: Option<GatewayConfig>,
    gateway_place: Option<Place>,
    authority: AuthorityConfig,
    bulk: Option<MappingsFile>,
    further_domains: Vec<FurtherDomain>,
    networks: Vec<Network>,
    attached: Vec<(Attachment, Socket)>,
    standby: BTreeSet<String>,
    mappings: Vec<Mapping>,
    listeners: Vec<Listener>,
    routes: Vec<Route>,
    tasks: Vec<Task>,
    task_mappings: Vec<TaskMapping>,
    several: Vec<Several>,
    peers: Vec<Peer>,
    aliases: Vec<Alias>,
    crossings: Vec<Crossing>,
    places: Places,
}

/// Checks every file and what they make together; `runtime` takes the place of `[host] runtime`.
pub(super) fn check(files: &[(Source, RawFile)], runtime: Option<&Path>) -> Result<Config, Refused> {
    let mut problems = Vec::new();
    let mut gathered = Gathered::default();
    // Domains and networks first, so that a reference to one may come before it, or from another file.
    for (source, raw) in files {
        gathered.domains(&mut Judge::new(source, &mut problems), raw);
    }
    for (source, raw) in files {
        gathered.networks(&mut Judge::new(source, &mut problems), raw);
    }
    for (source, raw) in files {
        let mut judge = Judge::new(source, &mut problems);
        gathered.host_and_uplink(&mut judge, raw);
        gathered.attachments(&mut judge, raw);
        gathered.mappings(&mut judge, raw);
        gathered.peers(&mut judge, raw);
        gathered.listeners(&mut judge, raw);
        gathered.realms(&mut judge, raw);
    }
    let whole = files.first().map(|(source, _)| source.place(0));
    if let Some(place) = whole {
        gathered.missing_sections(&place, &mut problems);
    }
    Refused::unless_empty(problems)?;
    gathered.together(runtime)
}

impl Gathered {
    fn missing_sections(&self, place: &Place, problems: &mut Vec<Problem>) {
        for (section, present, remedy) in [
            ("[host]", self.places.host.is_some(), "add [host] with name, locator and sir"),
            (
                "[uplink]",
                self.places.uplink.is_some(),
                "add [uplink] with kind = \"tun\", \"vhost-user\" or \"none\"",
            ),
        ] {
            if !present {
                let what = format!("{section} is missing");
                problems.push(Problem { place: place.clone(), what, remedy: remedy.into() });
            }
        }
    }

    fn host_and_uplink(&mut self, judge: &mut Judge<'_>, raw: &RawFile) {
        if let Some(host) = &raw.host
            && judge.owns("[host]", host.span())
        {
            self.places.host = Some(
                Item::new(judge.place(host.span()))
                    .texts(judge.source(), [&host.get_ref().locator, &host.get_ref().sir])
                    .texts(judge.source(), &host.get_ref().fabric),
            );
            self.host = host_section(judge, host.get_ref());
        }
        if let Some(uplink) = &raw.uplink
            && judge.owns("[uplink]", uplink.span())
        {
            self.places.uplink =
                Some(Item::new(judge.place(uplink.span())).numbers(judge.source(), &uplink.get_ref().mtu));
            self.uplink = uplink::section(judge, uplink);
        }
        if let Some(authority) = &raw.authority
            && judge.owns("[authority]", authority.span())
        {
            self.authority = authority_section(judge, authority.get_ref()).unwrap_or_default();
        }
        if let Some(mappings) = &raw.mappings
            && judge.owns("[mappings]", mappings.span())
        {
            self.bulk = bulk::section(judge, mappings.get_ref());
            if raw
                .authority
                .as_ref()
                .is_some_and(|authority| authority.get_ref().kind.get_ref() == "embedded")
            {
                let what = "[mappings]: a registry and a file cannot both say where addresses live".into();
                judge.refuse(
                    mappings.span(),
                    what,
                    "remove it, or write kind = \"static\" in [authority]".into(),
                );
            }
        }
        if let Some(redirect) = &raw.redirect
            && judge.owns("[redirect]", redirect.span())
        {
            if redirect.get_ref().key.is_empty() {
                let remedy = "add [[redirect.key]] with id and file, or remove [redirect]".into();
                judge.refuse(redirect.span(), "redirect: there is no key".into(), remedy);
            }
            if redirect.get_ref().accept.unwrap_or(true) && redirect.get_ref().locators.is_empty() {
                let what = "redirect: it says not where locators lie that redirects may name".into();
                let remedy =
                    "add locators = [\"PREFIX/LENGTH\"], of this fabric's hosts, or accept = false".into();
                judge.refuse(redirect.span(), what, remedy);
            }
            self.redirect = redirect::section(judge, redirect.get_ref());
            self.redirect_place = Some(judge.place(redirect.span()));
        }
        if let Some(gateway) = &raw.gateway
            && judge.owns("[gateway]", gateway.span())
        {
            self.gateway = gateway_section(judge, gateway.get_ref());
            self.gateway_place = Some(judge.place(gateway.span()));
        }
    }

    fn domains(&mut self, judge: &mut Judge<'_>, raw: &RawFile) {
        for (name, domain) in &raw.domain {
            let item = judge.item(name).texts(judge.source(), [&domain.sir, &domain.locator]);
            if judge.named("domain", name, item, &mut self.places.domains) {
                let at = |key: &str| format!("domain.{}.{key}", name.get_ref());
                let sir = judge.prefix(&at("sir"), &domain.sir, 64);
                let locator = judge.prefix(&at("locator"), &domain.locator, 64);
                if let (Some(sir), Some(locator)) = (sir, locator) {
                    let name = name.get_ref().clone();
                    self.further_domains.push(FurtherDomain { name, sir, locator });
                }
            }
        }
    }

    fn networks(&mut self, judge: &mut Judge<'_>, raw: &RawFile) {
        for (name, network) in &raw.network {
            let texts =
                [&network.ipv4, &network.ipv6, &network.gateway4, &network.gateway6].into_iter().flatten();
            let texts = texts.chain(&network.dns_forward).chain(&network.outside_deny).chain(&network.nat64);
            let texts = texts.chain(&network.domain).chain(&network.sir_domain);
            let item = judge.item(name).numbers(judge.source(), [&network.vni]).texts(judge.source(), texts);
            if judge.named("network", name, item, &mut self.places.networks) {
                self.networks.extend(network_section(judge, name.get_ref(), network));
                self.crossings.extend(realms::outside(name.get_ref(), network));
            }
        }
    }

    fn attachments(&mut self, judge: &mut Judge<'_>, raw: &RawFile) {
        for (name, raw) in &raw.attachment {
            let item = format!("attachment.{}", name.get_ref());
            let network_known =
                raw.network.as_ref().is_none_or(|network| self.knows_network(judge, &item, network));
            let values = raw.mac.iter().chain(raw.addresses.get_ref());
            let values = values.chain(&raw.prefixes).chain(&raw.shared).chain(&raw.macs);
            let written = judge.item(name).texts(judge.source(), values);
            if judge.named("attachment", name, written, &mut self.places.attachments) && network_known {
                match attachment::section(judge, name, raw) {
                    Some(Attached::Tenant(facts, socket)) => {
                        let waits = raw.standby.as_ref().is_some_and(|standby| *standby.get_ref());
                        self.standby.extend(waits.then(|| facts.name.clone()));
                        self.attached.push((facts, socket));
                    }
                    Some(Attached::Task(task)) => self.tasks.push(task),
                    None => {}
                }
            }
        }
    }

    fn peers(&mut self, judge: &mut Judge<'_>, raw: &RawFile) {
        for peer in &raw.peer {
            let raw = peer.get_ref();
            let locator = judge.prefix("peer.locator", &raw.locator, 64);
            let checksum = judge.keyword("peer.checksum", &raw.checksum, value::PEER_CHECKSUMS);
            if let (Some(locator), Some(checksum)) = (locator, checksum) {
                let item = Item::new(judge.place(peer.span())).texts(judge.source(), [&raw.locator]);
                self.places.others.push((format!("peer {locator}"), item));
                self.peers.push(Peer { locator, checksum });
            }
        }
    }

    fn mappings(&mut self, judge: &mut Judge<'_>, raw: &RawFile) {
        for mapping in &raw.mapping {
            let network = mapping.get_ref().network.as_ref();
            let network_known = network.is_none_or(|network| self.knows_network(judge, "mapping", network));
            let (raw, place) = (mapping.get_ref(), judge.place(mapping.span()));
            let checked = mapping_section(judge, raw).filter(|_| network_known);
            let name = match &checked {
                Some(Mapped::Address(mapping)) => {
                    format!("mapping {} in {}", mapping.address, mapping.network)
                }
                Some(Mapped::Prefix(route)) => format!("mapping {} in {}", route.prefix, route.network),
                Some(Mapped::Task(mapping)) => format!("mapping {}", mapping.address),
                Some(Mapped::Several(several)) => several.object(),
                None => continue,
            };
            let locators = raw.locators.iter().flat_map(|locators| locators.get_ref());
            let texts = raw.locator.iter().chain(locators).chain([&raw.address]);
            let item = Item::new(place).texts(judge.source(), texts);
            self.places.others.push((name, item));
            match checked {
                Some(Mapped::Address(mapping)) => self.mappings.push(mapping),
                Some(Mapped::Prefix(route)) => self.routes.push(route),
                Some(Mapped::Task(mapping)) => self.task_mappings.push(mapping),
                Some(Mapped::Several(several)) => self.several.push(several),
                None => {}
            }
        }
    }

    fn listeners(&mut self, judge: &mut Judge<'_>, raw: &RawFile) {
        for listener in &raw.listener {
            let network_known = self.knows_network(judge, "listener", &listener.get_ref().network);
            if let Some(checked) = listener_section(judge, listener.get_ref())
                && network_known
            {
                let name = format!("listener {} in {}", checked.group, checked.network);
                let texts = [&listener.get_ref().group, &listener.get_ref().locator];
                let item = Item::new(judge.place(listener.span())).texts(judge.source(), texts);
                self.places.others.push((name, item));
                self.listeners.push(checked);
            }
        }
    }

    fn realms(&mut self, judge: &mut Judge<'_>, raw: &RawFile) {
        for (name, service) in &raw.service {
            let texts = [&service.address];
            let item = judge.item(name).texts(judge.source(), texts);
            let item_name = format!("service.{}", name.get_ref());
            let known = service.from.get_ref().iter();
            let known = known.filter(|from| !self.knows_network(judge, &item_name, from)).count() == 0;
            if judge.named("service", name, item, &mut self.places.services) && known {
                let rules = realms::service(judge, name.get_ref(), service, &self.further_domains);
                self.crossings.extend(rules.into_iter().flatten());
            }
        }
        for alias in &raw.alias {
            let (place, raw) = (judge.place(alias.span()), alias.get_ref());
            let networks = std::iter::once(&raw.network).chain(&raw.of_network);
            let known = networks.filter(|name| !self.knows_network(judge, "alias", name)).count() == 0;
            let Some(alias) = realms::alias(judge, raw).filter(|_| known) else { continue };
            let texts = [&raw.address, &raw.of];
            let item = Item::new(place).texts(judge.source(), texts);
            self.places.others.push((alias.name(), item));
            self.aliases.push(alias);
        }
        for crossing in &raw.crossing {
            let (place, raw) = (judge.place(crossing.span()), crossing.get_ref());
            let realms = [&raw.from, &raw.to];
            let networks =
                realms.into_iter().filter(|realm| matches!(Realm::of(realm.get_ref()), Realm::Network(_)));
            let known = networks.filter(|name| !self.knows_network(judge, "crossing", name)).count() == 0;
            let Some(crossing) = realms::crossing(judge, raw).filter(|_| known) else { continue };
            let texts = raw.ports.iter().chain(&raw.from_addresses).chain(&raw.to_addresses);
            let item = Item::new(place).texts(judge.source(), texts);
            // Two rules between the same realms are told apart by their number.
            let number =
                1 + self.places.others.iter().filter(|(name, _)| name.starts_with("crossing")).count();
            let name = format!("crossing {number} ({} to {})", crossing.from.name(), crossing.to.name());
            let crossing = Crossing { name, ..crossing };
            self.places.others.push((crossing.name.clone(), item));
            self.crossings.push(crossing);
        }
    }

    fn knows_network(&self, judge: &mut Judge<'_>, item: &str, name: &toml::Spanned<String>) -> bool {
        let known = &self.places.networks;
        if known.contains_key(name.get_ref()) {
            return true;
        }
        let remedy = match nearest::of(name.get_ref(), known.keys().map(String::as_str)) {
            Some(near) => format!("did you mean \"{near}\"?"),
            None => format!("add [network.{}], or name one that exists", name.get_ref()),
        };
        judge.refuse(
            name.span(),
            format!("{item}.network: there is no network \"{}\"", name.get_ref()),
            remedy,
        );
        false
    }

    /// The objects against each other; what belongs to this machine here, the rest in nve-core.
    fn together(self, runtime: Option<&Path>) -> Result<Config, Refused> {
        let (Some(section), Some(uplink), Some(sections)) = (self.host, self.uplink, self.places.sections())
        else {
            unreachable!("a section that is missing or wrong is a problem, and problems have been returned");
        };
        let runtime = runtime.map_or(section.runtime, Path::to_owned);
        let uplink = uplink.complete(section.host.locator, &runtime)?;
        uplink::beside_gateway(self.gateway.as_ref(), self.gateway_place.as_ref(), &uplink)?;
        uplink::beside_redirect(self.redirect_place.as_ref(), &uplink)?;
        uplink::beside_workers(section.worker.count, &sections.host, &uplink)?;
        let gateway = self.gateway;
        let mut host = section.host;
        host.uplink_mtu = uplink.mtu();
        let (attachments, sockets): (Vec<_>, Vec<_>) = self.attached.into_iter().unzip();
        let devices = attachment::devices(&attachments, sockets, (&runtime, &uplink))?;
        let moves = Moves { standby: self.standby, ..section.moves };
        let Self {
            mut further_domains,
            networks,
            mappings,
            listeners,
            routes,
            tasks,
            task_mappings,
            several,
            aliases,
            crossings,
            redirect,
            peers,
            ..
        } = self;
        // Numbered as they stand: in the order of their names, whatever the order of files.
        further_domains.sort_unstable_by(|one, other| one.name.cmp(&other.name));
        let setup = Setup {
            further_domains,
            networks,
            attachments,
            mappings,
            listeners,
            routes,
            moves,
            tasks,
            task_mappings,
            several,
            aliases,
            crossings,
            peers,
            fabric: section.fabric,
            uplink_hops: uplink.hops(),
            ..Setup::of(host)
        };
        let in_config = |error: &SetupError| across::refused(error, &self.places);
        let bulk = self.bulk.as_ref().map(|file| file.read(&setup, in_config)).transpose()?;
        let bulk = bulk.unwrap_or_default();
        let setup = Setup { bulk, ..setup };
        let setup = setup.check().map_err(|error| {
            let of_bulk = || self.bulk.as_ref().and_then(|file| file.refused(&error));
            let known = self.places.has(&error.object);
            if known { None } else { of_bulk() }.unwrap_or_else(|| across::refused(&error, &self.places))
        })?;
        let mappings_room = self.bulk.as_ref().map_or(0, |file| file.room).max(setup.setup().bulk.len());
        Ok(Config {
            setup,
            devices,
            uplink,
            gateway,
            worker: section.worker,
            authority: self.authority,
            redirect,
            mappings_room,
            runtime,
            sections,
        })
    }
}

fn host_section(judge: &mut Judge<'_>, raw: &RawHost) -> Option<HostSection> {
    let name = judge.name("host.name", &raw.name);
    let locator = judge.prefix("host.locator", &raw.locator, 64);
    let sir = judge.prefix("host.sir", &raw.sir, 64);
    let checksum = match &raw.checksum {
        Some(text) => judge.host_checksum(text),
        None => Some(Default::default()),
    };
    let unknown = match &raw.unknown {
        Some(text) => judge.keyword("host.unknown", text, value::UNKNOWNS),
        None => Some(Default::default()),
    };
    let stragglers = match &raw.moved {
        Some(text) => judge.keyword("host.moved", text, value::STRAGGLERS),
        None => Some(Default::default()),
    };
    let grace = match &raw.grace {
        Some(text) => judge.grace("host.grace", text),
        None => Some(GRACE),
    };
    let runtime = match &raw.runtime {
        Some(text) => judge.absolute("host.runtime", text),
        None => Some(PathBuf::from(super::DEFAULT_RUNTIME)),
    };
    let spin = match &raw.spin {
        Some(text) => judge.spin("host.spin", text),
        None => Some(Default::default()),
    };
    let count = match &raw.workers {
        Some(number) => judge.number("host.workers", number, 1..=MAX_WORKERS),
        None => Some(1),
    };
    let fabric: Vec<Option<_>> = raw.fabric.iter().map(|text| judge.prefix6("host.fabric", text)).collect();
    let fabric = fabric.into_iter().collect::<Option<_>>();
    // The MTU is the uplink's: `together` sets it.
    let host = Host {
        name: name?,
        locator: locator?,
        sir: sir?,
        checksum: checksum?,
        uplink_mtu: 0,
        unknown: unknown?,
    };
    let moves = Moves { stragglers: stragglers?, grace: grace?, ..Moves::default() };
    let worker = WorkerConfig { count: count?, spin: spin? };
    Some(HostSection { host, fabric: fabric?, moves, runtime: runtime?, worker })
}

fn gateway_section(judge: &mut Judge<'_>, raw: &RawGateway) -> Option<GatewayConfig> {
    let tun = match &raw.tun {
        Some(name) => judge.interface("gateway.tun", name),
        None => Some("ila-in0".into()),
    };
    let interface = judge.optional(&raw.interface, |judge, name| judge.interface("gateway.interface", name));
    Some(GatewayConfig { tun: tun?, interface: interface? })
}

fn authority_section(judge: &mut Judge<'_>, raw: &RawAuthority) -> Option<AuthorityConfig> {
    let embedded = judge.keyword("authority.kind", &raw.kind, &[("static", false), ("embedded", true)])?;
    match &raw.state {
        Some(state) if !embedded => {
            let what = "authority.state: an authority of kind \"static\" remembers nothing".into();
            judge.refuse(state.span(), what, "remove the line, or write kind = \"embedded\"".into());
            None
        }
        Some(state) => Some(AuthorityConfig::Embedded { state: judge.absolute("authority.state", state)? }),
        None if embedded => Some(AuthorityConfig::Embedded { state: super::DEFAULT_STATE.into() }),
        None => Some(AuthorityConfig::Static),
    }
}

fn network_section(judge: &mut Judge<'_>, name: &str, raw: &RawNetwork) -> Option<Network> {
    let at = |key: &str| format!("network.{name}.{key}");
    let vnid = judge.vnid(&at("vni"), &raw.vni);
    let ipv4 = judge.optional(&raw.ipv4, |judge, text| judge.cidr4(&at("ipv4"), text));
    let ipv6 = judge.optional(&raw.ipv6, |judge, text| judge.prefix(&at("ipv6"), text, 96));
    let gateway4 = judge
        .optional(&raw.gateway4, |judge, text| judge.parse(&at("gateway4"), text, "write an IPv4 address"));
    let gateway6 = judge
        .optional(&raw.gateway6, |judge, text| judge.parse(&at("gateway6"), text, "write an IPv6 address"));
    let dns = raw.dns.iter().map(|text| judge.parse(&at("dns"), text, "write an IPv4 or IPv6 address"));
    let dns: Vec<Option<_>> = dns.collect();
    let servers: Vec<Option<_>> =
        raw.dns_forward.iter().map(|text| judge.server(&at("dns_forward"), text, DNS_PORT)).collect();
    let domain = judge.optional(&raw.domain, |judge, text| judge.domain(&at("domain"), text));
    let search: Vec<Option<_>> = raw.search.iter().map(|text| judge.domain(&at("search"), text)).collect();
    let ntp = raw.ntp.iter().map(|text| judge.parse(&at("ntp"), text, "write an IPv4 or IPv6 address"));
    let ntp: Vec<Option<_>> = ntp.collect();
    let lease4 = match &raw.dhcp4 {
        Some(text) => judge.keyword(&at("dhcp4"), text, value::LEASES),
        None => Some(Default::default()),
    };
    let multicast = match &raw.multicast {
        Some(text) => judge.keyword(&at("multicast"), text, value::MULTICASTS),
        None => Some(Default::default()),
    };
    let denied: Vec<Option<_>> =
        raw.outside_deny.iter().map(|text| judge.prefix6(&at("outside_deny"), text)).collect();
    let nat64 = judge.optional(&raw.nat64, |judge, text| judge.nat64(&at("nat64"), text));
    Some(Network {
        name: name.to_owned(),
        sir_domain: raw.sir_domain.as_ref().map(|domain| domain.get_ref().clone()),
        vnid: vnid?,
        ipv4: ipv4?,
        ipv6: ipv6?,
        gateway4: gateway4?,
        gateway6: gateway6?,
        dns: dns.into_iter().collect::<Option<_>>()?,
        dns_forward: servers.into_iter().collect::<Option<_>>()?,
        domain: domain?,
        search: search.into_iter().collect::<Option<_>>()?,
        ntp: ntp.into_iter().collect::<Option<_>>()?,
        lease4: lease4?,
        multicast: multicast?,
        metadata: raw.metadata.unwrap_or(true),
        outside_deny: denied.into_iter().collect::<Option<_>>()?,
        nat64: nat64?,
    })
}

/// What a `[[mapping]]` says.
enum Mapped {
    Address(Mapping),
    Prefix(Route),
    Task(TaskMapping),
    Several(Several),
}

fn mapping_section(judge: &mut Judge<'_>, raw: &RawMapping) -> Option<Mapped> {
    let item = "mapping.address";
    let locator = match (&raw.locator, &raw.locators) {
        (Some(locator), None) => locator,
        (None, Some(locators)) => return several_section(judge, raw, locators),
        (Some(both), Some(_)) => {
            let what = "mapping: it has locator and locators".into();
            judge.refuse(both.span(), what, "write one locator, or the list of all".into());
            return None;
        }
        (None, None) => {
            let what = "mapping: it has no locator".into();
            judge.refuse(raw.address.span(), what, "add a line `locator = ...`".into());
            return None;
        }
    };
    let Some(network) = &raw.network else {
        let remedy = "write a task's SIR address, or say of which network the address is: network = \"NAME\"";
        let address = judge.parse(item, &raw.address, remedy);
        let locator = judge.prefix("mapping.locator", locator, 64);
        return Some(Mapped::Task(TaskMapping { address: address?, locator: locator? }));
    };
    let network = network.get_ref().clone();
    if raw.address.get_ref().contains('/') {
        let prefix = judge.prefix_behind(item, &raw.address);
        let locator = judge.prefix("mapping.locator", locator, 64);
        return Some(Mapped::Prefix(Route { network, prefix: prefix?, locator: locator? }));
    }
    let address =
        judge.parse(item, &raw.address, "write an IPv4 or IPv6 address of the network, or a prefix");
    let locator = judge.prefix("mapping.locator", locator, 64);
    Some(Mapped::Address(Mapping { network, address: address?, locator: locator? }))
}

/// One address at several hosts.
fn several_section(
    judge: &mut Judge<'_>,
    raw: &RawMapping,
    locators: &toml::Spanned<Vec<Text>>,
) -> Option<Mapped> {
    if raw.address.get_ref().contains('/') {
        let what = "mapping.locators: a prefix leads one way".into();
        judge.refuse(locators.span(), what, "write one locator, or list single addresses".into());
        return None;
    }
    let address = judge.parse("mapping.address", &raw.address, "write an IPv4 or IPv6 address");
    let locators = locators.get_ref().iter();
    let locators: Vec<Option<_>> =
        locators.map(|locator| judge.prefix("mapping.locators", locator, 64)).collect();
    let network = raw.network.as_ref().map(|network| network.get_ref().clone());
    Some(Mapped::Several(Several {
        network,
        address: address?,
        locators: locators.into_iter().collect::<Option<_>>()?,
    }))
}

fn listener_section(judge: &mut Judge<'_>, raw: &RawListener) -> Option<Listener> {
    let group = judge.parse("listener.group", &raw.group, "write the address of an IPv4 or IPv6 group");
    let locator = judge.prefix("listener.locator", &raw.locator, 64);
    Some(Listener { network: raw.network.get_ref().clone(), group: group?, locator: locator? })
}
