#!/usr/bin/env python3
"""RFC 7915 as scapy's layers say it: an oracle that shares nothing with ipv4-xlat.

    siit.py vectors DIRECTORY               writes the hand-made cases as data files, one a case
    siit.py make SEED COUNT IN.pcap OUT.pcap  writes random plain packets of both families, and what they become

All lengths and checksums are scapy's. IPv4 addresses are embedded in 2001:db8:64::/96. The identification of the Nth packet of a
capture, counted from 1, is N where a translator has to choose one; in the data files it is 1.
"""

import random
import sys
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path

from scapy.layers.inet import (
    ICMP,
    IP,
    TCP,
    UDP,
    IPOption_LSRR,
    IPOption_NOP,
    IPOption_RR,
)
from scapy.layers.inet6 import (
    ICMPv6DestUnreach,
    ICMPv6EchoReply,
    ICMPv6EchoRequest,
    ICMPv6PacketTooBig,
    ICMPv6ParamProblem,
    ICMPv6TimeExceeded,
    IPv6,
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrFragment,
    IPv6ExtHdrHopByHop,
    IPv6ExtHdrRouting,
    PadN,
)
from scapy.packet import Raw
from scapy.utils import PcapWriter

A, B = "192.0.2.33", "198.51.100.7"
OWN4, OWN6 = "198.51.100.1", "2001:db8:ffff::1"
RAW_IP = 101


def six(address):
    """The IPv6 address that embeds an IPv4 one."""
    return str(IPv6Address((0x20010DB80064 << 80) | int(IPv4Address(address))))


A6, B6 = six(A), six(B)


def filler(length, seed=7):
    """Bytes that are the same in every run."""
    return random.Random(seed).randbytes(length)


# ---- random plain packets -------------------------------------------------------------------------------------------


def transport(rng, family):
    """A function that makes the same random TCP, UDP or echo message for either family."""
    data = rng.randbytes(rng.choice([0, 1, 7, 64, 511, 1200]))
    kind = rng.choice(["tcp", "udp", "echo", "reply"])
    ports = {"sport": rng.randrange(1, 65536), "dport": rng.randrange(1, 65536)}
    if kind == "udp":
        return lambda _: UDP(**ports) / Raw(data)
    if kind == "tcp":
        options = rng.choice([[], [("MSS", 1460)], [("NOP", None), ("NOP", None), ("Timestamp", (1, 2))]])
        fields = {"seq": rng.randrange(2**32), "ack": rng.randrange(2**32), "flags": rng.randrange(256)}
        return lambda _: TCP(**ports, **fields, window=rng.randrange(1), options=options) / Raw(data)
    identity = {"id": rng.randrange(65536), "seq": rng.randrange(65536)}
    four = {"echo": 8, "reply": 0}[kind]
    class6 = {"echo": ICMPv6EchoRequest, "reply": ICMPv6EchoReply}[kind]
    return lambda to: ICMP(type=four, **identity) / Raw(data) if to == 4 else class6(**identity, data=data)


def plain(rng, number):
    """A random packet and what it becomes."""
    source, destination = (str(IPv4Address(rng.randrange(0x0B000000, 0x64000000))) for _ in range(2))
    tos, hops = rng.randrange(256), rng.randrange(2, 256)
    make = transport(rng, 4)

    def four(ttl, **fields):
        return IP(src=source, dst=destination, tos=tos, ttl=ttl, **fields) / make(4)

    def sixth(limit, flow):
        return IPv6(src=six(source), dst=six(destination), tc=tos, hlim=limit, fl=flow) / make(6)

    if rng.random() < 0.5:
        flags = rng.choice(["DF", 0]) if len(four(1)) <= 1260 else "DF"
        return four(hops, id=rng.randrange(65536), flags=flags), sixth(hops - 1, 0)
    flags = "DF" if len(four(1)) > 1260 else 0
    return sixth(hops, rng.randrange(2**20)), four(hops - 1, id=number, flags=flags)


def make(seed, count, before, after):
    """Writes the captures."""
    rng = random.Random(int(seed))
    with PcapWriter(before, linktype=RAW_IP) as given, PcapWriter(after, linktype=RAW_IP) as wanted:
        for number in range(1, int(count) + 1):
            packet, expected = plain(rng, number)
            given.write(bytes(packet))
            wanted.write(bytes(expected))


# ---- hand-made cases ------------------------------------------------------------------------------------------------


def four(payload, **fields):
    """From A to B, DF set, TTL 64."""
    return IP(**{"src": A, "dst": B, "ttl": 64, "flags": "DF", "id": 0x1234, **fields}) / payload


def sixth(payload, **fields):
    """The same in IPv6, one hop on."""
    return IPv6(**{"src": A6, "dst": B6, "hlim": 63, **fields}) / payload


def back(payload, **fields):
    """What `sixth` becomes when it is translated: IPv4, one hop on, DF as the length has it."""
    return IP(**{"src": A, "dst": B, "ttl": 62, "id": 1, **fields}) / payload


def udp(data=b"vector"):
    """A datagram."""
    return UDP(sport=5000, dport=53) / Raw(data)


def tcp(data=b"vector"):
    """A segment with options and ECN."""
    return TCP(sport=5000, dport=80, seq=1, ack=2, flags="PAE", options=[("MSS", 1460), ("NOP", None), ("WScale", 7)]) / Raw(data)


def fragment(packet, start, end):
    """Bytes `start` to `end` of a packet's IPv4 payload."""
    return Raw(bytes(packet.payload)[start:end])


def quoted(protocol):
    """A packet from B to A, in IPv4, as it was sent, and in IPv6."""
    return IP(src=B, dst=A, ttl=9, id=0x77, flags="DF") / protocol, IPv6(src=B6, dst=A6, hlim=9) / protocol


def cases():
    """(file name, section, why, settings, packet, outcome): packets, or ("drop", reason), or ("answer", packet)."""
    yield from plain_cases()
    yield from fragment_cases()
    yield from refusals()
    yield from error_cases4()
    yield from error_cases6()


def plain_cases():
    """Headers and transports."""
    section4, section6 = "7915 4.1", "7915 5.1"
    yield "4-udp", section4, "the smallest useful packet", {}, four(udp()), [sixth(udp())]
    yield "4-tcp-ecn", section4, "TOS is eight bits: DSCP and ECN", {}, four(tcp(), tos=0xA3), [sixth(tcp(), tc=0xA3)]
    yield "4-echo", "7915 4.2", "ICMPv6 sums a pseudo-header", {}, four(ICMP(type=8, id=7, seq=1) / Raw(b"ping")), [
        sixth(ICMPv6EchoRequest(id=7, seq=1, data=b"ping"))
    ]
    yield "4-options", section4, "options are ignored", {}, four(
        udp(), options=[IPOption_NOP(), IPOption_RR(routers=["0.0.0.0"])]
    ), [sixth(udp())]
    yield "4-dccp-unknown", section4, "other protocols are copied", {}, four(Raw(filler(24)), proto=132), [
        sixth(Raw(filler(24)), nh=132)
    ]
    zero = four(udp())
    zero[UDP].chksum = 0
    yield "4-udp-zero-compute", "7915 4.5", "a missing checksum is computed", {"zero_udp": "compute"}, zero, [sixth(udp())]
    forwarded = sixth(udp())
    forwarded[UDP].chksum = 0
    yield "4-udp-zero-forward", "6936", "or travels as none", {"zero_udp": "forward"}, zero, [forwarded]
    yield "4-udp-zero-drop", "7915 4.5", "or is dropped, by default", {}, zero, ("drop", "ZeroUdpChecksum")
    yield "6-udp", section6, "up to 1260 bytes DF is 0", {}, sixth(udp(), fl=0x12345), [back(udp(), flags=0)]
    yield "6-udp-1260", section6, "up to 1260 bytes DF is 0: the last", {}, sixth(udp(filler(1232))), [
        back(udp(filler(1232)), flags=0)
    ]
    yield "6-udp-1261", section6, "from 1261 bytes DF is 1: the first", {}, sixth(udp(filler(1233))), [
        back(udp(filler(1233)), flags="DF")
    ]
    yield "6-tcp-ecn", section6, "the traffic class is eight bits", {}, sixth(tcp(), tc=0xA3), [back(tcp(), tos=0xA3, flags=0)]
    yield "6-echo-reply", "7915 5.2", "ICMPv4 sums no pseudo-header", {}, sixth(ICMPv6EchoReply(id=7, seq=1, data=b"pong")), [
        back(ICMP(type=0, id=7, seq=1) / Raw(b"pong"), flags=0)
    ]
    chain = IPv6ExtHdrHopByHop(options=[PadN(optdata=b"\0" * 4)]) / IPv6ExtHdrDestOpt(options=[PadN(optdata=b"\0" * 12)])
    yield "6-extension-headers", section6, "extension headers are skipped", {}, sixth(chain / udp()), [back(udp(), flags=0)]


def fragment_cases():
    """Fragments received and made."""
    whole4, whole6 = four(udp(filler(2000))), sixth(udp(filler(2000)))
    for name, start, end in (("first", 0, 1024), ("later", 1024, 1536), ("last", 1536, 2008)):
        more = end < 2008
        given = four(fragment(whole4, start, end), proto=17, flags="MF" if more else 0, frag=start // 8)
        wanted = sixth(IPv6ExtHdrFragment(nh=17, offset=start // 8, m=int(more), id=0x1234) / fragment(whole6, start, end))
        yield f"4-fragment-{name}", "7915 4.1", "only the first fragment has a checksum to update", {}, given, [wanted]
        wanted = back(fragment(whole4, start, end), proto=17, flags="MF" if more else 0, frag=start // 8, id=0x5678)
        given = sixth(
            IPv6ExtHdrFragment(nh=17, offset=start // 8, m=int(more), id=0xABCD5678) / fragment(whole6, start, end)
        )
        yield f"6-fragment-{name}", "7915 5.1.1", "the low half of the identification, DF 0", {}, given, [wanted]
    pieces = [
        sixth(IPv6ExtHdrFragment(nh=17, offset=start // 8, m=int(end < 2008), id=0x1234) / fragment(whole6, start, end))
        for start, end in ((0, 1232), (1232, 2008))
    ]
    yield "4-cut", "7915 4", "DF 0 and larger than lowest-ipv6-mtu", {}, four(udp(filler(2000)), flags=0), pieces
    atomic = sixth(IPv6ExtHdrFragment(nh=17, id=0x10002) / udp(filler(1300)))
    yield "6-atomic", "6946", "an atomic fragment may be fragmented again", {}, atomic, [
        back(udp(filler(1300)), id=2, flags=0)
    ]


def answer4(about, **fields):
    """Our ICMPv4 error."""
    return IP(src=OWN4, dst=A, ttl=64, id=1, flags=0) / ICMP(**fields) / Raw(bytes(about)[:548])


def answer6(about, message):
    """Our ICMPv6 error."""
    return IPv6(src=OWN6, dst=A6, hlim=64) / message / Raw(bytes(about)[:1232])


def refusals():
    """What is not translated."""
    spent = four(udp(), ttl=1)
    yield "4-ttl", "7915 4.1", "no hop is left", {}, spent, ("answer", answer4(spent, type=11, code=0))
    routed = four(udp(), options=[IPOption_LSRR(routers=["10.0.0.1"]), IPOption_NOP()])
    yield "4-source-route", "7915 4.1", "an unexpired source route", {}, routed, ("answer", answer4(routed, type=3, code=5))
    large = four(udp(filler(1453)))
    yield "4-too-big", "7915 4", "DF 1 and larger than the next hop takes", {}, large, (
        "answer",
        answer4(large, type=3, code=4, nexthopmtu=1480),
    )
    broken = IP(bytes(four(udp())))
    broken.chksum ^= 1
    yield "4-header-checksum", "1812 5.2.2", "a wrong header checksum", {}, broken, ("drop", "HeaderChecksum")
    yield "4-loopback", "1812 5.3.7", "a source that may not be on a wire", {}, four(udp(), src="127.0.0.1"), ("drop", "IllegalSource")
    yield "4-fragment-header", "7915 4.1", "the payload would become a Fragment Header", {}, four(
        Raw(filler(16)), proto=44
    ), ("drop", "ForbiddenProtocol")
    yield "4-fragmented-echo", "7915 1.2", "ICMPv6 sums a length no fragment knows", {}, four(
        ICMP(type=8) / Raw(filler(64)), flags="MF"
    ), ("drop", "FragmentedIcmp")
    spent = sixth(udp(), hlim=1)
    yield "6-hop-limit", "7915 5.1", "no hop is left", {}, spent, ("answer", answer6(spent, ICMPv6TimeExceeded(code=0)))
    routed = sixth(IPv6ExtHdrRouting(type=253, segleft=1, addresses=[]) / udp())
    yield "6-segments-left", "7915 5.1", "the pointer is to Segments Left", {}, routed, (
        "answer",
        answer6(routed, ICMPv6ParamProblem(code=0, ptr=43)),
    )
    large = sixth(udp(filler(1473)))
    yield "6-too-big", "7915 5.1", "larger than the next hop takes", {}, large, ("answer", answer6(large, ICMPv6PacketTooBig(mtu=1520)))
    hidden = sixth(IPv6ExtHdrFragment(nh=60, m=1) / Raw(filler(16)))
    yield "6-behind-fragment", "7915 5.1.1", "the rest of the chain would be payload", {}, hidden, ("drop", "ExtensionBehindFragment")
    mute = sixth(udp())
    mute[UDP].chksum = 0
    yield "6-udp-zero", "8200 8.1", "IPv6 has no datagrams without checksum", {}, mute, ("drop", "ZeroUdpChecksum")


def error_cases4():
    """ICMPv4 errors."""
    inner4, inner6 = quoted(udp(filler(40)))
    for code, message in (
        (0, ICMPv6DestUnreach(code=0)),
        (3, ICMPv6DestUnreach(code=4)),
        (13, ICMPv6DestUnreach(code=1)),
        (2, ICMPv6ParamProblem(code=1, ptr=6)),
    ):
        error = four(ICMP(type=3, code=code) / Raw(bytes(inner4)))
        yield f"4-error-3-{code}", "7915 4.2", "destination unreachable", {}, error, [sixth(message / Raw(bytes(inner6)))]
    error = four(ICMP(type=3, code=4, nexthopmtu=1400) / Raw(bytes(inner4)))
    yield "4-error-3-4", "7915 4.2", "the MTU grows by 20", {}, error, [sixth(ICMPv6PacketTooBig(mtu=1420) / Raw(bytes(inner6)))]
    error = four(ICMP(type=12, code=0, ptr=8) / Raw(bytes(inner4)))
    yield "4-error-12", "7915 4.2", "TTL is Hop Limit", {}, error, [sixth(ICMPv6ParamProblem(code=0, ptr=7) / Raw(bytes(inner6)))]
    inner4, inner6 = quoted(tcp(filler(40)))
    error = four(ICMP(type=11, code=0) / Raw(bytes(inner4)[:28]))
    yield "4-error-cut", "7915 4.3", "a quote of eight bytes has no checksum to update", {}, error, [
        sixth(ICMPv6TimeExceeded(code=0) / Raw(bytes(inner6)[:48]))
    ]
    ping4 = IP(src=B, dst=A, ttl=9, id=0x77, flags="DF") / ICMP(type=8, id=1, seq=2) / Raw(b"abcd")
    ping6 = IPv6(src=B6, dst=A6, hlim=9) / ICMPv6EchoRequest(id=1, seq=2, data=b"abcd")
    error = four(ICMP(type=11, code=0) / Raw(bytes(ping4)))
    yield "4-error-echo", "7915 4.3", "quoted echo is translated too", {}, error, [sixth(ICMPv6TimeExceeded(code=0) / Raw(bytes(ping6)))]
    extension = bytes.fromhex("20000000 0008 0101 00010140".replace(" ", ""))
    padded = bytes(quoted(udp(filler(40)))[0]).ljust(128, b"\0")
    error = four(ICMP(type=11, code=0, length=32) / Raw(padded + extension))
    wanted = bytes(quoted(udp(filler(40)))[1]).ljust(152, b"\0") + extension
    yield "4-error-extension", "4884 5", "the length attribute counts 64-bit words in ICMPv6", {}, error, [
        sixth(ICMPv6TimeExceeded(code=0, length=19) / Raw(wanted))
    ]
    nested = IP(src=B, dst=A) / ICMP(type=3, code=1) / Raw(bytes(inner4))
    yield "4-error-about-error", "7915 4.3", "an error about an error", {}, four(ICMP(type=11) / Raw(bytes(nested))), ("drop", "QuotedError")
    bad = four(ICMP(type=11, code=0, chksum=0x1234) / Raw(bytes(inner4)))
    yield "4-error-checksum", "7915 4.2", "a wrong checksum is not made right", {}, bad, ("drop", "IcmpChecksum")


def error_cases6():
    """ICMPv6 errors."""
    # Towards IPv4 the quoted header gets the identification, and DF as its length has it.
    inner6 = IPv6(src=B6, dst=A6, hlim=9) / udp(filler(40))
    inner4 = IP(src=B, dst=A, ttl=9, id=1, flags=0) / udp(filler(40))
    for code, wanted in ((0, 1), (1, 10), (4, 3)):
        error = sixth(ICMPv6DestUnreach(code=code) / Raw(bytes(inner6)))
        yield f"6-error-1-{code}", "7915 5.2", "destination unreachable", {}, error, [
            back(ICMP(type=3, code=wanted) / Raw(bytes(inner4)), flags=0)
        ]
    error = sixth(ICMPv6PacketTooBig(mtu=1400) / Raw(bytes(inner6)))
    yield "6-error-2", "7915 5.2", "the MTU shrinks by 20", {}, error, [
        back(ICMP(type=3, code=4, nexthopmtu=1380) / Raw(bytes(inner4)), flags=0)
    ]
    piece6 = IPv6(src=B6, dst=A6, hlim=9) / IPv6ExtHdrFragment(nh=17, m=1, id=0x99) / Raw(bytes(inner6.payload))
    piece4 = IP(src=B, dst=A, ttl=9, id=0x99, flags="MF", proto=17) / Raw(bytes(inner4.payload))
    error = sixth(ICMPv6PacketTooBig(mtu=1400) / Raw(bytes(piece6)))
    yield "6-error-2-fragment", "7915 5.2", "by 28 for a quoted fragment", {}, error, [
        back(ICMP(type=3, code=4, nexthopmtu=1372) / Raw(bytes(piece4)), flags=0)
    ]
    error = sixth(ICMPv6ParamProblem(code=0, ptr=7) / Raw(bytes(inner6)))
    yield "6-error-4-0", "7915 5.2", "Hop Limit is TTL", {}, error, [back(ICMP(type=12, ptr=8) / Raw(bytes(inner4)), flags=0)]
    error = sixth(ICMPv6ParamProblem(code=1, ptr=6) / Raw(bytes(inner6)))
    yield "6-error-4-1", "7915 5.2", "an unknown next header is an unreachable protocol", {}, error, [
        back(ICMP(type=3, code=2) / Raw(bytes(inner4)), flags=0)
    ]
    large6 = IPv6(src=B6, dst=A6, hlim=9) / udp(filler(1000))
    large4 = IP(src=B, dst=A, ttl=9, id=1, flags=0) / udp(filler(1000))
    error = sixth(ICMPv6TimeExceeded(code=0) / Raw(bytes(large6)))
    yield "6-error-cut", "1812 4.3.2.3", "an ICMPv4 error has 576 bytes at most", {}, error, [
        back(ICMP(type=11) / Raw(bytes(large4)[:548]), flags=0)
    ]


def hexdump(packet, name):
    """`packet` as a TOML string: the IP header, then the rest."""
    data = bytes(packet)
    header = (data[0] & 15) * 4 if data[0] >> 4 == 4 else 40
    lines = [f"# IPv{data[0] >> 4}, then {len(data) - header} bytes"]
    for part in (data[:header], data[header:]):
        lines += [part[i : i + 16].hex(" ") for i in range(0, len(part), 16)]
    return f'{name}"""\n' + "\n".join(lines) + '\n"""'


def vectors(directory):
    """Writes the data files."""
    for name, section, why, settings, packet, outcome in cases():
        text = f'rfc = "{section}"\nwhy = "{why}"\n'
        text += "".join(f'{key} = "{value}"\n' for key, value in settings.items())
        text += hexdump(packet, "in = ") + "\n"
        if isinstance(outcome, list):
            text += "out = [" + ",".join(hexdump(piece, "") for piece in outcome) + "]\n"
        elif outcome[0] == "drop":
            text += f'drop = "{outcome[1]}"\n'
        else:
            text += hexdump(outcome[1], "answer = ") + "\n"
        Path(directory, f"{name}.toml").write_text(text)


if __name__ == "__main__":
    {"vectors": vectors, "make": make}[sys.argv[1]](*sys.argv[2:])
