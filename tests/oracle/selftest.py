#!/usr/bin/env python3
"""The oracle's own test: known vectors, checksums summed up by scapy, and a proof that it can fail.

A run of captures is made from the oracle's expectation, which it must accept; then one thing is spoilt at a time, and it must
complain each time.
"""

import contextlib
import io
import json
import random
import tempfile
import unittest
from ipaddress import IPv4Address, IPv6Address, IPv6Network
from pathlib import Path
from types import SimpleNamespace

from scapy.layers.inet import TCP, UDP
from scapy.layers.inet6 import (
    ICMPv6DestUnreach,
    ICMPv6EchoReply,
    ICMPv6EchoRequest,
    ICMPv6PacketTooBig,
    ICMPv6TimeExceeded,
    IPv6,
    IPv6ExtHdrFragment,
)
from scapy.layers.l2 import Ether
from scapy.utils import wrpcap

import corpus
import ilawire
from compare import read
from expect import fate
from ila import ones_sum, words
from plan import Plan

PLAN = {
    "sir": "2001:db8:51::/64",
    "checksum": "neutral",
    "uplink_mtu": 1500,
    "hosts": {"hv1": "2001:db8:0:1::/64", "hv2": "2001:db8:0:2::/64"},
    "networks": {
        "blue": {"vni": 0x3E9, "ipv4": "10.0.0.0/8", "ipv6": "2001:db8:b1:e::/96"},
        "red": {"vni": 0x3EA, "ipv4": "10.0.0.0/8", "ipv6": "2001:db8:b1:e:0:1::/96"},
    },
    "attachments": {
        "vm1": {
            "host": "hv1",
            "network": "blue",
            "mac": "52:54:00:00:00:01",
            "addresses": ["10.1.0.1", "2001:db8:b1:e::1"],
        },
        "vm2": {
            "host": "hv2",
            "network": "blue",
            "mac": "52:54:00:00:00:02",
            "addresses": [
                "10.1.0.2", "10.2.0.0", "10.2.255.255",
                "2001:db8:b1:e::2", "2001:db8:b1:e::2:0", "2001:db8:b1:e::2:ffff",
            ],
        },
        "red2": {"host": "hv2", "network": "red", "mac": "52:54:00:00:00:03", "addresses": ["10.1.0.2"]},
    },
}  # fmt: skip
PAIRS = [(source, there) for source, here in (("10.1.0.1", 4), ("2001:db8:b1:e::1", 6)) for there in
         PLAN["attachments"]["vm2"]["addresses"] if (6 if ":" in there else 4) == here]  # fmt: skip


def plan(**changes):
    """The plan, with changes."""
    return Plan(json.dumps(PLAN | changes))


class Addresses(unittest.TestCase):
    """Section 3 and 4.4 of the draft."""

    def setUp(self):
        self.neutral, self.unmodified = plan(), plan(checksum="unmodified")
        self.blue, self.there = self.neutral.networks["blue"], self.neutral.locators["hv2"]

    def ila(self, site, address):
        return str(site.domain.ila_address(self.there, self.blue, address))

    def test_vectors_worked_out_by_hand(self):
        sir = self.neutral.domain.sir_address(self.blue, IPv4Address("10.1.0.1"))
        self.assertEqual(str(sir), "2001:db8:51:0:4000:3e9:a01:1")
        self.assertEqual(self.ila(self.unmodified, IPv4Address("10.1.0.2")), "2001:db8:0:2:4000:3e9:a01:2")
        # 2 + (51 - 2) - 1000: the locator's words sum up to less than the SIR prefix's by 0x4f, and C adds 0x1000.
        self.assertEqual(self.ila(self.neutral, IPv4Address("10.1.0.2")), "2001:db8:0:2:5000:3e9:a01:f050")
        # Words 0-5 of VNET sum up to 2dbd + b1 + e, of the ILA address to 2dbd + 2 + 7000 + 3e9.
        low = (2 + 0xB1 + 0xE - 2 - 0x7000 - 0x3E9) % 0xFFFF
        self.assertEqual(self.ila(self.neutral, IPv6Address("2001:db8:b1:e::2")), f"2001:db8:0:2:7000:3e9:0:{low:x}")

    def test_a_low_word_of_ffff_goes_without_c(self):
        self.assertEqual(self.ila(self.neutral, IPv4Address("10.2.255.255")), "2001:db8:0:2:4000:3e9:a02:ffff")
        self.assertEqual(self.ila(self.neutral, IPv4Address("10.2.0.0")), "2001:db8:0:2:5000:3e9:a02:f04e")

    def test_neutral_addresses_sum_up_alike_and_come_back(self):
        source = random.Random(2)
        for _ in range(20000):
            address = IPv4Address(source.getrandbits(32))
            if source.random() < 0.5:
                address = IPv6Address(int(self.blue.ipv6[0]) + source.getrandbits(32))
            locator = IPv6Network((source.getrandbits(64) << 64, 64))
            ila = self.neutral.domain.ila_address(locator, self.blue, address)
            seen = self.neutral.domain.endpoint_address(self.blue, address)
            if ila.packed[8] & 0x10:
                self.assertEqual(ones_sum(words(seen.packed)), ones_sum(words(ila.packed)))
            networks = self.neutral.networks.values()
            self.assertEqual(self.neutral.domain.restored([locator], networks, ila), seen)

    def test_other_addresses_are_not_restored(self):
        networks, locators = self.neutral.networks.values(), self.neutral.locators.values()
        for address in map(IPv6Address, ("2001:db8:0:2::1", "2001:db8:0:3:4000:3e9:a01:2", "2001:db8:0:2:a000::1")):
            self.assertEqual(self.neutral.domain.restored(locators, networks, address), address)


class Checksums(unittest.TestCase):
    """On the wire, by scapy's arithmetic."""

    def test_clean_frames_have_good_checksums_in_neutral_mode(self):
        site = plan()
        seen = set()
        for source, destination in PAIRS:
            for name, frame in corpus.frames(site, "vm1", source, destination, "clean").items():
                for packet in fate(site, "vm1", frame).first_link:
                    verdict = summed(IPv6(packet))
                    if verdict is not None:
                        seen.add(name)
                        self.assertEqual(verdict, packet[32] & 0x10 != 0, f"{destination}: {name}")
        self.assertGreater(len(seen), 15)

    def test_in_unmodified_mode_they_are_good_for_the_endpoints(self):
        site = plan(checksum="unmodified")
        for source, destination in PAIRS:
            for name, frame in corpus.frames(site, "vm1", source, destination, "clean").items():
                for packet in fate(site, "vm1", frame).first_link:
                    restored = site.domain.restored(
                        site.locators.values(), site.networks.values(), IPv6Address(packet[24:40])
                    )
                    self.assertIn(summed(IPv6(packet)), (False, None), name)
                    self.assertIn(summed(IPv6(packet[:24] + restored.packed + packet[40:])), (True, None), name)

    def test_a_zero_checksum_is_written_as_ffff(self):
        frame = corpus.frames(plan(), "vm1", "10.1.0.1", "10.1.0.2", "clean")["UDP whose checksum becomes zero"]
        (packet,) = fate(plan(), "vm1", frame).first_link
        self.assertEqual(packet[46:48], b"\xff\xff")


def summed(packet):
    """Whether scapy computes the transport checksum that is there; None where there is none to judge."""
    if IPv6ExtHdrFragment in packet:
        return None
    errors = ICMPv6DestUnreach, ICMPv6PacketTooBig, ICMPv6TimeExceeded
    fields = {layer: "cksum" for layer in (*errors, ICMPv6EchoRequest, ICMPv6EchoReply)} | {TCP: "chksum", UDP: "chksum"}
    # An error comes first: what it quotes has layers of its own.
    for layer, field in fields.items():
        if layer in packet:
            there = packet[layer].getfieldval(field)
            packet[layer].delfieldval(field)
            return there == IPv6(bytes(packet))[layer].getfieldval(field)
    return None


class Judgement(unittest.TestCase):
    """It accepts what is right, and nothing else."""

    def setUp(self):
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.directory, self.site = Path(directory.name), plan()
        pairs = [f"vm1,{source},{destination}" for source, destination in (PAIRS[0], PAIRS[-1])]
        for kind in ("clean", "odd"):
            ilawire.make(SimpleNamespace(plan=self.site, directory=self.directory, kind=kind, pairs=pairs))
        fates = [fate(self.site, "vm1", frame) for frame in read(self.directory / "vm1-sent.pcap")]
        self.assertTrue(all(one.first_link and one.second_link and one.received for one in fates))
        ether = Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02")
        self.first = [bytes(ether / IPv6(packet)) for one in fates for packet in one.first_link]
        self.second = [bytes(ether / IPv6(packet)) for one in fates for packet in one.second_link]
        self.received = [packet for one in fates for packet in one.received]
        self.foreign = []
        self.assertGreater(len(fates), 50)

    def verdict(self):
        """(exit status, what was printed) of a judgement on the captures as they are now."""
        files = {
            "link-hv1.pcapng": self.first,
            "link-hv2.pcapng": self.second,
            "vm2-received.pcap": self.received,
            "red2-received.pcap": self.foreign,
        }
        for name, frames in files.items():
            wrpcap(str(self.directory / name), [Ether(frame) for frame in frames])
        said = io.StringIO()
        with contextlib.redirect_stdout(said):
            status = ilawire.judge(SimpleNamespace(plan=self.site, directory=self.directory))
        return status, said.getvalue()

    def must_complain(self, of):
        status, said = self.verdict()
        self.assertEqual(status, 1)
        self.assertIn(of, said)

    def test_what_was_expected_is_accepted(self):
        status, said = self.verdict()
        self.assertEqual(status, 0, said)
        self.assertEqual(json.loads(said)["complaints"], 0)

    def test_an_identification_of_ones_own_is_accepted(self):
        frame = bytearray(self.received[0])
        self.assertEqual(frame[18:20], b"\0\0")
        frame[18:20] = b"\x12\x34"
        frame[24:26] = b"\0\0"
        frame[24:26] = (ones_sum(words(frame[14:34])) ^ 0xFFFF).to_bytes(2, "big")
        self.received[0] = bytes(frame)
        self.assertEqual(self.verdict()[0], 0)

    def test_any_changed_byte_of_the_wire_is_found(self):
        untouched = list(self.first)
        for index in random.Random(3).sample(range(len(untouched)), 12):
            frame = bytearray(untouched[index])
            at = random.Random(index).randrange(14, len(frame))
            frame[at] ^= 1 << index % 8
            self.first = [*untouched[:index], bytes(frame), *untouched[index + 1 :]]
            with self.subTest(index=index, at=at):
                status, _ = self.verdict()
                self.assertEqual(status, 1)

    def test_a_changed_checksum_is_named(self):
        frame = bytearray(self.second[0])
        frame[14 + 40 + 16] ^= 0xFF
        self.second[0] = bytes(frame)
        self.must_complain("TCP.chksum: expected")

    def test_a_lost_packet_is_missed(self):
        del self.first[7]
        self.must_complain("link of hv1")

    def test_a_packet_too_many_is_seen(self):
        self.second.append(self.second[3])
        self.must_complain("unexpected")

    def test_an_order_that_changes_is_seen(self):
        self.received[0], self.received[5] = self.received[5], self.received[0]
        self.must_complain("overtaken")

    def test_a_wrong_header_checksum_is_seen(self):
        frame = bytearray(self.received[0])
        frame[24] ^= 1
        self.received[0] = bytes(frame)
        self.must_complain("IP.chksum")

    def test_what_a_stranger_receives_is_seen(self):
        self.foreign.append(self.received[0])
        self.must_complain("unexpected")

    def test_a_run_without_frames_proves_nothing(self):
        (self.directory / "vm1-sent.pcap").unlink()
        self.first, self.second, self.received = [], [], []
        self.assertEqual(self.verdict()[0], 1)


if __name__ == "__main__":
    unittest.main()
