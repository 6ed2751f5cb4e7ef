#!/usr/bin/env python3
"""One end of a TCP connection of ordinary sockets, for programs on a host or in a task's namespace.

    stream.py serve ADDRESS PORT             takes one connection; prints "ready", then as below
    stream.py ask ADDRESS PORT BYTES         makes it, and sends BYTES of random data
    stream.py put ADDRESS PORT BYTES         makes it, and only sends
    stream.py hold ADDRESS PORT              makes it, and sends a line a tenth of a second until its standard input ends

Who serves sends back what it reads. Prints the SHA-256 of what was sent and of what came back ("ask", "put"), of what was read ("serve"), or how many lines
came back ("hold").
"""

import hashlib
import os
import select
import socket
import sys
import threading
import time


def family(address):
    """Of the address as text."""
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def serve(address, port):
    """Sends back everything of one connection."""
    with socket.socket(family(address), socket.SOCK_STREAM) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((address, int(port)))
        listener.listen(1)
        print("ready", flush=True)
        connection, peer = listener.accept()
    read = hashlib.sha256()
    with connection:
        while data := connection.recv(1 << 16):
            read.update(data)
            connection.sendall(data)
    print("from", peer[0], read.hexdigest(), flush=True)


def connect(address, port):
    """A connection that is given up after a minute."""
    connection = socket.socket(family(address), socket.SOCK_STREAM)
    connection.settimeout(60)
    connection.connect((address, int(port)))
    return connection


def ask(address, port, size):
    """Sends random data, reads it back."""
    data = os.urandom(int(size))
    back = hashlib.sha256()
    with connect(address, port) as connection:
        sender = threading.Thread(target=lambda: (connection.sendall(data), connection.shutdown(socket.SHUT_WR)))
        sender.start()
        while got := connection.recv(1 << 16):
            back.update(got)
        sender.join()
    print(hashlib.sha256(data).hexdigest(), back.hexdigest(), flush=True)


def put(address, port, size):
    """Sends random data to somebody who sends nothing."""
    data = os.urandom(int(size))
    with connect(address, port) as connection:
        connection.sendall(data)
        connection.shutdown(socket.SHUT_WR)
        time.sleep(1)
    print(hashlib.sha256(data).hexdigest(), flush=True)


def hold(address, port):
    """A line now and then, until standard input ends; every one must come back."""
    sent = 0
    with connect(address, port) as connection, connection.makefile("rb") as lines:
        print("ready", flush=True)
        while not select.select([sys.stdin], [], [], 0)[0]:
            connection.sendall(b"%d\n" % sent)
            assert lines.readline() == b"%d\n" % sent
            sent += 1
            time.sleep(0.1)
    print(sent, flush=True)


if __name__ == "__main__":
    {"serve": serve, "ask": ask, "put": put, "hold": hold}[sys.argv[1]](*sys.argv[2:])
