#!/usr/bin/env python3
"""The own test of `scenarios.py`: addresses worked out by hand, checksums, and a run of all rows in which one thing is spoilt at a time."""

import json
import unittest
from dataclasses import replace

from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import ICMPv6DestUnreach, ICMPv6EchoReply, ICMPv6EchoRequest, IPv6
from scapy.packet import Raw

from packet import Packet
from reference import Reference
from scenarios import CLOSED, PORT, Judge, rows

PLAN = {
    "sir": "2001:db8:51::/64",
    "checksum": "neutral",
    "scenarios": list(range(1, 14)),
    "gateway": "gw",
    "hosts": {f"L{n}": {"link": f"hv{n}", "locator": f"2001:db8:0:{n}::/64"} for n in range(1, 5)},
    "networks": {
        "VNI1": {"vni": 0x3E9, "vnet": "2001:db8:b1:e::/96"},
        "VNI2": {"vni": 0x3EA, "vnet": "2001:db8:b1:e:0:1::/96"},
    },
    "tenants": {
        f"VA{n}": {
            "network": "VNI1" if n < 3 else "VNI2",
            "host": f"L{n}",
            "mac": f"52:54:00:00:00:0{n}",
            "ipv4": f"10.1.0.{(n - 1) % 2 + 1}",
            "ipv6": f"2001:db8:b1:e:0:{(n - 1) // 2}:0:{(n - 1) % 2 + 1}",
        }
        for n in range(1, 5)
    },
    "tasks": {f"T{n}": {"host": "L1" if n % 2 else "L3", "address": f"2001:db8:51:0:2000::1{n}"} for n in range(1, 5)},
    "internet": "2001:db8:e::2",
    "aliases": {
        "ADDR4": {"network": "VNI1", "address": "10.1.200.44"},
        "SADDR1": {"network": "VNI2", "address": "10.1.200.1"},
        "SADDR4": {"network": "VNI1", "address": "10.1.200.4"},
        "SADDR1'": {"network": "VNI2", "address": "10.1.200.101"},
    },
}  # fmt: skip


def reference(**changes):
    """The reference network, with changes."""
    return Reference(json.loads(json.dumps(PLAN | changes)))


class Addresses(unittest.TestCase):
    """Sections 3 and 4.4 of the draft."""

    def test_notation_worked_out_by_hand(self):
        by_hand = {
            "SIR:T2": "2001:db8:51:0:2000::12",
            "SIR:(VNI1:VA2)": "2001:db8:51:0:4000:3e9:a01:2",
            "SIR:(VNI2:VA4)": "2001:db8:51:0:4000:3ea:a01:2",
            # 12 + 51 - 3 - 1000 in one's complement: locator for SIR prefix, and C.
            "L3:T2": "2001:db8:0:3:3000::f05f",
            # 2 + 51 - 2 - 1000.
            "L2:(VNI1:VA2)": "2001:db8:0:2:5000:3e9:a01:f050",
            # 2 + b1 + e + 1 - 4 - 7000 - 3ea: the words of VNET2 for L4, type 3 with C, and VNI2.
            "L4:(VNI2:VAX4)": "2001:db8:0:4:7000:3ea:0:8cd3",
        }
        for notation, address in by_hand.items():
            self.assertEqual(str(reference().address(notation)), address, notation)
        unmodified = reference(checksum="unmodified")
        self.assertEqual(str(unmodified.address("L3:T2")), "2001:db8:0:3:2000::12")
        self.assertEqual(str(unmodified.address("L4:(VNI2:VAX4)")), "2001:db8:0:4:6000:3ea:0:2")

    def test_addresses_are_read_back(self):
        network = reference()
        for row in rows(network.scenarios).values():
            for place, home in ((row.sent, row.sender), (row.wire, row.sender), (row.received, row.receiver)):
                said = [network.said(address, home) for address in network.pair(place)]
                self.assertEqual(tuple(said), place, row.name)


def conversation(network, row):
    """What the sender of `row` sends: an echo, a segment with data, a datagram, a datagram to a closed port or the error about it; each
    with a sum of scapy's."""
    source, destination = map(str, network.pair(row.sent))
    echo = ICMP(type=0 if row.is_reply else 8, id=7, seq=1)
    if ":" not in source:
        header = IP(src=source, dst=destination, ttl=64, tos=4, flags="DF")
    else:
        header = IPv6(src=source, dst=destination, hlim=64, tc=4, fl=0x12345)
        echo = (ICMPv6EchoReply if row.is_reply else ICMPv6EchoRequest)(id=7, seq=1)
    ports = {"sport": 40000, "dport": PORT + row.number}
    if row.is_reply:
        ports = {"sport": ports["dport"], "dport": ports["sport"]}
    data = Raw(f"scenario {row.name}".encode() * 30)
    asked = {"sport": 40001, "dport": CLOSED + row.number}
    closed = UDP(**asked) / data
    if row.is_reply:
        version, error = (IPv6, ICMPv6DestUnreach(code=4)) if ":" in source else (IP, ICMP(type=3, code=3))
        closed = error / version(bytes(version(src=destination, dst=source) / closed))
    said = (echo / data, TCP(**ports, flags="PA") / data, UDP(**ports) / data, closed)
    return [Packet(bytes(header / one)) for one in said]


def run(network):
    """A judge of captures that are as they must be."""
    table = rows(network.scenarios)
    sent = {end: [] for end in network.ends}
    for row in table.values():
        sent[row.sender] += conversation(network, row)
    judge = Judge(network, {link: [] for link in ["hv1", "hv2", "hv3", "hv4", "gw"]}, sent, {end: [] for end in network.ends})
    judge.judge()
    expected = {place: [Packet(data) for _, _, data in packets] for place, packets in judge.expected.items()}
    links = {link: expected[link] for link in judge.links}
    return Judge(network, links, sent, {end: expected[end] for end in network.ends})


def differing(judge):
    """The rows that complain, and `other`."""
    found = judge.judge()
    return {row["scenario"] for row in found["rows"] if row["complaints"]} | ({"other"} if found["other"] else set())


class Judgement(unittest.TestCase):
    """It accepts what is right, and names the scenario of what is not."""

    def test_what_must_be_seen_is_accepted_in_both_modes(self):
        for mode in ("neutral", "unmodified"):
            judge = run(reference(checksum=mode))
            found = judge.judge()
            self.assertEqual([row["complaints"] for row in found["rows"]] + [found["other"]], [[]] * 27)
            self.assertTrue(all(len(row["places"]) == 3 for row in found["rows"]))
            self.assertEqual(sum(map(len, judge.links.values())), 2 * 4 * 26)

    def test_checksums_are_good_on_the_wire_and_at_every_receiver(self):
        judge = run(reference())
        for packets in [*judge.links.values(), *judge.received.values()]:
            for packet in packets:
                self.assertTrue(packet.has_good_checksum)
        unmodified = run(reference(checksum="unmodified"))
        wrong = [one for packets in unmodified.links.values() for one in packets if not one.has_good_checksum]
        self.assertGreater(len(wrong), 100)

    def test_any_bit_of_any_row_is_found_at_any_place_and_named(self):
        right = run(reference())
        right.judge()
        for row in right.rows.values():
            for place in (*right.network.path(row), row.receiver):
                judge = Judge(right.network, *({**captured} for captured in (right.links, right.sent, right.received)))
                side = judge.links if place in judge.links else judge.received
                index = next(at for at, (flow, *_) in enumerate(right.expected[place]) if flow[0] == row.name)
                data = bytearray(side[place][index].data)
                data[-1 - len(row.name)] ^= 4
                side[place] = [*side[place][:index], Packet(bytes(data)), *side[place][index + 1 :]]
                self.assertEqual(differing(judge), {row.name}, place)

    def test_a_missing_packet_one_too_many_and_a_stranger_are_found(self):
        judge = run(reference())
        del judge.links["hv2"][0]
        self.assertEqual(len(differing(judge)), 1)
        judge = run(reference())
        judge.received["VA3"].append(judge.received["VA1"][0])
        self.assertEqual(differing(judge), {"other"})
        judge = run(reference())
        judge.links["gw"].append(judge.links["hv1"][0])
        self.assertEqual(differing(judge), {"other"})
        judge = run(reference())
        judge.sent["VA3"].append(judge.sent["VA1"][0])
        self.assertEqual(differing(judge), {"other"})

    def test_another_locator_another_network_and_another_hop_are_found(self):
        right = reference()
        for changed in ({"L2": "2001:db8:0:9::/64"}, {"L4": "2001:db8:0:9::/64"}):
            hosts = {name: host | {"locator": changed.get(name, host["locator"])} for name, host in PLAN["hosts"].items()}
            judge = run(reference(hosts=hosts))
            judge.network = right
            affected = {row.name for row in rows(right.scenarios).values() if row.wire[1].startswith(tuple(changed))}
            self.assertEqual(differing(judge), affected)
        judge = run(right)
        packet = judge.received["T4"][0]
        judge.received["T4"][0] = replace(packet, data=packet.data[:7] + b"\x3f" + packet.data[8:])
        self.assertEqual(len(differing(judge)), 1)

    def test_a_row_without_one_of_its_protocols_proves_nothing(self):
        for index, row, names in ((0, "9", "icmp"), (1, "9", "tcp"), (2, "9", "udp"), (3, "9r", "error")):
            judge = run(reference(scenarios=[9]))
            for captured in (judge.sent, judge.links, judge.received):
                for packets in captured.values():
                    packets[:] = [one for one in packets if one.name != names or judge_row(judge, one) != row]
            self.assertEqual(differing(judge), {row}, index)


def judge_row(judge, packet):
    """`9`, or `9r`, by who speaks."""
    return "9" if packet.ends[0] == judge.network.address("VNET1:VA1") else "9r"


if __name__ == "__main__":
    unittest.main()
