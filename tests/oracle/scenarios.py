#!/usr/bin/env python3
"""The thirteen scenarios of the draft and their replies, judged from captures by a program that shares nothing with the one under test.

    scenarios.py judge PLAN DIRECTORY     compares; exit status 1 where anything differs

`ROWS` is section 5 of the draft, line by line, in its own notation. DIRECTORY has what was captured: `fabric.pcapng`, the router's links,
an interface for each host; and for each endpoint `NAME.pcap` (a guest's, Ethernet) or `NAME.pcapng` (a task's TUN, bare IPv6; the
Internet host's, Ethernet). Printed is one object of JSON: for each row the addresses captured at the three places, how many packets of
each protocol were compared, and every difference; then what was captured and belongs to no row.

    endpoint's capture ──> row ──> expected: first link, second link, receiver's capture ──> compared byte by byte, none masked
                                   but the identification of IPv4 packets made by a translator, which is theirs to choose
"""

import argparse
import json
import sys
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from scapy.layers.inet import IP
from scapy.layers.inet6 import IPv6

import compare
from packet import Packet
from reference import Reference

# Where those listen who are asked in scenario N: this and N. Where nobody listens, and an error comes back.
PORT, CLOSED = 5000, 4000

# scenario, from, to, as sent, on the wire, as received. A name ending in r is the reply. Hops are not the draft's, see `hops`.
ROWS = """
1   | T1  -> T2    | SIR:T1, SIR:T2             | SIR:T1, L3:T2                 | SIR:T1, SIR:T2
1r  | T2  -> T1    | SIR:T2, SIR:T1             | SIR:T2, L1:T1                 | SIR:T2, SIR:T1
2   | T1  -> Iaddr | SIR:T1, Iaddr              | SIR:T1, Iaddr                 | SIR:T1, Iaddr
2r  | Iaddr -> T1  | Iaddr, SIR:T1              | Iaddr, L1:T1                  | Iaddr, SIR:T1
3   | Iaddr -> T3  | Iaddr, SIR:T3              | Iaddr, L1:T3                  | Iaddr, SIR:T3
3r  | T3  -> Iaddr | SIR:T3, Iaddr              | SIR:T3, Iaddr                 | SIR:T3, Iaddr
4   | VA1 -> T4    | VNET1:VA1, SIR:T4          | VNET1:VA1, L3:T4              | VNET1:VA1, SIR:T4
4r  | T4  -> VA1   | SIR:T4, VNET1:VA1          | SIR:T4, L1:(VNI1:VAX1)        | SIR:T4, VNET1:VA1
5   | T2  -> VA4   | SIR:T2, VNET2:VA4          | SIR:T2, L4:(VNI2:VAX4)        | SIR:T2, VNET2:VA4
5r  | VA4 -> T2    | VNET2:VA4, SIR:T2          | VNET2:VA4, L3:T2              | VNET2:VA4, SIR:T2
6   | VA4 -> Iaddr | VNET2:VA4, Iaddr           | VNET2:VA4, Iaddr              | VNET2:VA4, Iaddr
6r  | Iaddr -> VA4 | Iaddr, VNET2:VA4           | Iaddr, L4:(VNI2:VAX4)         | Iaddr, VNET2:VA4
7   | Iaddr -> VA4 | Iaddr, VNET2:VA4           | Iaddr, L4:(VNI2:VAX4)         | Iaddr, VNET2:VA4
7r  | VA4 -> Iaddr | VNET2:VA4, Iaddr           | VNET2:VA4, Iaddr              | VNET2:VA4, Iaddr
8   | VA2 -> T4    | VA2, ADDR4                 | SIR:(VNI1:VA2), L3:T4         | SIR:(VNI1:VA2), SIR:T4
8r  | T4  -> VA2   | SIR:T4, SIR:(VNI1:VA2)     | SIR:T4, L2:(VNI1:VA2)         | ADDR4, VA2
9   | VA1 -> VA2   | VNET1:VA1, VNET1:VA2       | VNET1:VA1, L2:(VNI1:VAX2)     | VNET1:VA1, VNET1:VA2
9r  | VA2 -> VA1   | VNET1:VA2, VNET1:VA1       | VNET1:VA2, L1:(VNI1:VAX1)     | VNET1:VA2, VNET1:VA1
10  | VA1 -> VA2   | VA1, VA2                   | SIR:(VNI1:VA1), L2:(VNI1:VA2) | VA1, VA2
10r | VA2 -> VA1   | VA2, VA1                   | SIR:(VNI1:VA2), L1:(VNI1:VA1) | VA2, VA1
11  | VA4 -> VA1   | VNET2:VA4, VNET1:VA1       | VNET2:VA4, L1:(VNI1:VAX1)     | VNET2:VA4, VNET1:VA1
11r | VA1 -> VA4   | VNET1:VA1, VNET2:VA4       | VNET1:VA1, L4:(VNI2:VAX4)     | VNET1:VA1, VNET2:VA4
12  | VA4 -> VA1   | VA4, SADDR1                | SIR:(VNI2:VA4), L1:(VNI1:VA1) | SADDR4, VA1
12r | VA1 -> VA4   | VA1, SADDR4                | SIR:(VNI1:VA1), L4:(VNI2:VA4) | SADDR1, VA4
13  | VA4 -> VA1   | VA4, SADDR1'               | SIR:(VNI2:VA4), L1:(VNI1:VAX1) | SIR:(VNI2:VA4), VNET1:VA1
13r | VA1 -> VA4   | VNET1:VA1, SIR:(VNI2:VA4)  | VNET1:VA1, L4:(VNI2:VA4)      | SADDR1', VA4
"""


@dataclass
class Row:
    """One line of section 5. `sent`, `wire`, `received`: a pair of addresses each, in the draft's notation."""

    name: str
    sender: str
    receiver: str
    sent: tuple
    wire: tuple
    received: tuple
    packets: Counter = field(default_factory=Counter)
    data: int = 0
    first: dict = field(default_factory=dict)
    complaints: list = field(default_factory=list)

    @property
    def number(self):
        return int(self.name.rstrip("r"))

    @property
    def is_reply(self):
        return self.name.endswith("r")


def rows(numbers):
    """The rows of these scenarios, by name."""
    table = {}
    for line in filter(None, ROWS.splitlines()):
        name, ends, *pairs = (cell.strip() for cell in line.split("|"))
        sender, receiver = map(str.strip, ends.split("->"))
        row = Row(name, sender, receiver, *(tuple(map(str.strip, pair.split(","))) for pair in pairs))
        if row.number in numbers:
            table[name] = row
    return table


def hops(network, row):
    """How many hops are spent until the first link, the second link, the receiver.

    The draft says nothing. Inside a network, and among tasks, the edges spend none; elsewhere the edge where the packet enters spends one.
    The router between the hosts spends one. The gateway is a router too: on the way out it spends one; on the way in its kernel spends one
    before the first TUN and one behind the second, and the edge between them its own.
    """
    if row.sender == "Iaddr":
        return 3, 4, 4
    entered = int(network.realm(row.sender) != network.realm(row.receiver))
    return entered, entered + 1, entered + 1 + int(row.receiver == "Iaddr")


class Judge:
    """Goes through the captures of one run: `links`, {link: packets}, and what endpoints `sent` and `received`, {end: packets}."""

    def __init__(self, network, links, sent, received):
        self.network, self.links, self.sent, self.received = network, links, sent, received
        self.rows = rows(network.scenarios)
        self.expected = {place: [] for place in [*links, *received]}
        self.other = []

    @classmethod
    def of(cls, network, directory):
        """Of the captures in `directory`."""
        links = {}
        for name, frames in compare.interfaces(directory / "fabric.pcapng").items():
            packets = (Packet(frame[14:]) for frame in frames if frame[12:14] == b"\x86\xdd")
            links[name] = list(filter(network.is_ours, packets))
        captured = {end: network.captured(directory, end) for end in network.ends}
        sent, received = ({end: both[side] for end, both in captured.items()} for side in (0, 1))
        return cls(network, links, sent, received)

    def row_of(self, end, packet):
        """The row that a packet sent by `end` belongs to: by its addresses, else by who listens, or who asked."""
        found = [row for row in self.rows.values() if row.sender == end and self.network.pair(row.sent) == packet.ends]
        if len(found) > 1 and (packet.ports or packet.is_error):
            ports = packet.quoted.ports[::-1] if packet.is_error else packet.ports
            found = [row for row in found if ports[0 if row.is_reply else 1] in (PORT + row.number, CLOSED + row.number)]
        elif len(found) > 1:
            found = [row for row in found if packet.is_request != row.is_reply]
        return found[0] if found else None

    def expect(self, row, packet):
        """Adds what `packet` must be on both links and at the receiver."""
        network = self.network
        row.packets[packet.name] += 1
        row.data += packet.tcp_data
        name = f"scenario {row.name}: {packet.name} packet {row.packets[packet.name]}"
        if not packet.has_good_checksum:
            row.complaints.append(f"{name}: sent with a wrong checksum")
        first, second, last = (packet.hops - spent for spent in hops(network, row))
        # As between endpoints of IPv6, which is what checksums are for (section 4.4); then the destination becomes the wire's.
        ends, destination = network.endpoints(row.wire), network.pair(row.wire)[1]
        links = [packet.between(ends, limit).sent_to(destination) for limit in (first, second)]
        arrives = packet.between(ends, second).between(network.pair(row.received), last)
        # Two sockets of an endpoint send from two processors, so only those of one keep their order.
        flow = (row.name, packet.name, *(packet.ports or ()))
        for place, expected in zip(network.path(row), links):
            self.expected[place].append((flow, f"{name} on the link of {place}", expected.data))
        self.expected[row.receiver].append((flow, f"{name} at {row.receiver}", arrives.data))
        row.first = row.first or {"sender": packet, "wire": links[0], "receiver": arrives}

    def find(self, place, captured):
        """Compares what was captured at `place` with what was expected there."""
        for complaint in compare.compare(self.expected[place], [settled(packet.data) for packet in captured], layer):
            name = complaint.removeprefix("scenario ").split(":")[0]
            (self.rows[name].complaints if name in self.rows else self.other).append(f"{place}: {complaint}")

    def judge(self):
        """All of it; the object that is printed."""
        for end, packets in self.sent.items():
            for packet in packets:
                row = self.row_of(end, packet)
                if row is None:
                    self.other.append(f"{end} sent {layer(packet.data).summary()}")
                else:
                    self.expect(row, packet)
        for place, packets in (self.links | self.received).items():
            self.find(place, packets)
        for row in self.rows.values():
            wanted = ("icmp", "tcp", "udp", "error") if row.is_reply else ("icmp", "tcp", "udp")
            missing = [name for name in wanted if not row.packets[name]]
            missing += [] if row.data else ["data by tcp"]
            row.complaints += [f"scenario {row.name}: no {name} was sent" for name in missing]
        return {"rows": list(map(self.shown, self.rows.values())), "other": self.other}

    def shown(self, row):
        """A row as it is printed: addresses as captured, wherever the row's first packet was, and what they are called."""
        link, places = self.network.path(row)[0], {}
        captured = {
            "sender": self.sent[row.sender],
            "wire": self.links[link],
            "receiver": self.received[row.receiver],
        }
        for place, packets in captured.items():
            wanted = row.first and settled(row.first[place].data)
            home = row.receiver if place == "receiver" else row.sender
            found = (packet for packet in packets if settled(packet.data) == wanted)
            places |= {place: [(str(end), self.network.said(end, home)) for end in one.ends] for one in list(found)[:1]}
        return {
            "scenario": row.name,
            "from": row.sender,
            "to": row.receiver,
            "places": places,
            "packets": row.packets,
            "complaints": row.complaints,
        }


def settled(data):
    """An IP packet with what a translator may choose settled: the identification of IPv4, a quoted one included."""
    return compare.settled(b"\0" * 12 + b"\x08\x00" + data)[14:] if data[0] >> 4 == 4 else data


def layer(data):
    """Dissects an IP packet of either version."""
    return (IP if data[0] >> 4 == 4 else IPv6)(data)


def main():
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=["judge"])
    parser.add_argument("plan", type=Path)
    parser.add_argument("directory", type=Path)
    arguments = parser.parse_args()
    found = Judge.of(Reference(json.loads(arguments.plan.read_text())), arguments.directory).judge()
    print(json.dumps(found))
    return 1 if found["other"] or any(row["complaints"] for row in found["rows"]) else 0


if __name__ == "__main__":
    sys.exit(main())
