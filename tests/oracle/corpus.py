"""The frames that tenants send in the proofs, made by scapy: name -> Ethernet frame.

`clean` frames have transport checksums that an independent checker must find good on the wire (in neutral mode); `odd` ones have
none, wrong ones, or ones that no stateless translator can get right.
"""

import random
from ipaddress import ip_address

from scapy.layers.inet import ICMP, IP, TCP, UDP, IPOption_EOL, IPOption_NOP, IPOption_RR, fragment
from scapy.layers.inet6 import (
    ICMPv6DestUnreach,
    ICMPv6EchoReply,
    ICMPv6EchoRequest,
    ICMPv6TimeExceeded,
    IPv6,
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrFragment,
    fragment6,
)
from scapy.layers.l2 import Ether
from scapy.packet import Raw

from ila import complement, ones_sum, words
from plan import GATEWAY_MAC

LINK_MTU = 1480


def filler(length):
    """Bytes that are the same in every run and never look like zero."""
    return random.Random(length).randbytes(length)


def frames(plan, sender, source, destination, kind):
    """The `kind` ("clean" or "odd") frames of the attachment named `sender`, between two addresses of one family."""
    source, destination = ip_address(source), ip_address(destination)
    if source.version == 6:
        packets = (clean6 if kind == "clean" else odd6)(str(source), str(destination))
    else:
        network = plan.attachments[sender].network
        seen = [plan.domain.sir_address(network, end).packed for end in (source, destination)]
        packets = (clean4 if kind == "clean" else odd4)(str(source), str(destination), b"".join(seen))
    ether = Ether(src=plan.attachments[sender].mac, dst=GATEWAY_MAC, type=0x86DD if source.version == 6 else 0x0800)
    return {name: bytes(ether / packet) for name, packet in packets.items()}


def numbered(name, packets):
    """`packets` under the names `name 1`, `name 2`, ..."""
    return {f"{name} {number}": packet for number, packet in enumerate(packets, 1)}


def clean4(src, dst, seen):
    """IPv4. `seen` are the two IPv6 addresses that the checksums are for on the wire."""

    def ip(**fields):
        return IP(src=src, dst=dst, id=0x1234, **fields)

    def quoted(payload):
        return IP(src=dst, dst=src, id=0x5678, ttl=61, tos=0x28) / payload

    options = [("MSS", 1440), ("SAckOK", b""), ("Timestamp", (1, 0)), ("NOP", None), ("WScale", 7)]
    short = ip() / UDP(sport=4011, dport=7) / b"x"
    big = ip() / UDP(sport=4012, dport=7) / filler(4000)
    return {
        "TCP SYN": ip(flags="DF") / TCP(sport=4001, dport=80, flags="S", seq=1, options=options),
        "TCP data": ip(flags="DF", tos=0xB9) / TCP(sport=4001, dport=80, flags="PA", seq=2, ack=9) / filler(1000),
        "TCP odd length": ip(flags="DF") / TCP(sport=4001, dport=80, flags="PA", seq=1002, ack=9) / filler(333),
        "TCP full link": ip(flags="DF") / TCP(sport=4001, dport=80, flags="A", seq=1335, ack=9) / filler(LINK_MTU - 40),
        "TCP FIN, hop limit 255": ip(ttl=255) / TCP(sport=4001, dport=80, flags="FA", seq=2775, ack=9),
        "TCP RST, hop limit 3": ip(ttl=3) / TCP(sport=4001, dport=80, flags="R", seq=2776),
        "UDP": ip() / UDP(sport=4002, dport=7) / filler(64),
        "UDP empty": ip() / UDP(sport=4002, dport=7),
        "UDP in a padded frame": padded(short),
        "UDP with IPv4 options": ip(options=[IPOption_NOP(), IPOption_RR(length=7, routers=["0.0.0.0"]), IPOption_EOL()])
        / UDP(sport=4003, dport=7)
        / filler(20),
        "UDP whose checksum becomes zero": becomes_zero(src, dst, seen),
        "UDP 1260 bytes in all": ip(flags="DF") / UDP(sport=4004, dport=7) / filler(1232),
        "UDP 1261 bytes in all": ip() / UDP(sport=4004, dport=7) / filler(1233),
        "echo request": ip() / ICMP(type=8, id=77, seq=1) / filler(56),
        "echo reply": ip() / ICMP(type=0, id=77, seq=1) / filler(57),
        "echo request, empty": ip() / ICMP(type=8, id=77, seq=2),
        "SCTP, opaque": ip(proto=132) / Raw(filler(40)),
        # Errors about what the receiver sent.
        "port unreachable": ip() / ICMP(type=3, code=3) / quoted(UDP(sport=4002, dport=7) / filler(64)),
        "host unreachable, about TCP": ip() / ICMP(type=3, code=1) / quoted(TCP(sport=4001, dport=80) / filler(100)),
        "fragmentation needed": ip() / ICMP(type=3, code=4, nexthopmtu=1300) / quoted(UDP(dport=7) / filler(400)),
        "time exceeded, about echo": ip() / ICMP(type=11, code=0) / quoted(ICMP(type=8, id=77) / filler(56)),
        **numbered("UDP fragment that fits the fabric", fragment(IP(bytes(big)), fragsize=1400)),
        **numbered("UDP fragment that does not", fragment(renumbered(big, 0x4321), fragsize=LINK_MTU - 24)),
        **numbered("TCP fragment", fragment(renumbered(ip() / TCP(sport=4013, dport=80) / filler(900), 7), fragsize=400)),
    }


def clean6(src, dst):
    """IPv6."""
    base = IPv6(src=src, dst=dst)
    big = base / IPv6ExtHdrFragment(id=0x89ABCDEF) / UDP(sport=4022, dport=7) / filler(4000)
    return {
        "TCP SYN": base / TCP(sport=4021, dport=80, flags="S", seq=1, options=[("MSS", 1420)]),
        "TCP data": IPv6(src=src, dst=dst, tc=0xB9, fl=0xABCDE)
        / TCP(sport=4021, dport=80, flags="PA", seq=2, ack=9)
        / filler(1000),
        "TCP full link": base / TCP(sport=4021, dport=80, flags="A", seq=1002) / filler(LINK_MTU - 60),
        "TCP odd length, hop limit 255": IPv6(src=src, dst=dst, hlim=255) / TCP(sport=4021, dport=80) / filler(333),
        "UDP, hop limit 3": IPv6(src=src, dst=dst, hlim=3) / UDP(sport=4022, dport=7) / filler(64),
        "UDP empty": base / UDP(sport=4022, dport=7),
        "UDP behind destination options": base / IPv6ExtHdrDestOpt() / UDP(sport=4023, dport=7) / filler(20),
        "echo request": base / ICMPv6EchoRequest(id=77, seq=1, data=filler(56)),
        "echo reply": base / ICMPv6EchoReply(id=77, seq=1, data=filler(57)),
        "SCTP, opaque": IPv6(src=src, dst=dst, nh=132) / Raw(filler(40)),
        "port unreachable": base / ICMPv6DestUnreach(code=4) / IPv6(src=dst, dst=src) / UDP(dport=7) / filler(64),
        "time exceeded, about TCP": base / ICMPv6TimeExceeded() / IPv6(src=dst, dst=src) / TCP(dport=80) / filler(99),
        **numbered("UDP fragment", fragment6(big, LINK_MTU)),
    }


def odd4(src, dst, _seen):
    """IPv4 frames that a translator must not repair, and that a stateless one cannot get right."""

    def ip(**fields):
        return IP(src=src, dst=dst, id=0x2345, **fields)

    silent = ip() / UDP(sport=4031, dport=7, chksum=0) / filler(2000)
    echo = ip() / ICMP(type=8, id=78, seq=1) / filler(3000)
    reply = ip() / ICMP(type=0, id=78, seq=1) / filler(3000)
    return {
        "UDP without checksum": ip() / UDP(sport=4030, dport=7, chksum=0) / filler(64),
        "UDP with a wrong checksum": ip() / UDP(sport=4032, dport=7, chksum=0xBAD) / filler(64),
        "TCP with a wrong checksum": ip() / TCP(sport=4033, dport=80, chksum=0xBAD) / filler(64),
        "echo request with a wrong checksum": ip() / ICMP(type=8, id=78, seq=9, chksum=0xBAD) / filler(64),
        **numbered("UDP fragment without checksum", fragment(silent, fragsize=1400)),
        **numbered("echo request fragment", fragment(renumbered(echo, 8), fragsize=1400)),
        **numbered("echo reply fragment", fragment(renumbered(reply, 9), fragsize=1400)),
    }


def odd6(src, dst):
    """IPv6 frames whose checksum an NVE has no business with."""
    base = IPv6(src=src, dst=dst)
    return {
        "UDP with a wrong checksum": base / UDP(sport=4042, dport=7, chksum=0xBAD) / filler(64),
        "TCP with a wrong checksum": base / TCP(sport=4043, dport=80, chksum=0xBAD) / filler(64),
    }


def padded(packet):
    """`packet` and the bytes that bring its frame to Ethernet's 60."""
    raw = bytes(packet)
    return Raw(raw + b"\xee" * (46 - len(raw)))


def renumbered(packet, identification):
    """`packet` with another IPv4 identification."""
    copy = packet.copy()
    copy.id = identification
    return copy


def becomes_zero(src, dst, seen):
    """A UDP datagram whose checksum over the IPv6 addresses `seen` is 0, which IPv6 must write as 0xffff."""
    header = UDP(sport=4005, dport=7, len=10, chksum=0)
    others = words(seen) + words(bytes(header)) + [10, 17]
    return IP(src=src, dst=dst, id=0x1234) / UDP(sport=4005, dport=7) / complement(ones_sum(others)).to_bytes(2, "big")
