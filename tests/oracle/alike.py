#!/usr/bin/env python3
"""Whether guests can tell a neighbour on their own host from one on another, by what each captured.

    alike.py between ME LOCAL WIRE [--spoil]    two conversations of the same guest: with a neighbour here, and with one there
    alike.py heard LOCAL WIRE [--spoil]         what two guests, here and there, heard of a third, or of their gateway

ME is MAC,IPV4,IPV6 of the guest that begins. LOCAL and WIRE are MAC,IPV4,IPV6,PCAP[,PCAP] of a partner and what was captured of it: for
`between` in both guests. Prints {case: [packets, [differences]]}. A packet becomes the list of its fields that are compared; of each
case, the same lists must have been seen as often. With `--spoil` one field of one packet is changed first: what this must find.

Not compared: the hop limit, an error's quoted one included; identifications (RFC 6864: only pieces have one that means something, and
theirs are chosen by chance); what the two conversations choose anew by chance: ports, echo identifiers, sequence numbers, windows and
timestamps of TCP, transaction numbers of DHCP.
"""

import json
import sys
from collections import Counter
from ipaddress import IPv4Address, IPv6Address

from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import IPv6, IPv6ExtHdrFragment, in6_chksum
from scapy.layers.l2 import Ether
from scapy.utils import rdpcap

GATEWAY_MAC = "02:49:4c:41:00:01"
# Chosen by the kernel, from here on.
EPHEMERAL = 32768
# Where traceroute begins; it counts upwards.
TRACEROUTE = range(33434, 33535)
# busybox's ping writes the time there.
ECHO_TIME = 16
QUOTING = {4: (3, 4, 5, 11, 12), 6: (1, 2, 3, 4)}
DISCOVERY = range(133, 138)
# What is at least 1280 bytes as IPv6 arrives with DF (RFC 7915, section 5.1).
LARGEST_WITHOUT_DF = 1260


class Names:
    """What the captures call whom."""

    def __init__(self, *who):
        self.of = {GATEWAY_MAC: "gateway"}
        for name, (mac, ipv4, ipv6) in who:
            self.of |= {mac: name, ipv4: name, ipv6: name, link_local(mac): f"{name}, on the link"}

    def __call__(self, address):
        return self.of.get(address, address)


def link_local(mac):
    """What a kernel makes of a MAC (RFC 4291, appendix A)."""
    a, b, c, d, e, f = bytes.fromhex(mac.replace(":", ""))
    return str(IPv6Address(b"\xfe\x80" + bytes(6) + bytes([a ^ 2, b, c, 0xFF, 0xFE, d, e, f])))


def verified(packet, layer):
    """Whether the transport checksum of a whole packet is what scapy computes."""
    again = packet.__class__(bytes(packet))
    there = again[layer].chksum
    del again[layer].chksum
    return there == packet.__class__(bytes(again))[layer].chksum


def port(number):
    """A port, or that it is one of many."""
    return "chosen" if number >= EPHEMERAL else str(number)


def asked(source, number):
    """The port of a UDP question: traceroute's too are among those that the kernel chooses from, for sources."""
    return "traceroute's" if source >= EPHEMERAL and number in TRACEROUTE else port(number)


def internet(packet, names):
    """(fields, protocol, offset in bytes, whether more pieces follow, payload) of an IPv4 or IPv6 packet."""
    addresses = [f"{names(packet.src)} > {names(packet.dst)}"]
    if packet.version == 4:
        good = verified_header(packet)
        df, mf = bool(packet.flags.DF), bool(packet.flags.MF)
        fields = ["IPv4", *addresses, f"tos {packet.tos:#x}", f"length {packet.len}", f"DF {df}", f"MF {mf}",
                  f"offset {packet.frag * 8}", f"protocol {packet.proto}", f"options {bytes(packet)[20:packet.ihl * 4].hex()}",
                  f"header checksum good {good}"]  # fmt: skip
        return fields, packet.proto, packet.frag * 8, mf, bytes(packet)[packet.ihl * 4 : packet.len]
    fields = ["IPv6", *addresses, f"traffic class {packet.tc:#x}", f"flow label {packet.fl}", f"length {packet.plen}"]
    payload = bytes(packet)[40 : 40 + packet.plen]
    if packet.nh == 44:
        piece = IPv6ExtHdrFragment(payload)
        fields += [f"MF {bool(piece.m)}", f"offset {piece.offset * 8}", f"protocol {piece.nh}"]
        return fields, piece.nh, piece.offset * 8, bool(piece.m), payload[8:]
    return [*fields, f"protocol {packet.nh}"], packet.nh, 0, False, payload


def verified_header(packet):
    """Whether an IPv4 header's checksum is good."""
    again = packet.copy()
    del again.chksum
    return IP(bytes(again)).chksum == packet.chksum


def described(packet, names, quoted=False):
    """(case, fields) of a packet; a quoted one may be cut off, and is without its header's checksum."""
    fields, protocol, offset, more, payload = internet(packet, names)
    if quoted:
        fields = [field for field in fields if not field.startswith("header checksum")]
    pieces = offset or more
    kind = {1: "ICMP", 58: "ICMP", 6: "TCP", 17: "UDP"}.get(protocol, str(protocol))
    case = f"IPv{packet.version} {'echo' if kind == 'ICMP' else kind}"
    if pieces:
        whole = payload if offset else payload[8 + (ECHO_TIME if kind == "ICMP" else 0) :]
        return f"{case} in pieces", [*fields, whole.hex()]
    if kind == "ICMP":
        return icmp(packet, payload, case, fields, names, quoted)
    if kind == "TCP":
        return tcp(packet, payload, case, fields, quoted)
    if kind == "UDP":
        udp = UDP(payload[:8])
        marked = ", marked" if (packet.tos if packet.version == 4 else packet.tc) else ""
        fields += [f"ports {port(udp.sport)} > {asked(udp.sport, udp.dport)}", f"UDP length {udp.len}", payload[8:].hex()]
        if not quoted:
            fields.append(f"checksum good {verified(packet, UDP)}")
        return case + marked, fields
    return case, [*fields, payload.hex()]


def icmp(packet, payload, case, fields, names, quoted):
    """Of an error, the case is what it quotes."""
    kind, code = payload[0], payload[1]
    fields = [*fields, f"type {kind}", f"code {code}"]
    if not quoted:
        fields.append(f"checksum good {verified(packet, ICMP) if packet.version == 4 else verified6(packet)}")
    if kind in QUOTING[packet.version]:
        about = payload[8:]
        about = (IP if about[0] >> 4 == 4 else IPv6)(about)
        case, quote = described(about, names, quoted=True)
        return case, [*fields, f"rest {payload[4:8].hex()}", *(f"quoted {field}" for field in quote)]
    number = int.from_bytes(payload[6:8], "big")
    return case, [*fields, f"number {number}", payload[8 + ECHO_TIME :].hex()]


def verified6(packet):
    """Whether an ICMPv6 checksum is good (RFC 4443, 2.3)."""
    body = bytes(packet)[40 : 40 + packet.plen]
    there = int.from_bytes(body[2:4], "big")
    return in6_chksum(58, packet, body[:2] + b"\0\0" + body[4:]) == there


def tcp(packet, payload, case, fields, quoted):
    """A segment: lengths and acknowledgements depend on the moment, so of data only the bytes are kept, by `collected`."""
    segment = TCP(payload)
    fields = [field for field in fields if not field.startswith("length")]
    flags = str(segment.flags).replace("P", "")
    options = [name if name in ("Timestamp", "SAck") else f"{name}={value}" for name, value in segment.options]
    fields += [f"ports {port(segment.sport)} > {port(segment.dport)}", f"flags {flags}", f"options {options}"]
    if not quoted:
        fields.append(f"checksum good {verified(packet, TCP)}")
    return f"{case} to a closed port" if 5002 in (segment.sport, segment.dport) else case, fields


def collected(packets, names):
    """{case: Counter of field lists} of a capture, its TCP streams put together."""
    seen, streams = {}, {}
    for frame in packets:
        if frame.type == 0x86DD and frame[IPv6].nh == 58 and bytes(frame[IPv6])[40] in DISCOVERY:
            continue
        packet = frame[IP] if frame.type == 0x0800 else frame[IPv6]
        case, fields = described(packet, names)
        if TCP in packet and names(frame.src) == "gateway" and packet.version == 4:
            # As TCP cuts its stream otherwise in each conversation, so is DF otherwise: by the length (RFC 7915, section 5.1).
            df = bool(packet.flags.DF)
            right = df == (packet.len > LARGEST_WITHOUT_DF)
            fields = [f"DF right for its length {right}" if field == f"DF {df}" else field for field in fields]
        line = " | ".join([f"{names(frame.src)} > {names(frame.dst)} {frame.type:#x}", *fields])
        counter = seen.setdefault(case, Counter())
        if TCP in packet and not case.endswith("pieces"):
            # How often an acknowledgement is sent is a matter of the moment.
            counter[line] = 1
            segment = packet[TCP]
            if "S" not in segment.flags and "R" not in segment.flags:
                stream = streams.setdefault((case, names(packet.src)), [])
                stream.append((segment.seq, len(bytes(segment)) - segment.dataofs * 4))
        else:
            counter[line] += 1
    for (case, sender), pieces in streams.items():
        first = pieces[0][0]
        seen[case][f"{sender} says {max((at - first) % (1 << 32) + size for at, size in pieces)} bytes"] += 1
    return seen


def answers(packets, names, own):
    """What a gateway says to a guest, with the guest's own addresses and chosen numbers taken out."""
    seen = {}
    for frame in packets:
        if frame.src != GATEWAY_MAC:
            continue
        data = bytes(frame)
        if frame.type == 0x0800 and UDP in frame:
            case, data = "DHCPv4", bytes(frame[UDP])[8:]
            # The transaction, and the seconds that the client waited.
            data = data[:4] + bytes(4) + data[8:]
        elif frame.type == 0x0806:
            case = "ARP"
        elif frame.type == 0x86DD and frame[IPv6].nh == 58:
            kind = bytes(frame[IPv6])[40]
            case = {134: "router advertisement", 136: "neighbour advertisement"}.get(kind, f"ICMPv6 {kind}")
            data = data[:56] + bytes(2) + data[58:]
        else:
            continue
        for name, secret in own:
            data = data.replace(secret, name)
        # How often a client asks is its own affair.
        seen.setdefault(case, Counter())[data.hex()] = 1
    return seen


def guest(text):
    """((MAC, IPv4, IPv6), [packets of each capture])."""
    mac, ipv4, ipv6, *files = text.split(",")
    return (mac, ipv4, ipv6), [list(rdpcap(file)) for file in files]


def spoiled(packets):
    """One field of one packet is changed, its checksum left to tell."""
    for at, frame in enumerate(packets):
        if frame.type == 0x0800 and ICMP in frame:
            data = bytearray(bytes(frame))
            data[15] ^= 0x20
            return [*packets[:at], Ether(bytes(data)), *packets[at + 1 :]]
    raise SystemExit("nothing to spoil")


def compared(here, there):
    """{case: [packets, differences]} of two lists of {case: Counter}, one per place of capture."""
    result = {}
    for place, (one, other) in enumerate(zip(here, there, strict=True)):
        for case in one.keys() | other.keys():
            local, wire = one.get(case, Counter()), other.get(case, Counter())
            differences = [f"place {place}, only on one host {n} times: {line}" for line, n in (local - wire).items()]
            differences += [f"place {place}, only on two hosts {n} times: {line}" for line, n in (wire - local).items()]
            known = result.setdefault(case, [0, []])
            known[0] += min(local.total(), wire.total())
            known[1] += differences
    return result


def main():
    """Prints the comparison."""
    mode, *texts = [argument for argument in sys.argv[1:] if argument != "--spoil"]
    me = tuple(texts.pop(0).split(",")) if mode == "between" else None
    (local, local_captures), (wire, wire_captures) = (guest(text) for text in texts)
    if "--spoil" in sys.argv:
        local_captures[0] = spoiled(local_captures[0])
    sides = []
    for who, captures in ((local, local_captures), (wire, wire_captures)):
        if mode == "between":
            names = Names(("me", me), ("peer", who))
            sides.append([collected(packets, names) for packets in captures])
        else:
            names = Names(("me", who))
            mac, ipv4, ipv6 = who
            own = [(b"<MAC>!", bytes.fromhex(mac.replace(":", ""))), (b"IPv4", IPv4Address(ipv4).packed)]
            own += [(b"<the IPv6 one>  ", IPv6Address(ipv6).packed), (b"<on the link>   ", IPv6Address(link_local(mac)).packed)]
            heard = [frame for packets in captures for frame in packets if frame.src == GATEWAY_MAC]
            groups = [frame for frame in heard if not is_answer(frame)]
            sides.append([collected(groups, names) | answers([f for f in heard if is_answer(f)], names, own)])
    print(json.dumps(compared(*sides), indent=1))


def is_answer(frame):
    """Whether the gateway says it for itself."""
    if frame.type == 0x0800:
        return UDP in frame and frame[UDP].sport == 67
    return frame.type == 0x0806 or (frame.type == 0x86DD and frame[IPv6].nh == 58 and bytes(frame[IPv6])[40] in DISCOVERY)


if __name__ == "__main__":
    main()
