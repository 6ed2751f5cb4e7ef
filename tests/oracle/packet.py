"""IP packets as bytes, their checksums by RFC 1071, and RFC 7915 for what is no fragment, and for one error: a closed port.

Every checksum is summed up anew for the addresses that an endpoint sees: nothing is carried over from the packet before.
"""

from dataclasses import dataclass
from ipaddress import ip_address

from scapy.layers.inet import IP
from scapy.layers.inet6 import IPv6

from ila import ones_sum, words

ICMP, TCP, UDP, ICMPV6 = 1, 6, 17, 58
NAMES = {ICMP: "icmp", ICMPV6: "icmp", TCP: "tcp", UDP: "udp"}
CHECKSUM_AT = {TCP: 16, UDP: 6, ICMP: 2, ICMPV6: 2}
# Types of ICMPv4, and what they are in ICMPv6 (RFC 7915, 4.2 and 5.2).
ECHO = {8: 128, 0: 129}
# Type and code of "port unreachable" in both.
CLOSED = {ICMP: b"\x03\x03", ICMPV6: b"\x01\x04"}


@dataclass(frozen=True)
class Packet:
    """An IP packet of either version, from its first byte on."""

    data: bytes

    @property
    def version(self):
        return self.data[0] >> 4

    @property
    def protocol(self):
        return self.data[9] if self.version == 4 else self.data[6]

    @property
    def hops(self):
        """TTL or hop limit."""
        return self.data[8] if self.version == 4 else self.data[7]

    @property
    def ends(self):
        """Source and destination."""
        at, size = (12, 4) if self.version == 4 else (8, 16)
        return tuple(ip_address(self.data[start : start + size]) for start in (at, at + size))

    @property
    def traffic_class(self):
        return self.data[1] if self.version == 4 else (self.data[0] << 4 | self.data[1] >> 4) & 0xFF

    @property
    def payload(self):
        """What is behind the header, by the header's own length field."""
        start = (self.data[0] & 15) * 4 if self.version == 4 else 40
        at, more = (2, 0) if self.version == 4 else (4, 40)
        return self.data[start : more + int.from_bytes(self.data[at : at + 2], "big")]

    @property
    def name(self):
        """`tcp`, `udp`, `icmp` for echoes, `error`; another protocol's number."""
        return "error" if self.is_error else NAMES.get(self.protocol, str(self.protocol))

    @property
    def ports(self):
        return tuple(words(self.payload[:4])) if self.protocol in (TCP, UDP) else ()

    @property
    def is_error(self):
        return self.payload[:2] == CLOSED.get(self.protocol)

    @property
    def quoted(self):
        """The packet that an error is about."""
        return Packet(self.payload[8:])

    @property
    def is_request(self):
        """Whether it asks for an echo."""
        return (self.protocol, self.payload[0]) in ((ICMP, 8), (ICMPV6, 128))

    @property
    def tcp_data(self):
        """How many bytes of data a TCP segment brings."""
        return len(self.payload) - (self.payload[12] >> 4) * 4 if self.protocol == TCP else 0

    @property
    def has_good_checksum(self):
        """Whether the transport checksum is right for the packet's own addresses."""
        return ones_sum(words(self.payload) + pseudo_header(self.protocol, self.ends, len(self.payload))) == 0xFFFF

    def sent_to(self, destination):
        """The same IPv6 packet with another destination and nothing else changed."""
        assert self.version == 6
        return Packet(self.data[:24] + destination.packed + self.data[40:])

    def between(self, ends, hops):
        """The packet as one from `ends[0]` to `ends[1]`: with these addresses, and translated if they are of the other version.

        What an error quotes went the other way, and no hop of it is spent.
        """
        protocol, payload = self.protocol, self.payload
        version = ends[0].version
        if self.is_error:
            protocol = ICMPV6 if version == 6 else ICMP
            payload = CLOSED[protocol] + bytes(6) + self.quoted.between(ends[::-1], self.quoted.hops).data
        elif version != self.version and protocol in (ICMP, ICMPV6):
            kinds = ECHO if version == 6 else {new: old for old, new in ECHO.items()}
            protocol, payload = (ICMPV6 if version == 6 else ICMP), bytes([kinds[payload[0]]]) + payload[1:]
        payload = summed(protocol, payload, ends)
        if version == 4:
            total = 20 + len(payload)
            # DF by size (RFC 7915, 5.1). The identification is the translator's to choose.
            flags = "DF" if total > 1260 else 0
            ttl, tos = hops, self.traffic_class
            header = IP(src=str(ends[0]), dst=str(ends[1]), tos=tos, ttl=ttl, proto=protocol, len=total, id=0, flags=flags)
        else:
            label = int.from_bytes(self.data[1:4], "big") & 0xFFFFF if self.version == 6 else 0
            header = IPv6(src=str(ends[0]), dst=str(ends[1]), tc=self.traffic_class, fl=label, hlim=hops, nh=protocol)
            header.plen = len(payload)
        return Packet(bytes(header) + payload)


def pseudo_header(protocol, ends, length):
    """The words beside the payload that a transport checksum is for (RFC 793; RFC 8200, 8.1)."""
    return [] if protocol == ICMP else [*words(ends[0].packed), *words(ends[1].packed), length, protocol]


def summed(protocol, payload, ends):
    """`payload` with the checksum that a sender would write between the addresses `ends`."""
    at = CHECKSUM_AT[protocol]
    blank = payload[:at] + bytes(2) + payload[at + 2 :]
    checksum = ones_sum(words(blank) + pseudo_header(protocol, ends, len(payload))) ^ 0xFFFF
    if protocol == UDP and checksum == 0:
        checksum = 0xFFFF
    return blank[:at] + checksum.to_bytes(2, "big") + blank[at + 2 :]
