"""Which of several locators each flow goes to, by code that shares nothing with the daemon: the hash that docs/decisions/0019 points to,
written from its text; and the flows themselves.

Reads from standard input {"server": ADDRESS, "locators": [ADDRESS...], "sources": [ADDRESS...]}, all under one SIR prefix. From each source it
sends the server a small datagram, one that must be cut in fragments, and a TCP SYN, from two ports each. Prints
{"SOURCE PROTOCOL": LOCATOR} of each flow.
"""

import ipaddress
import json
import socket
import sys

MASK = (1 << 64) - 1
TCP, UDP = 6, 17


def mix(x):
    x = (x + 0x9E3779B97F4A7C15) & MASK
    x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9 & MASK
    x = (x ^ x >> 27) * 0x94D049BB133111EB & MASK
    return x ^ x >> 31


def bits(address):
    return int(ipaddress.IPv6Address(address))


def flow(source, server, protocol):
    number = 0
    for word in (bits(source) >> 64, bits(source) & MASK, bits(server) & MASK, protocol):
        number = mix(number ^ word)
    return number


def choose(number, locators):
    return max(locators, key=lambda locator: mix(number ^ mix(bits(locator) >> 64)))


def send(source, server, port):
    for size in (100, 3000):
        with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as datagrams:
            datagrams.bind((source, 0))
            datagrams.sendto(bytes(size), (server, port))
    with socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as stream:
        stream.bind((source, 0))
        stream.setblocking(False)
        try:
            stream.connect((server, port))
        except BlockingIOError:
            pass


def main():
    plan = json.load(sys.stdin)
    server, locators = plan["server"], plan["locators"]
    for source in plan["sources"]:
        for port in (53, 4433):
            send(source, server, port)
    pairs = ((source, protocol) for source in plan["sources"] for protocol in (TCP, UDP))
    print(json.dumps({f"{s} {p}": choose(flow(s, server, p), locators) for s, p in pairs}))


main()
