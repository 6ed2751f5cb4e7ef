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
    /// Neither IPv4, IPv6 nor ARP.
    EtherType = "ether-type",
    /// The source MAC is not the attachment's.
    SpoofedMac = "spoofed-mac",
    /// The source address is not the attachment's.
    SpoofedAddress = "spoofed-address",
    /// The destination has no mapping.
    NoMapping = "no-mapping",
    /// Source and destination are in different virtual networks and no crossing admits it.
    ForeignNetwork = "foreign-network",
    /// A checksum that must be right, because the packet ends here, is wrong.
    BadChecksum = "bad-checksum",
    /// An attachment asked the virtual gateway more often than it may.
    GatewayRate = "gateway-rate",
    /// Addressed to the virtual gateway, which serves nothing at that protocol or port.
    GatewayNoService = "gateway-no-service",
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
    /// DHCP from or through a relay agent.
    DhcpRelay = "dhcp-relay",
    /// A guest declined its address: it saw another holder of it.
    DhcpDecline = "dhcp-decline",
    /// DHCP that gets no answer: a release, a message for another server, or an attachment without an address of that family.
    DhcpUnanswered = "dhcp-unanswered",
    /// The receiver's ring has no room.
    ReceiverFull = "receiver-full",
    /// The receiving attachment has no running guest.
    ReceiverDown = "receiver-down",
    /// The uplink would not take it.
    UplinkFull = "uplink-full",
}
