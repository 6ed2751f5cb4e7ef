"""A resolver at ADDRESS, and somebody on the path who sees each question and is faster than the answer.

Before the answer come three that say 198.51.100.66, made by scapy: with another identification, from another server, to another
question. The answer says 203.0.113.7.
"""

import socket
import sys
import time

from scapy.layers.dns import DNS, DNSRR
from scapy.layers.inet import UDP
from scapy.layers.inet6 import IPv6

FORGED, TRUE = "198.51.100.66", "203.0.113.7"
OTHER = "2001:db8:53::66"


def answer(question, address, identification=None, name=None):
    name = name or question.qd.qname
    record = DNSRR(rrname=name, type="A", ttl=60, rdata=address)
    number = question.id if identification is None else identification
    asked = question.qd.copy()
    asked.qname = name
    return DNS(id=number, qr=1, rd=question.rd, ra=1, qd=asked, an=record)


def main():
    own = sys.argv[1]
    server = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    server.bind((own, 53))
    raw = socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_RAW)
    print("ready", flush=True)
    while True:
        message, (asker, port, *_) = server.recvfrom(65535)
        question = DNS(message)
        for source, forged in [
            (own, answer(question, FORGED, identification=question.id ^ 0x5555)),
            (OTHER, answer(question, FORGED)),
            (own, answer(question, FORGED, name=b"another.example.")),
        ]:
            packet = IPv6(src=source, dst=asker) / UDP(sport=53, dport=port) / forged
            raw.sendto(bytes(packet), (asker, 0))
        time.sleep(0.3)
        server.sendto(bytes(answer(question, TRUE)), (asker, port))
        print("answered", question.qd.qname, flush=True)


main()
