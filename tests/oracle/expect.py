"""What must be seen of a frame that a tenant sends: on each link of the fabric, and at the receiver.

Scenarios 9 and 10 of the draft, between hosts: IPv6 as it is but for the destination (section 5.12.1), IPv4 translated by
RFC 7915 at the sender's NVE and back at the receiver's (5.12.2). A frame that must not leave its host gives nothing.

    tenant --hop limit T--> NVE, TUN, kernel --T--> router --T-1--> kernel, TUN, NVE --T-1--> tenant

The NVE gives back the hop that its kernel takes, except that there is nothing above 255.
"""

from dataclasses import dataclass
from ipaddress import ip_address

from scapy.layers.inet import IP
from scapy.layers.inet6 import IPv6, IPv6ExtHdrFragment
from scapy.layers.l2 import Ether
from scapy.packet import Raw

from ila import complement, ones_sum, words
from plan import GATEWAY_MAC

ICMP, TCP, UDP, FRAGMENT, ICMPV6 = 1, 6, 17, 44, 58
CHECKSUM_AT = {TCP: 16, UDP: 6, ICMP: 2}
ECHO = {8: 128, 0: 129}
# Type and code of ICMPv4 errors and of the ICMPv6 errors that they become (RFC 7915, 4.2).
ERRORS = {(3, 1): (1, 0), (3, 3): (1, 4), (3, 4): (2, 0), (11, 0): (3, 0), (11, 1): (3, 1)}


@dataclass
class Expected:
    """One frame's fate: receiver's name, IPv6 packets on the first and the second link, frames at the receiver."""

    receiver: str | None
    first_link: list
    second_link: list
    received: list


NOTHING = Expected(None, [], [], [])


def fate(plan, sender, frame):
    """The `Expected` of `frame` (bytes) sent by the attachment named `sender`."""
    sender = plan.attachments[sender]
    ether = Ether(frame)
    if ether.src != sender.mac or ether.dst != GATEWAY_MAC or ether.type not in (0x0800, 0x86DD):
        return NOTHING
    packet = ether.payload
    source, destination = ip_address(packet.src), ip_address(packet.dst)
    receiver = plan.holder(sender.network, destination)
    if source not in sender.addresses or receiver is None or receiver.host == sender.host:
        return NOTHING
    target = str(plan.domain.ila_address(plan.locators[receiver.host], receiver.network, destination))
    translate = from_ipv4 if ether.type == 0x0800 else from_ipv6
    wire, received = translate(plan, sender.network, bytes(packet), target)
    to_receiver = Ether(dst=receiver.mac, src=GATEWAY_MAC, type=ether.type)
    return Expected(
        receiver.name,
        [packet(0) for packet in wire],
        [packet(1) for packet in wire],
        [bytes(to_receiver) + packet for packet in received],
    )


def on_first_link(hop_limit):
    """The hop limit behind the sender's host."""
    return min(hop_limit, 254)


def from_ipv6(plan, network, packet, target):
    """Scenario 9: nothing changes but the destination and the hop limit."""
    header = IPv6(packet)
    packet = packet[: 40 + header.plen]
    first = on_first_link(header.hlim)

    def sent_to(destination, hop_limit):
        return packet[:7] + bytes([hop_limit]) + packet[8:24] + destination + packet[40:]

    return [lambda links: sent_to(ip_address(target).packed, first - links)], [sent_to(packet[24:40], first - 1)]


def from_ipv4(plan, network, packet, target):
    """Scenario 10: RFC 7915 section 4.1 there, 5.1 back."""
    header = IP(packet)
    payload = packet[header.ihl * 4 : header.len]
    source, destination = (plan.domain.sir_address(network, ip_address(end)) for end in (header.src, header.dst))
    more, offset = bool(header.flags.MF), header.frag * 8
    fragmented = more or offset > 0
    first = on_first_link(header.ttl)
    carried = payload
    if header.proto == ICMP and tuple(payload[:2]) in ERRORS and not fragmented:
        carried, payload = error(plan, network, payload, source.packed + destination.packed)
    elif offset == 0:
        carried = for_ipv6(header.proto, payload, packet[12:20], source.packed + destination.packed, fragmented)
    next_header = ICMPV6 if header.proto == ICMP else header.proto

    def wire(start, end, last):
        def on_link(links):
            out = IPv6(src=str(source), dst=target, tc=header.tos, fl=0, hlim=first - links)
            if not fragmented:
                out.nh = next_header
                return bytes(out / Raw(carried))
            out.nh = FRAGMENT
            piece = IPv6ExtHdrFragment(
                nh=next_header, offset=(offset + start) // 8, m=int(more or not last), id=header.id
            )
            return bytes(out / piece / Raw(carried[start:end]))

        return on_link

    def back(start, end, last):
        # Without a Fragment Header: DF by size (RFC 7915, 5.1); the identification is anyone's, see compare.py.
        total = 20 + end - start
        flags = ("MF" if more or not last else 0) if fragmented else ("DF" if total > 1260 else 0)
        out = IP(src=header.src, dst=header.dst, tos=header.tos, ttl=first - 1, proto=header.proto, flags=flags)
        out.id, out.frag = header.id if fragmented else 0, (offset + start) // 8
        return bytes(out / Raw(payload[start:end]))

    cuts = pieces(len(payload), plan.uplink_mtu if fragmented else None)
    return [wire(*cut) for cut in cuts], [back(*cut) for cut in cuts]


def pieces(length, limit):
    """(start, end, is last) of each IPv6 fragment that carries `length` bytes on a link of MTU `limit` (RFC 7915, 4)."""
    step = length if limit is None or length + 48 <= limit else (limit - 48) // 8 * 8
    starts = range(0, length, step) if length else [0]
    return [(start, min(start + step, length), start + step >= length) for start in starts]


def for_ipv6(protocol, payload, old_addresses, new_addresses, fragmented):
    """The transport header of IPv4 as it is in IPv6: pseudo-header and, for echo, the type (RFC 7915, 4.2 and 4.5).

    Wrong checksums stay as wrong as they are. A zero UDP checksum says that there is none, and stays. A fragment does not
    know the length of its datagram: the pseudo-header of its ICMPv6 lacks that one summand.
    """
    if protocol not in CHECKSUM_AT or len(payload) < CHECKSUM_AT[protocol] + 2:
        return payload
    at = CHECKSUM_AT[protocol]
    old = int.from_bytes(payload[at : at + 2], "big")
    head = payload[:at]
    removed, added = words(old_addresses), words(new_addresses)
    if protocol == UDP and old == 0:
        return payload
    if protocol == ICMP:
        if payload[0] not in ECHO:
            raise NotImplementedError(f"ICMP type {payload[0]}")
        head = bytes([ECHO[payload[0]], *payload[1:at]])
        removed, added = words(payload[:2]), added + words(head[:2]) + [ICMPV6]
        if not fragmented:
            added.append(len(payload))
    new = complement(ones_sum([complement(old), *added, *map(complement, removed)]))
    if protocol == UDP and new == 0:
        new = 0xFFFF  # RFC 8200, 8.1
    return head + new.to_bytes(2, "big") + payload[at + 2 :]


def error(plan, network, payload, addresses):
    """An ICMPv4 error as it is between the IPv6 `addresses`, and as it comes out again (RFC 7915, 4.2, 4.3, 5.2 and 5.3).

    What it quotes is translated as the quoted packet was; only its hop limit stays.
    """
    kind, code = ERRORS[tuple(payload[:2])]
    quoted, rest = IP(payload[8:]), bytes(4)
    if (kind, code) == (2, 0):
        mtu = int.from_bytes(payload[6:8], "big")
        rest = max(1280, min(mtu + 20, plan.uplink_mtu)).to_bytes(4, "big")
    size = quoted.ihl * 4
    ends = [plan.domain.sir_address(network, ip_address(end)) for end in (quoted.src, quoted.dst)]
    inner = IPv6(src=str(ends[0]), dst=str(ends[1]), tc=quoted.tos, fl=0, hlim=quoted.ttl, plen=quoted.len - size)
    inner.nh = ICMPV6 if quoted.proto == ICMP else quoted.proto
    transport = payload[8 + size :]
    there = for_ipv6(quoted.proto, transport, payload[20:28], b"".join(end.packed for end in ends), False)
    body = (bytes([kind, code, 0, 0]) + rest + bytes(inner) + there)[: 1280 - 40]
    body = with_checksum(body, words(addresses) + [len(body), ICMPV6])

    total = quoted.len - size + 20
    outer = IP(src=quoted.src, dst=quoted.dst, tos=quoted.tos, ttl=quoted.ttl, proto=quoted.proto, len=total, id=0)
    outer.flags = "DF" if total > 1260 else 0
    rest = bytes(2) + (int.from_bytes(rest, "big") - 20).to_bytes(2, "big") if (kind, code) == (2, 0) else bytes(4)
    back = payload[:2] + bytes(2) + rest + bytes(outer / Raw(transport))
    return body, with_checksum(back[: 576 - 20], [])


def with_checksum(message, pseudo):
    """`message`, ICMP of either version with a checksum of 0, with the right one."""
    checksum = complement(ones_sum(words(message) + pseudo))
    return message[:2] + checksum.to_bytes(2, "big") + message[4:]
