"""The reference network of the draft (section 5.3): who is where, and what the draft's notation stands for. The plan's shape:

{"sir": "2001:db8:51::/64", "checksum": "neutral", "scenarios": ["1", "9", ...], "gateway": "gw",
 "hosts": {"L1": {"link": "hv1", "locator": "2001:db8:0:1::/64"}, ...},
 "networks": {"VNI1": {"vni": 1001, "vnet": "2001:db8:b1:e::/96"}, ...},
 "tenants": {"VA1": {"network": "VNI1", "host": "L1", "mac": "52:54:00:00:00:01", "ipv4": "10.1.0.1", "ipv6": "2001:db8:b1:e::1"}, ...},
 "tasks": {"T1": {"host": "L1", "address": "2001:db8:51:0:2000::11"}, ...},
 "internet": "2001:db8:e::2",
 "aliases": {"ADDR4": {"network": "VNI1", "address": "10.1.200.4"}, ...}}
"""

import re
from functools import cache
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address

from compare import interfaces, read
from ila import C_BIT, TYPE_IPV4, TYPE_IPV6, complement, of_words, ones_sum, words
from packet import ICMPV6, Packet
from plan import GATEWAY_MAC

TYPE_LOCAL = 1
DISCOVERY = range(133, 138)


class Reference:
    """What the plan says, asked in the draft's notation."""

    def __init__(self, plan):
        self.sir = IPv6Network(plan["sir"])
        self.neutral = {"neutral": True, "unmodified": False}[plan["checksum"]]
        self.scenarios = {int(number) for number in plan["scenarios"]}
        self.gateway = plan["gateway"]
        self.locators = {name: IPv6Network(host["locator"]) for name, host in plan["hosts"].items()}
        self.links = {name: host["link"] for name, host in plan["hosts"].items()}
        self.vnis = {name: network["vni"] for name, network in plan["networks"].items()}
        self.vnets = {name: IPv6Network(network["vnet"]) for name, network in plan["networks"].items()}
        self.tenants, self.tasks = plan["tenants"], plan["tasks"]
        self.internet = IPv6Address(plan["internet"])
        self.aliases = plan["aliases"]
        self.ends = [*self.tenants, *self.tasks, "Iaddr"]

    def realm(self, end):
        """Whose an endpoint is: a virtual network's, the tasks', nobody's here."""
        if end in self.tenants:
            return self.tenants[end]["network"]
        return "tasks" if end in self.tasks else "outside"

    def path(self, row):
        """The router's links that a row's packets pass, named after the hosts they lead to."""
        homes = (self.tenants.get(end) or self.tasks.get(end) for end in (row.sender, row.receiver))
        return [self.links[home["host"]] if home else self.gateway for home in homes]

    def pair(self, notation):
        """The two addresses of a pair in the draft's notation, as they are in a packet."""
        return tuple(map(self.address, notation))

    def endpoints(self, notation):
        """The same as an endpoint in IPv6 would see them: what checksums on the wire are for (section 4.4)."""
        return tuple(self.address(re.sub(r"^L\d+:", "E:", end)) for end in notation)

    @cache
    def address(self, notation):
        """The address that `notation` stands for. `E:` is whatever prefix the endpoint itself uses."""
        if notation == "Iaddr":
            return self.internet
        if notation in self.aliases:
            return IPv4Address(self.aliases[notation]["address"])
        if notation in self.tenants:
            return IPv4Address(self.tenants[notation]["ipv4"])
        prefix, object_ = notation.split(":", 1)
        if prefix.startswith("VNET"):
            return IPv6Address(self.tenants[object_]["ipv6"])
        identifier, endpoint = self.identifier(object_)
        if prefix in ("SIR", "E"):
            return endpoint
        return self.located(self.locators[prefix], identifier, endpoint)

    def identifier(self, notation):
        """(64 bits with C = 0, the address that endpoints use) of `T1`, `(VNI1:VA1)` or `(VNI1:VAX1)` (sections 3.5 to 3.7)."""
        if notation in self.tasks:
            address = IPv6Address(self.tasks[notation]["address"])
            identifier = int(address) & (1 << 64) - 1
            assert identifier >> 61 == TYPE_LOCAL and address in self.sir
            return identifier, address
        vni, kind, number = re.fullmatch(r"\((VNI\d):(VAX?)(\d)\)", notation).groups()
        tenant = self.tenants["VA" + number]
        assert tenant["network"] == vni
        if kind == "VA":
            identifier = TYPE_IPV4 << 61 | self.vnis[vni] << 32 | int(IPv4Address(tenant["ipv4"]))
            return identifier, IPv6Address(int(self.sir.network_address) | identifier)
        address = IPv6Address(tenant["ipv6"])
        assert address in self.vnets[vni]
        return TYPE_IPV6 << 61 | self.vnis[vni] << 32 | int(address) & 0xFFFFFFFF, address

    def located(self, locator, identifier, endpoint):
        """The ILA address (section 3.8). The low word is solved for: see `ila.py`, `ila_address`."""
        plain = IPv6Address(int(locator.network_address) | identifier)
        if not self.neutral or identifier & 0xFFFF == 0xFFFF:
            return plain
        new = words(plain.packed)[:7]
        new[4] |= C_BIT
        return of_words(new + [ones_sum(words(endpoint.packed) + [complement(word) for word in new])])

    def said(self, address, home):
        """`address` in the draft's notation, for an endpoint that lives in the network of `home`."""
        names = [name for name in self.known() if self.address_at(name, home) == address]
        return names[0] if names else str(address)

    def address_at(self, notation, home):
        """The address of `notation`; None for an IPv4 address of another network than that of `home`."""
        owner = self.aliases.get(notation) or self.tenants.get(notation)
        if owner and owner["network"] != self.realm(home):
            return None
        return self.address(notation)

    def known(self):
        """Every notation there is in this network; nothing is said here of what a row expects."""
        tenants = [(name, tenant["network"][3:], name[2:], tenant["host"]) for name, tenant in self.tenants.items()]
        virtual = [f"(VNI{vni}:{kind}{number})" for _, vni, number, _ in tenants for kind in ("VA", "VAX")]
        yield from ["Iaddr", *self.aliases, *self.tenants]
        yield from [f"VNET{vni}:{name}" for name, vni, _, _ in tenants]
        yield from [f"SIR:{name}" for name in [*self.tasks, *virtual[::2]]]
        yield from [f"{locator}:{name}" for locator in self.locators for name in [*self.tasks, *virtual]]

    def is_ours(self, packet):
        """Whether an IPv6 packet of the fabric has an end that is a locator's, a SIR address or a tenant's; hosts' own addresses
        (`locator::1`) are nobody's."""
        prefixes = [*self.locators.values(), self.sir, *self.vnets.values()]
        control = [prefix[1] for prefix in self.locators.values()]
        return any(end not in control and any(end in prefix for prefix in prefixes) for end in packet.ends)

    def captured(self, directory, end):
        """([packets sent], [packets received]) of an endpoint: what its link carried, but for what never leaves a link. Nothing of one that
        was not captured: whatever it has part in misses its packets."""
        pcap, pcapng = (directory / f"{end.lower()}.{kind}" for kind in ("pcap", "pcapng"))
        if not pcap.exists() and not pcapng.exists():
            return [], []
        if end in self.tenants:
            frames = read(pcap)
            mac, gateway = (bytes.fromhex(text.replace(":", "")) for text in (self.tenants[end]["mac"], GATEWAY_MAC))
            sent = [frame[14:] for frame in frames if is_ip(frame) and frame[6:12] == mac]
            received = [frame[14:] for frame in frames if is_ip(frame) and frame[6:12] == gateway]
        else:
            (frames,) = interfaces(pcapng).values()
            address = self.internet if end == "Iaddr" else ip_address(self.tasks[end]["address"])
            packets = [frame[14:] for frame in frames if is_ip(frame)] if end == "Iaddr" else frames
            sent = [data for data in packets if Packet(data).ends[0] == address]
            received = [data for data in packets if Packet(data).ends[0] != address]
        return [[Packet(data) for data in packets if travels(Packet(data))] for packets in (sent, received)]


def is_ip(frame):
    """Whether an Ethernet frame carries IPv4 or IPv6."""
    return frame[12:14] in (b"\x08\x00", b"\x86\xdd")


def travels(packet):
    """Whether a packet is for somebody beyond the link, and from there: neighbour discovery is not, whatever its addresses."""
    if packet.protocol == ICMPV6 and packet.payload[0] in DISCOVERY:
        return False
    return not any(end.is_link_local or end.is_multicast or end.is_unspecified for end in packet.ends)
