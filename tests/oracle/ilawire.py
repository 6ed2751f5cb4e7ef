#!/usr/bin/env python3
"""What the wire must carry, computed from the draft by a program that shares nothing with the one under test.

    ilawire.py make PLAN DIRECTORY clean|odd NAME,SOURCE,DESTINATION...   frames for attachments to send
    ilawire.py judge PLAN DIRECTORY                                       compares; exit status 1 where anything differs
    ilawire.py restore PLAN IN OUT.pcap                                   puts the endpoints' addresses back

`make` appends to NAME-sent.pcap, and to NAME-sent.names, a line for each frame.
`judge` reads from DIRECTORY, where they exist: NAME-sent.pcap and NAME-received.pcap of each attachment (Ethernet), and
link-HOST.pcapng of each host's link to the fabric (Ethernet). It prints each difference field by field, then one line of JSON:
{"sent": n, "wire": n, "received": n, "aside": n, "complaints": n}; aside are what the gateway said to tenants by itself.
"""

import argparse
import json
import sys
from ipaddress import ip_address
from pathlib import Path

from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Ether
from scapy.utils import PcapWriter, wrpcap

import corpus
from compare import compare, read, settled
from expect import fate
from plan import Plan


def make(arguments):
    """Appends the frames of each pair of addresses to its sender's file."""
    for pair in arguments.pairs:
        sender, source, destination = pair.split(",")
        frames = corpus.frames(arguments.plan, sender, source, destination, arguments.kind)
        out = arguments.directory / f"{sender}-sent.pcap"
        wrpcap(str(out), [Ether(frame) for frame in frames.values()], append=out.exists())
        with out.with_suffix(".names").open("a") as names:
            names.writelines(f"{destination}: {name}\n" for name in frames)
    return 0


def sent_by(plan, directory):
    """(attachment, name of the frame, frame) of each frame sent."""
    for attachment in plan.attachments:
        path = directory / f"{attachment}-sent.pcap"
        if not path.exists():
            continue
        frames = read(path)
        named = path.with_suffix(".names")
        names = named.read_text().splitlines() if named.exists() else [f"frame {n}" for n in range(1, len(frames) + 1)]
        for name, frame in zip(names, frames, strict=True):
            yield attachment, f"{attachment} to {name}", frame


def of_tenants(plan, frames):
    """The IPv6 packets of `frames` (Ethernet, of the fabric) that carry anything of ours."""
    for frame in frames:
        if frame[12:14] == b"\x86\xdd":
            ends = ip_address(frame[22:38]), ip_address(frame[38:54])
            if any(map(plan.is_ours, ends)):
                yield frame[14:]


def by_the_gateway(plan, attachment, frame):
    """Whether the NVE says this by itself: ARP, and what comes from the gateway's addresses."""
    packet = Ether(frame).payload
    if packet.name == "ARP":
        return True
    return packet.name in ("IP", "IPv6") and plan.is_gateway(attachment.network, ip_address(packet.src))


def judge(arguments):
    """Compares all captures of a directory with what the sent frames must have become."""
    plan, directory = arguments.plan, arguments.directory
    links = {host: [] for host in plan.locators}
    received = {name: [] for name in plan.attachments}
    sent = 0
    for sender, name, frame in sent_by(plan, directory):
        sent += 1
        expected = fate(plan, sender, frame)
        if expected.receiver is None:
            continue
        flow = sender, expected.receiver
        first, second = plan.attachments[sender].host, plan.attachments[expected.receiver].host
        links[first] += [(flow, f"link of {first}: {name}", packet) for packet in expected.first_link]
        links[second] += [(flow, f"link of {second}: {name}", packet) for packet in expected.second_link]
        received[expected.receiver] += [
            (flow, f"received by {expected.receiver}: {name}", settled(packet)) for packet in expected.received
        ]
    complaints, counts = [], {"sent": sent, "wire": 0, "received": 0, "aside": 0}
    for host, expected in links.items():
        captured = list(of_tenants(plan, read(directory / f"link-{host}.pcapng")))
        counts["wire"] += len(captured)
        complaints += compare(expected, captured, IPv6)
    for name, expected in received.items():
        path = directory / f"{name}-received.pcap"
        if not path.exists():
            complaints += [f"{path} is missing"] if expected else []
            continue
        frames = read(path)
        captured = [frame for frame in frames if not by_the_gateway(plan, plan.attachments[name], frame)]
        counts["aside"] += len(frames) - len(captured)
        counts["received"] += len(captured)
        complaints += compare(expected, [settled(frame) for frame in captured], Ether)
    for complaint in complaints:
        print(complaint)
    print(json.dumps(counts | {"complaints": len(complaints)}))
    return 1 if complaints or not sent else 0


def restore(arguments):
    """Copies a capture of the fabric, the destinations being those that the endpoints used; other packets are left out."""
    plan = arguments.plan
    writer = PcapWriter(str(arguments.out), linktype=1, sync=False)
    for frame in read(arguments.captured):
        for packet in of_tenants(plan, [frame]):
            destination = ip_address(packet[24:40])
            restored = plan.domain.restored(plan.locators.values(), plan.networks.values(), destination)
            writer.write(Ether(frame[:14] + packet[:24] + restored.packed + packet[40:]))
    writer.close()
    return 0


def main():
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    for command in (make, judge, restore):
        sub = commands.add_parser(command.__name__)
        sub.set_defaults(run=command)
        sub.add_argument("plan", type=lambda path: Plan(Path(path).read_text()))
        if command is restore:
            sub.add_argument("captured", type=Path)
            sub.add_argument("out", type=Path)
        else:
            sub.add_argument("directory", type=Path)
        if command is make:
            sub.add_argument("kind", choices=["clean", "odd"])
            sub.add_argument("pairs", nargs="+")
    arguments = parser.parse_args()
    return arguments.run(arguments)


if __name__ == "__main__":
    sys.exit(main())
