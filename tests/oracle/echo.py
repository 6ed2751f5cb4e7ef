#!/usr/bin/env python3
"""Pings from an ordinary socket: echo.py TARGET COUNT [SOURCE]

A request each fifth of a second. Prints `N answered`, and each ICMP error that came instead as `error: TYPE CODE from ADDRESS`.
"""

import os
import select
import socket
import struct
import sys
import time

REQUEST, REPLY, FIRST_INFORMATIONAL = 128, 129, 128


def main(target, count, source=None):
    """One request after the other, each answered or not within a second."""
    echo = socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6)
    if source:
        echo.bind((source, 0))
    identifier, answered = os.getpid() & 0xFFFF, 0
    for number in range(int(count)):
        payload = os.urandom(56)
        try:
            echo.sendto(struct.pack("!BBHHH", REQUEST, 0, 0, identifier, number) + payload, (target, 0))
        except OSError as error:
            print(f"not sent: {error}")
            continue
        until = time.monotonic() + 1
        while (left := until - time.monotonic()) > 0 and select.select([echo], [], [], left)[0]:
            data, (sender, *_) = echo.recvfrom(65535)
            if data[0] == REPLY and data[4:] == struct.pack("!HH", identifier, number) + payload:
                answered += 1
                break
            if data[0] < FIRST_INFORMATIONAL and struct.pack("!HH", identifier, number) in data[48:]:
                print(f"error: {data[0]} {data[1]} from {sender}")
                break
        time.sleep(0.2)
    print(f"{answered} answered")


if __name__ == "__main__":
    main(*sys.argv[1:])
