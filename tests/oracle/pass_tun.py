#!/usr/bin/env python3
"""Passes a TUN device of some kind to a daemon: pass_tun.py SOCKET ATTACHMENT KIND; prints the answer.

KIND: right, tap, no-vnet-hdr, multi-queue, or unattached (to no interface).
"""

import fcntl
import json
import os
import socket
import struct
import sys

TUNSETIFF = 0x400454CA
TUN, TAP, MULTI_QUEUE, NO_PI, VNET_HDR = 0x0001, 0x0002, 0x0100, 0x1000, 0x4000
KINDS = {
    "right": TUN | NO_PI | VNET_HDR,
    "tap": TAP | NO_PI | VNET_HDR,
    "no-vnet-hdr": TUN | NO_PI,
    "multi-queue": TUN | NO_PI | VNET_HDR | MULTI_QUEUE,
    "unattached": None,
}


def main(path, attachment, kind):
    """One device, one request, one answer."""
    device = os.open("/dev/net/tun", os.O_RDWR)
    if KINDS[kind] is not None:
        fcntl.ioctl(device, TUNSETIFF, struct.pack("16sH22x", b"passed%d", KINDS[kind]))
    with socket.socket(socket.AF_UNIX) as daemon:
        daemon.connect(path)
        request = json.dumps({"plug": attachment, "hold": False}).encode() + b"\n"
        socket.send_fds(daemon, [request], [device])
        print(daemon.makefile().readline())


if __name__ == "__main__":
    main(*sys.argv[1:])
