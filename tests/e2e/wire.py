"""What scenarios 9 and 10 of draft-herbert-nvo3-ila-02 look like on the wire, by scapy and by nothing of ours.

    wire.py expect  PLAN.json SENT.pcap WIRE.pcapng           every packet sent is on the wire, byte by byte as expected
    wire.py restore PLAN.json WIRE.pcapng RESTORED.pcap       writes the wire's packets with the endpoints' addresses put back

SENT.pcap is the sending guest's own capture (Ethernet). WIRE.pcapng is taken where the sender's host enters the fabric. Checksums in
SENT.pcap may be partial, as the guest leaves them to its card, so they are made anew from the addresses that the endpoints see.
"""

import json
import struct
import sys
from ipaddress import IPv4Address, IPv6Address, IPv6Network

from scapy.config import conf

conf.ipv6_enabled = True
from scapy.layers.inet import ICMP, IP, TCP, UDP  # noqa: E402
from scapy.layers.inet6 import IPv6, in6_chksum  # noqa: E402
from scapy.layers.l2 import Ether  # noqa: E402
from scapy.utils import hexdump, rdpcap, wrpcap  # noqa: E402

C_BIT = 1 << 60
CHECKSUM_AT = {6: 16, 17: 6, 58: 2}


class Plan:
    """The site: which address is whose, and where."""

    def __init__(self, path):
        plan = json.load(open(path))
        self.neutral = plan["checksum"] == "neutral"
        self.sir = int(IPv6Network(plan["sir"]).network_address)
        self.vms = plan["vms"]

    def by_address(self, address):
        for vm in self.vms:
            if str(address) in (vm["ipv4"], vm["ipv6"]):
                return vm
        raise KeyError(f"nobody has {address}")

    def sir_address(self, address, vni):
        """SIR:(VNI:VA), type 2."""
        return IPv6Address(self.sir | identifier(2, vni, int(IPv4Address(address))))

    def seen_by_endpoint(self, address, vni):
        """The IPv6 address that checksums are for."""
        if ":" in str(address):
            return IPv6Address(str(address))
        return self.sir_address(str(address), vni)

    def on_the_wire(self, address):
        """L:(VNI:VA) or L:(VNI:VAX), with the adjustment of 4.4.1 where the host adjusts."""
        vm = self.by_address(address)
        seen = self.seen_by_endpoint(address, vm["vni"])
        kind = 3 if ":" in str(address) else 2
        locator = int(IPv6Network(vm["locator"]).network_address)
        low = int(seen) & 0xFFFFFFFF
        wire = locator | identifier(kind, vm["vni"], low)
        if not self.neutral or low & 0xFFFF == 0xFFFF:
            return IPv6Address(wire)
        wire |= C_BIT
        # All words but the last: what was there is given back, what is there now is taken away.
        adjusted = complement_sum([low & 0xFFFF] + words(int(seen))[:7] + [~word & 0xFFFF for word in words(wire)[:7]])
        return IPv6Address(wire & ~0xFFFF | adjusted)


def identifier(kind, vni, low):
    return kind << 61 | vni << 32 | low


def words(address):
    return list(struct.unpack("!8H", address.to_bytes(16, "big")))


def complement_sum(numbers):
    total = sum(numbers)
    while total > 0xFFFF:
        total = (total & 0xFFFF) + (total >> 16)
    return total


def with_checksum(header, protocol, source, destination, body):
    """`body` with the checksum of its protocol for these addresses."""
    at = CHECKSUM_AT[protocol]
    body = body[:at] + b"\0\0" + body[at + 2 :]
    pseudo = IPv6(src=str(source), dst=str(destination), nh=protocol)
    checksum = in6_chksum(protocol, pseudo, body)
    if protocol == 17 and checksum == 0:
        checksum = 0xFFFF
    return body[:at] + struct.pack("!H", checksum) + body[at + 2 :]


def expected(plan, frame):
    """The wire's bytes for a frame that a guest has sent to another of its network, and which scenario it is."""
    if IP in frame:
        return expected_from_ipv4(plan, frame[IP]), 10
    packet = frame[IPv6]
    body = bytes(packet.payload)
    body = with_checksum(packet, packet.nh, packet.src, packet.dst, body)
    wire = IPv6(
        tc=packet.tc, fl=packet.fl, nh=packet.nh, hlim=packet.hlim, src=packet.src, dst=str(plan.on_the_wire(packet.dst))
    )
    return bytes(wire / body), 9


def expected_from_ipv4(plan, packet):
    """RFC 7915, section 4, for a packet with DF set that is no fragment."""
    assert packet.flags == "DF" and packet.frag == 0, "the guest's kernel sets DF"
    vni = plan.by_address(packet.src)["vni"]
    source, destination = plan.sir_address(packet.src, vni), plan.sir_address(packet.dst, vni)
    body = bytes(packet.payload)[: packet.len - 4 * packet.ihl]
    protocol = packet.proto
    if ICMP in packet:
        assert packet[ICMP].type in (8, 0), "only echo is expected here"
        protocol, body = 58, bytes([{8: 128, 0: 129}[packet[ICMP].type]]) + body[1:]
    body = with_checksum(packet, protocol, source, destination, body)
    wire = IPv6(
        tc=packet.tos, fl=0, nh=protocol, hlim=packet.ttl, src=str(source), dst=str(plan.on_the_wire(packet.dst))
    )
    return bytes(wire / body)


def ipv6_bytes(frame):
    """The IPv6 packet of a frame without the link's padding."""
    raw = bytes(frame[IPv6])
    return raw[: 40 + frame[IPv6].plen]


def is_from_guest(frame, guest):
    """Whether `guest` sent this to a tenant: no neighbour discovery, no DHCP."""
    layer = frame[IP] if IP in frame else frame[IPv6] if IPv6 in frame else None
    if layer is None or layer.src not in (guest["ipv4"], guest["ipv6"]):
        return False
    return layer.dst not in ("255.255.255.255",) and not layer.dst.startswith(("ff", "fe80"))


def expect(plan, sent, wire):
    captured = [ipv6_bytes(frame) for frame in rdpcap(wire) if IPv6 in frame]
    counts, wrong = {}, 0
    for frame in rdpcap(sent):
        if not is_from_guest(frame, plan.vms[0]):
            continue
        packet, scenario = expected(plan, frame)
        name = f"scenario {scenario} {({6: 'tcp', 17: 'udp', 58: 'icmp'})[packet[6]]}"
        counts[name] = counts.get(name, 0) + 1
        if packet in captured:
            captured.remove(packet)
            continue
        wrong += 1
        print(f"{name}: expected, and not on the wire:")
        hexdump(packet)
        # The nearest is the one with the same payload's end, if there is one.
        for other in (other for other in captured if other[-4:] == packet[-4:] and other[6] == packet[6]):
            print("the nearest that is there:")
            hexdump(other)
            break
    print(json.dumps({"wrong": wrong, "compared": counts}))
    return 1 if wrong else 0


def restore(plan, wire, restored):
    back = {plan.on_the_wire(vm[family]): plan.seen_by_endpoint(vm[family], vm["vni"]) for vm in plan.vms for family in ("ipv4", "ipv6")}
    packets = []
    for frame in rdpcap(wire):
        if IPv6 not in frame or IPv6Address(frame[IPv6].dst) not in back:
            continue
        raw = ipv6_bytes(frame)
        packets.append(IPv6(raw[:24] + back[IPv6Address(frame[IPv6].dst)].packed + raw[40:]))
    wrpcap(restored, [Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02", type=0x86DD) / bytes(packet) for packet in packets])
    print(json.dumps({"restored": len(packets)}))
    return 0


if __name__ == "__main__":
    command, plan, *files = sys.argv[1:]
    sys.exit({"expect": expect, "restore": restore}[command](Plan(plan), *files))
