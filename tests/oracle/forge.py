#!/usr/bin/env python3
"""Packets that no NVE sends, put on the fabric from the namespace this runs in.

    forge.py PLAN

From a host of the fabric to the tenants of hv2. The plan has network "blue" with vm1 on hv1, vm2 on hv2, and "red" with red1 on hv1
and red2 on hv2, the same IPv4 addresses in both. Prints {"drop reason": packets sent for it} and, under "delivered", the control:
packets that are as hv1 would send them. Each forgery is that control with one thing wrong.
"""

import json
import socket
import sys
from ipaddress import IPv6Address
from pathlib import Path

from scapy.layers.inet import UDP
from scapy.layers.inet6 import (
    ICMPv6DestUnreach,
    ICMPv6ND_NA,
    ICMPv6ND_NS,
    ICMPv6ND_RA,
    ICMPv6ND_Redirect,
    ICMPv6PacketTooBig,
    IPv6,
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrHopByHop,
    IPv6ExtHdrRouting,
    PadN,
)
from scapy.packet import Raw

from plan import Plan

COPIES = 3
C_BIT = 1 << 60
TYPE_BITS = 7 << 61


def main():
    """Sends everything."""
    plan = Plan(Path(sys.argv[1]).read_text())
    wire = socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_RAW)
    sent = {}
    for reason, packet in packets(plan):
        for _ in range(COPIES):
            wire.sendto(bytes(packet), (packet.dst, 0))
        sent[reason] = sent.get(reason, 0) + COPIES
    print(json.dumps(sent))


def packets(plan):
    """(what becomes of it, packet) of everything sent."""
    blue, red = plan.networks["blue"], plan.networks["red"]
    here, there = plan.locators["hv1"], plan.locators["hv2"]
    (vm1_4, vm1_6), (vm2_4, vm2_6), (red1_4, red1_6) = (plan.attachments[n].addresses for n in ("vm1", "vm2", "red1"))
    source4, source6 = plan.domain.sir_address(blue, vm1_4), vm1_6
    target4, target6 = (plan.domain.ila_address(there, blue, address) for address in (vm2_4, vm2_6))

    def unadjusted(address):
        """The destination without C: any bit may be changed in it without another changing too."""
        restored = plan.domain.restored([there], [blue], address)
        return IPv6Address(int(there.network_address) | (0x4 if restored in plan.domain.sir else 0x6) << 60
                           | blue.vni << 32 | int(restored) & 0xFFFFFFFF)  # fmt: skip

    plain4, plain6 = unadjusted(target4), unadjusted(target6)

    def datagram(src, dst, ahead=None, ports=(1, 2)):
        header = IPv6(src=str(src), dst=str(dst))
        return (header / ahead if ahead else header) / UDP(sport=ports[0], dport=ports[1]) / Raw(b"forged or not")

    yield "delivered", datagram(source4, target4)
    yield "delivered", datagram(source6, target6)
    yield "delivered", datagram(source4, plain4)
    yield "delivered", datagram(source6, plain6)

    # The source is the only tag of a network.
    yield "foreign-network", datagram(plan.domain.sir_address(red, red1_4), target4)
    yield "foreign-network", datagram(red1_6, target6)
    unknown = plan.domain.sir_address(blue, vm1_4)
    yield "foreign-network", datagram(IPv6Address(int(unknown) ^ 0x7000 << 32), target4)
    # C = 1 is for destinations, and only there.
    yield "illegal-source", datagram(IPv6Address(int(source4) | C_BIT), target4)
    yield "illegal-source", datagram(plan.domain.ila_address(here, blue, vm1_4), target4)
    yield "illegal-source", datagram(IPv6Address(int(here[0]) | int(source4) & (1 << 64) - 1), target4)
    yield "illegal-source", datagram(plan.domain.ila_address(here, blue, vm1_6), target6)
    # Type 3 is no SIR address; 0 and 5 to 7 are nobody's.
    for kind in (0, 3, 4, 5, 6, 7):
        yield "illegal-source", datagram(IPv6Address(int(source4) & ~TYPE_BITS | kind << 61), target4)
    # Type 1 is a task's, and whatever is nobody's of the inside is outside: no rule lets either in.
    yield "foreign-network", datagram(IPv6Address(int(source4) & ~TYPE_BITS | 1 << 61), target4)
    yield "outside-source", datagram("2001:db8:ffff::1", target4)
    yield "illegal-source", datagram(here[1], target6)
    # An IPv4 tenant does not speak to an IPv6 tenant of its own network.
    yield "illegal-source", datagram(source4, target6)
    yield "illegal-source", datagram(source6, target4)
    # Not registered, or registered where it does not come from.
    yield "unregistered-source", datagram(int_address(source4, 76), target4)
    yield "unregistered-source", datagram(int_address(source6, 76), target6)
    yield "unregistered-source", datagram(plan.domain.sir_address(blue, vm2_4), target4)
    yield "unregistered-source", datagram(vm2_6, target6)

    for kind in (5, 6, 7):
        yield "reserved-type", datagram(source4, IPv6Address(int(plain4) & ~TYPE_BITS | kind << 61))
        yield "reserved-type", datagram(source4, IPv6Address(int(plain4) & ~TYPE_BITS | kind << 61 | C_BIT))
    yield "host-address", datagram(source4, there[0x42])
    yield "unknown-network", datagram(source4, IPv6Address(int(plain4) ^ 0x7000 << 32))
    yield "unknown-network", datagram(source6, IPv6Address(int(plain6) ^ 0x7000 << 32))
    yield "no-mapping", datagram(source4, int_address(plain4, 76))
    yield "no-mapping", datagram(source6, int_address(plain6, 76))
    yield "not-local", datagram(source4, plan.domain.ila_address(there, blue, vm1_4))
    yield "not-local", datagram(source6, plan.domain.ila_address(there, blue, vm1_6))

    yield "extension-header", datagram(source6, target6, IPv6ExtHdrHopByHop(options=[PadN(optdata=b"\0" * 4)]))
    yield "extension-header", datagram(source6, target6, IPv6ExtHdrRouting(addresses=[str(target4)], segleft=1))

    # A tenant of another host, whose own NVE does not look, plays DHCP server.
    yield "rogue-server", datagram(source4, target4, ports=(67, 68))
    yield "rogue-server", datagram(source6, target6, ports=(547, 546))
    yield "rogue-server", datagram(source6, plain6, IPv6ExtHdrDestOpt(options=[PadN(optdata=b"\0" * 4)]), (547, 546))
    # Neighbour discovery never leaves its link.
    for discovery in (ICMPv6ND_NS(tgt=str(vm2_6)), ICMPv6ND_NA(tgt=str(vm1_6)), ICMPv6ND_RA(), ICMPv6ND_Redirect()):
        yield "nd-unanswered", IPv6(src=str(source6), dst=str(target6), hlim=255) / discovery

    # Errors about packets that the tenant cannot have sent.
    never4, never6 = datagram(source4, target4), datagram(source6, target6)
    error = IPv6(src="2001:db8:f:2::1", dst=str(plain4))
    yield "quoted-packet", error / ICMPv6PacketTooBig(mtu=1280) / never4
    yield "quoted-packet", error / ICMPv6DestUnreach(code=0) / never6
    error = IPv6(src="2001:db8:f:2::1", dst=str(plain6))
    yield "quoted-packet", error / ICMPv6PacketTooBig(mtu=1280) / never6
    yield "quoted-packet", error / ICMPv6DestUnreach(code=0) / Raw(bytes(never6)[:39])
    # It may have sent this one, but never to another network.
    crossing = datagram(vm2_6, plan.domain.ila_address(here, red, red1_6))
    yield "quoted-packet", error / ICMPv6PacketTooBig(mtu=1280) / crossing


def int_address(address, more):
    """`address` plus a number."""
    return IPv6Address(int(address) + more)


if __name__ == "__main__":
    main()
