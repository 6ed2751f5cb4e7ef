#!/usr/bin/env python3
"""Hands translated packets to the kernel of the network namespace this runs in, and reads what it counts.

    receive.py INTERFACE PACKETS.pcap

INTERFACE is a TUN device that is up and has the packets' destinations. Prints what /proc/net/snmp and snmp6 counted meanwhile, as
JSON.
"""

import fcntl
import json
import os
import struct
import sys
import time
from pathlib import Path

from scapy.utils import RawPcapReader

TUNSETIFF = 0x400454CA
IFF_TUN_NO_PI = 0x1001
COUNTED = (
    "IpInReceives",
    "IpInHdrErrors",
    "IpInDelivers",
    "IcmpInCsumErrors",
    "IcmpInMsgs",
    "TcpInCsumErrors",
    "TcpInSegs",
    "UdpInCsumErrors",
    "UdpNoPorts",
    "UdpInDatagrams",
    "Ip6InReceives",
    "Ip6InDelivers",
    "Ip6InHdrErrors",
    "Icmp6InCsumErrors",
    "Icmp6InMsgs",
    "Udp6InCsumErrors",
    "Udp6NoPorts",
    "Udp6InDatagrams",
)


def counters():
    """The kernel's counters by name."""
    lines = Path("/proc/net/snmp").read_text().splitlines()
    counted = {}
    for names, values in zip(lines[::2], lines[1::2]):
        group = names.split(":")[0]
        counted |= {group + name: int(value) for name, value in zip(names.split()[1:], values.split()[1:])}
    for line in Path("/proc/net/snmp6").read_text().splitlines():
        name, value = line.split()
        counted[name] = int(value)
    return {name: counted.get(name, 0) for name in COUNTED}


def main(interface, packets):
    """Writes all packets."""
    device = os.open("/dev/net/tun", os.O_RDWR)
    fcntl.ioctl(device, TUNSETIFF, struct.pack("16sH14x", interface.encode(), IFF_TUN_NO_PI))
    time.sleep(0.2)
    before = counters()
    for data, _ in RawPcapReader(packets):
        os.write(device, data)
    time.sleep(0.2)
    print(json.dumps({name: value - before[name] for name, value in counters().items()}))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
