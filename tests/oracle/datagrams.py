#!/usr/bin/env python3
"""Datagrams of a task, many by one call: datagrams.py send ADDRESS PORT BYTES SEGMENT | receive PORT BYTES

`send` leaves it to the kernel, or whoever is behind it, to cut the bytes into datagrams of SEGMENT (UDP_SEGMENT, linux/udp.h). `receive` says when
it listens, waits until BYTES have come, and prints the length of each datagram. The bytes are those of
tests/src/ringpeer/data.rs. PORT is the sender's own, too: a task answers from it.
"""

import socket
import sys

UDP_SEGMENT = 103
LIMIT = 20


def pattern(count):
    """So many bytes."""
    return bytes(at * 131 >> 3 & 0xFF for at in range(count))


def send(address, port, count, segment):
    """One call for all."""
    sender = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    sender.bind(("::", int(port)))
    sender.setsockopt(socket.IPPROTO_UDP, UDP_SEGMENT, int(segment))
    sender.sendto(pattern(int(count)), (address, int(port)))


def receive(port, count):
    """Until all came."""
    receiver = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    receiver.settimeout(LIMIT)
    receiver.bind(("::", int(port)))
    print("listening", flush=True)
    came = []
    while sum(map(len, came)) < int(count):
        came.append(receiver.recv(65535))
    if b"".join(came) != pattern(int(count)):
        sys.exit("other bytes came")
    print("lengths:", *map(len, came))


if __name__ == "__main__":
    {"send": send, "receive": receive}[sys.argv[1]](*sys.argv[2:])
