"""Redirects (docs/redirect.md) by code that shares nothing with the daemon: reads a captured one, and sends what must be refused.

Reads from standard input {"captured": HEX, "key": HEX, "to": ADDRESS, "from": ADDRESS, "port": N, "locator": PREFIX}: a redirect as the
daemon sent it, the secret, whom to send to and from where, and the locator that the captured one must name. Prints how many were sent of each outcome by its name.
"""

import hashlib
import hmac
import ipaddress
import json
import socket
import struct
import sys
import time

LAYOUT = struct.Struct("!4sBBHQQQQQQQQII")
FIELDS = ("magic version kind key sender recipient domain identifier locator epoch sequence time lifetime zero").split()


def seal(fields, key):
    signed = LAYOUT.pack(*(fields[name] for name in FIELDS))
    return signed + hmac.new(key, signed, hashlib.sha256).digest()


def upper(prefix):
    return int(ipaddress.IPv6Address(prefix)) >> 64


def main():
    plan = json.load(sys.stdin)
    key, captured = bytes.fromhex(plan["key"]), bytes.fromhex(plan["captured"])
    assert len(captured) == LAYOUT.size + 32 == 112, len(captured)
    fields = dict(zip(FIELDS, LAYOUT.unpack(captured[:80])))
    assert seal(fields, key) == captured, "the MAC is not that of the documented bytes"
    expected = {"magic": b"ILAR", "version": 1, "kind": 1, "zero": 0, "epoch": 0}
    expected |= {"sender": upper(plan["from"]), "recipient": upper(plan["to"]), "locator": upper(plan["locator"])}
    assert {name: fields[name] for name in expected} == expected, fields
    assert abs(fields["time"] / 1e6 - time.time()) < 30, fields

    sequence = fields["sequence"]

    def made(secret=key, **changes):
        """A fresh one of an earlier sequence, which the window has not seen."""
        nonlocal sequence
        sequence -= 1
        fresh = {"sequence": sequence, "time": int(time.time() * 1e6)}
        return seal(fields | fresh | changes, secret)

    foreign = upper("2001:db8:66::")
    cases = {
        "replayed": [captured, captured],
        "bad-mac": [captured[:47] + b"\x66" + captured[48:], made(secret=b"x" * 32), captured[:-1] + bytes([captured[-1] ^ 1])],
        "unknown-key": [made(key=99)],
        "malformed": [captured[:-1], captured + b"\0", b"", b"ILAR", made(lifetime=0), made(zero=1), made(sender=0)],
        "other-version": [made(version=2), made(kind=2)],
        "not-for-us": [made(recipient=foreign)],
        "not-a-router": [made(sender=foreign)],
        "stale": [made(time=int((time.time() - 60) * 1e6)), made(time=int((time.time() + 60) * 1e6))],
        "foreign-domain": [made(domain=foreign)],
        "unknown-identifier": [made(identifier=fields["identifier"] ^ 1 << 32), made(identifier=7), made(identifier=6 << 61)],
        "bad-locator": [made(locator=fields["recipient"]), made(locator=fields["domain"]), made(locator=0xFE80 << 48)],
        "old-epoch": [made(locator=foreign)],
        "here": [made(identifier=fields["identifier"] & ~0xFF | 1)],
        "renewed": [made()],
    }
    udp = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    udp.bind((plan["from"], 0))
    for messages in cases.values():
        for message in messages:
            udp.sendto(message, (plan["to"], plan["port"]))
    print(json.dumps({name: len(messages) for name, messages in cases.items()}))


main()
