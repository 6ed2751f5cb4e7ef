#!/usr/bin/env python3
"""Judges captures of a fabric with tasks (identifiers of type 1), some of them behind the Linux kernel's own ILA.

    linux_ila.py PLAN CAPTURE

PLAN: {"sir": "2001:db8:51::/64", "flows": [{"from": "SIR:T", "to": "SIR:T", "locator": "2001:db8:0:1::/64", "mode": M, "by": "linux"}]}
M is what iproute2 calls it: neutral-map, no-action, neutral-map-auto, adj-transport; `by` is who translates, "linux" or "nve".

Every packet of the capture whose source is a task must be to where one of the flows goes on the wire, with the checksum that its mode has
there; fragments are put together first. Prints a line of JSON: for each flow, how many whole packets of each protocol and how many fragments.
"""

import json
import sys
from collections import Counter, defaultdict
from ipaddress import IPv6Address, IPv6Network
from pathlib import Path

from compare import read
from ila import C_BIT, complement, of_words, ones_sum, words

TCP, UDP, FRAGMENT, ICMPV6 = 6, 17, 44, 58
NAMES = {TCP: "tcp", UDP: "udp", ICMPV6: "icmpv6"}
TYPE_LOCAL = 1


class Flow:
    """One direction between two tasks."""

    def __init__(self, raw):
        self.source, self.destination = IPv6Address(raw["from"]), IPv6Address(raw["to"])
        self.locator = IPv6Network(raw["locator"])
        self.mode, self.by = raw["mode"], raw["by"]
        assert self.destination.packed[8] >> 4 == TYPE_LOCAL << 1, f"{self.destination} is not of type 1, or has C"
        self.wire = self.on_the_wire()

    def change(self):
        """The sum of the words that leave the destination, less that of those that come, C not counted."""
        old, new = self.destination.packed[:8], self.locator.network_address.packed[:8]
        return ones_sum(words(old) + [complement(word) for word in words(new)])

    def on_the_wire(self):
        """The destination there.

        The adjusted low word is what leaves the sum of the address as it was. 0x0000 and 0xffff are adjusted to the same: the kernel
        sends them so all the same, an NVE sends both with C = 0 and as they are (reading of section 4.4.1).
        """
        here = words(self.destination.packed)
        plain = words(self.locator.network_address.packed)[:4] + here[4:]
        if self.mode in ("no-action", "adj-transport"):
            return of_words(plain)
        marked = self.mode == "neutral-map"
        if marked and self.by == "nve" and here[7] in (0, 0xFFFF):
            return of_words(plain)
        if marked:
            plain[4] |= C_BIT
        low = ones_sum(here + [complement(word) for word in plain[:7]])
        return of_words(plain[:7] + [low])

    def is_right(self, packet, protocol, transport):
        """Whether the checksum is what it must be on the wire."""
        adjusted = self.wire.packed[8:] != self.destination.packed[8:]
        seen = (self.wire if adjusted else self.destination).packed
        length = len(transport).to_bytes(4, "big")
        total = ones_sum(words(packet[8:24] + seen + length) + [protocol] + words(transport))
        if self.mode == "adj-transport":
            # The kernel's sign (ila_csum_adjust_transport uses the difference that neutral-map needs): what the address loses, the
            # checksum's complement gains, so the sum over the endpoint's addresses is short by it.
            total = ones_sum([total, self.change()])
        return total == 0xFFFF


def whole(packets):
    """(packet, protocol, transport) of each packet, fragments put together; the number of fragments by (source, destination)."""
    parts, fragments = defaultdict(dict), Counter()
    for packet in packets:
        protocol, transport = packet[6], packet[40 : 40 + int.from_bytes(packet[4:6], "big")]
        if protocol != FRAGMENT:
            yield packet, protocol, transport, 0
            continue
        field = int.from_bytes(transport[2:4], "big")
        key = packet[8:40] + transport[4:8]
        fragments[key] += 1
        parts[key][field & ~7] = (transport[8:], not field & 1, transport[0])
        joined, at = b"", 0
        while at in parts[key]:
            data, last, protocol = parts[key][at]
            joined, at = joined + data, at + len(data)
            if last:
                del parts[key]
                yield packet, protocol, joined, fragments.pop(key)
                break
    assert not parts, f"{len(parts)} packets lack fragments"


def judge(raw, frames):
    """Complaints, and what was counted for each flow."""
    flows = [Flow(flow) for flow in raw["flows"]]
    sir = IPv6Network(raw["sir"])
    by_wire = defaultdict(list)
    for number, flow in enumerate(flows):
        by_wire[flow.source.packed + flow.wire.packed].append(number)
    counts, complaints = [Counter() for _ in flows], []
    packets = [frame[14:] for frame in frames if frame[12:14] == b"\x86\xdd"]
    packets = [packet for packet in packets if IPv6Address(packet[8:24]) in sir]
    for packet, protocol, transport, fragments in whole(packets):
        ends = packet[8:40]
        if ends not in by_wire:
            complaints.append(f"nobody sends so: {IPv6Address(ends[:16])} > {IPv6Address(ends[16:])}")
            continue
        for number in by_wire[ends]:
            flow = flows[number]
            counts[number][NAMES.get(protocol, str(protocol))] += 1
            counts[number]["fragments"] += fragments
            if not flow.is_right(packet, protocol, transport):
                complaints.append(
                    f"{flow.mode} by {flow.by}, {flow.source} > {flow.destination}: a wrong checksum\n    {packet.hex()}"
                )
    return complaints, counts


def main(plan, capture):
    """Prints complaints and counts."""
    complaints, counts = judge(json.loads(Path(plan).read_text()), read(capture))
    for complaint in complaints:
        print(complaint)
    print(json.dumps([dict(count) for count in counts]))
    return 1 if complaints else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
