//! Every drop has a name: one enum, and one counter, doc line and test for each of its variants.
//!
//! What must stay true: names, documentation and counters are generated from this list and from nothing else; captures, CLI,
//! control API and metrics use [`DropReason::name`].

macro_rules! drop_reasons {
    ($($(#[doc = $doc:literal])+ $variant:ident = $name:literal,)+) => {
        /// Why a packet was dropped.
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
        #[repr(u8)]
        pub enum DropReason { $($(#[doc = $doc])+ $variant,)+ }

        impl DropReason {
            /// All reasons, in declaration order; a reason's index here is `reason as usize`.
            pub const ALL: &'static [DropReason] = &[$(DropReason::$variant,)+];
            /// The stable name: lower case, words joined by hyphens.
            pub const fn name(self) -> &'static str {
                match self { $(DropReason::$variant => $name,)+ }
            }
            /// One sentence for the documentation and for `show counters`.
            pub const fn doc(self) -> &'static str {
                match self { $(DropReason::$variant => concat!($($doc),+),)+ }
            }
        }
    };
}

drop_reasons! {
    /// The frame is shorter than its own headers, or a length field lies.
    Malformed = "malformed",
    /// The virtio-net header contradicts the packet: checksum or segmentation offsets, types or sizes that cannot be.
    BadOffload = "bad-offload",
    /// The port's attachment has been removed.
    NoAttachment = "no-attachment",
    /// Neither IPv4, IPv6 nor ARP.
    EtherType = "ether-type",
    /// The source MAC is not the attachment's.
    SpoofedMac = "spoofed-mac",
    /// The source address is not the attachment's.
    SpoofedAddress = "spoofed-address",
    /// The source is a shared address, and another attachment holds it.
    NotHolder = "not-holder",
    /// The address has moved to another host: its attachment here waits, and nothing has started on it since; or a packet for it came from the wire, and is not to be forwarded.
    Moved = "moved",
    /// An IPv6 group that no identifier stands for (solicited-node, ff1x, ff3x), that stays in its node, or through the router role.
    Multicast = "multicast",
    /// IPv4 in 0.0.0.0/8 or class E, or to the network's own address.
    Broadcast = "broadcast",
    /// A group or broadcast that nobody else listens to, here or on another host.
    NoListener = "no-listener",
    /// IGMP or MLD that is malformed, has a bad checksum, or was not sent as its version is sent.
    BadReport = "bad-report",
    /// A tenant plays querier: it asks others which groups they listen to, by IGMP or MLD.
    RogueQuerier = "rogue-querier",
    /// More copies to groups and broadcasts than one attachment may send, or be sent from the fabric.
    GroupRate = "group-rate",
    /// A link-local, loopback or unspecified destination that the gateway does not answer, or a link-local source of what is neither UDP nor ICMP to a group.
    LinkLocal = "link-local",
    /// From outside: the source is in a SIR prefix, a virtual network's /96, a locator prefix or `fabric`, where nobody outside is.
    InsideSource = "inside-source",
    /// A tenant, or whoever is outside, addressed a locator prefix or what else is `fabric`, which only the fabric may.
    LocatorDestination = "locator-destination",
    /// An attachment addressed a SIR prefix without a service or crossing that admits it.
    SirDestination = "sir-destination",
    /// Source and destination are in different virtual networks, or one is a task, and no crossing admits it.
    ForeignNetwork = "foreign-network",
    /// Source and destination are in different SIR domains, between which nothing passes, whatever crossings say.
    ForeignDomain = "foreign-domain",
    /// A checksum that must be right, because the packet ends here, is wrong.
    BadChecksum = "bad-checksum",
    /// An attachment asked the virtual gateway more often than it may.
    GatewayRate = "gateway-rate",
    /// Addressed to the virtual gateway, which serves nothing at that protocol or port.
    GatewayNoService = "gateway-no-service",
    /// The slow path has as many frames of this attachment to serve as may wait.
    PuntFull = "punt-full",
    /// The gateway's answer does not fit into the reply buffer.
    GatewayNoRoom = "gateway-no-room",
    /// ARP that gets no answer: an announcement, a reply, a probe of a free address, or a target outside the network.
    ArpUnanswered = "arp-unanswered",
    /// Neighbour discovery that gets no answer: an advertisement, a probe of a free address, or a target outside the network.
    NdUnanswered = "nd-unanswered",
    /// Neighbour discovery that came through a router, or pretends to: its hop limit is not 255.
    NdHopLimit = "nd-hop-limit",
    /// A tenant plays router: a router advertisement or a redirect.
    RogueRouter = "rogue-router",
    /// A tenant plays DHCP server: from a server's port to a client's, of either family.
    RogueServer = "rogue-server",
    /// DHCP from or through a relay agent.
    DhcpRelay = "dhcp-relay",
    /// A guest declined its address: it saw another holder of it.
    DhcpDecline = "dhcp-decline",
    /// DHCP that gets no answer: a release, a message for another server, or an attachment without an address of that family.
    DhcpUnanswered = "dhcp-unanswered",
    /// To port 53 of the gateway, and not one question of DNS: an answer, no or several questions, another operation, or not whole.
    DnsQuery = "dns-query",
    /// A question for which an attachment has too many others outstanding at its resolvers, or, where all are taken, most of all.
    DnsBusy = "dns-busy",
    /// A question that is being asked already: the same identification and port again.
    DnsRepeated = "dns-repeated",
    /// From the host side to a socket of an attachment's question: no answer to it, or not from the server that was asked.
    DnsForged = "dns-forged",
    /// The destination is outside, and no crossing leads there.
    Outside = "outside",
    /// The destination is outside, and the virtual network's `outside_deny` names it, or the source is.
    OutsideDenied = "outside-denied",
    /// From the wire: the source is outside, and no crossing lets it in.
    OutsideSource = "outside-source",
    /// A fragment without its transport header, between realms whose crossings would have to look at that.
    CrossingFragment = "crossing-fragment",
    /// To an IPv4 tenant from somebody elsewhere who has no IPv4 address in its virtual network.
    NoAlias = "no-alias",
    /// The destination has no mapping.
    NoMapping = "no-mapping",
    /// IPv6 hop-by-hop options or a routing header with segments left.
    ExtensionHeader = "extension-header",
    /// A fragment that cannot be: unaligned, beyond 65535 bytes, or a first one without its transport header.
    BadFragment = "bad-fragment",
    /// TTL or hop limit is used up.
    HopLimit = "hop-limit",
    /// Larger than the path's MTU, and it must not be fragmented.
    TooBig = "too-big",
    /// IPv4 and IPv6 have no common form of it (RFC 7915), or its header is not one that may be translated.
    Untranslatable = "untranslatable",
    /// To or from a host whose ILA is the Linux kernel's, in a checksum mode that cannot carry it: fragments under adj-transport; 0x0000 as the low word, or an identifier that is no task's, under that and neutral-map-auto.
    PeerChecksum = "peer-checksum",
    /// From the wire: the destination is in none of our locator, SIR and VN prefixes.
    NotOurs = "not-ours",
    /// From the wire: type 0 under our locator, which is the host's own and not a tenant's.
    HostAddress = "host-address",
    /// From the wire: identifier type 5, 6 or 7, or C = 1 where it cannot be.
    ReservedType = "reserved-type",
    /// From the wire: the VNID belongs to no network served here.
    UnknownNetwork = "unknown-network",
    /// From the wire: the identifier is legal and known, and lives on another host.
    NotLocal = "not-local",
    /// From the wire: the source is nobody's address (a locator, C = 1, a reserved or wrong type, a group).
    IllegalSource = "illegal-source",
    /// From the wire: the source is registered nowhere else, or is one of our own.
    UnregisteredSource = "unregistered-source",
    /// An ICMP error whose quoted packet the receiver cannot have sent.
    QuotedPacket = "quoted-packet",
    /// An ICMP error over its receiver's rate.
    RateLimited = "rate-limited",
    /// The receiver's ring has no room.
    ReceiverFull = "receiver-full",
    /// The receiving attachment has no running guest.
    ReceiverDown = "receiver-down",
    /// The uplink would not take it.
    UplinkFull = "uplink-full",
    /// Nobody has attached to the uplink's socket, or its receive rings do not run.
    UplinkDown = "uplink-down",
    /// Which MAC the next hop of the fabric has is not known, yet or any more.
    NextHopUnknown = "next-hop-unknown",
    /// From the fabric's link: an Ethernet frame to another station than ours, or no neighbour discovery to a group.
    ForeignMac = "foreign-mac",
}
