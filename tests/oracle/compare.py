"""Finds what was expected in what was captured, byte by byte, and says where they differ, field by field."""

from contextlib import closing

from scapy.utils import RawPcapReader

from ila import ones_sum, words


def read(path):
    """The packets of a pcap or pcapng file, as bytes."""
    with closing(RawPcapReader(str(path))) as reader:
        return [data for data, _ in reader]


def interfaces(path):
    """{name of an interface: its frames} of a pcapng file with one section in the order of this machine; scapy tells no names."""
    data, names, frames, at = path.read_bytes(), [], {}, 0
    while at < len(data):
        kind, length = (int.from_bytes(data[start : start + 4], "little") for start in (at, at + 4))
        body, at = data[at + 8 : at + length - 4], at + length
        if kind == 1:
            names.append(option(body[8:], 2).decode())
            frames[names[-1]] = []
        if kind == 6:
            interface, size = (int.from_bytes(body[start : start + 4], "little") for start in (0, 12))
            frames[names[interface]].append(body[20 : 20 + size])
    return frames


def option(options, wanted):
    """The value of the option `wanted` of a pcapng block."""
    while options:
        code, length = (int.from_bytes(options[start : start + 2], "little") for start in (0, 2))
        if code == wanted:
            return options[4 : 4 + length]
        options = options[4 + (length + 3) // 4 * 4 :]
    raise ValueError(f"no option {wanted}")


def settled(frame):
    """`frame` with what its sender may choose settled: the identification of an unfragmented IPv4 packet is 0, also of one that an
    ICMP error quotes.

    The checksums over it must be right as they came; a wrong one is left to be found.
    """
    if frame[12:14] != b"\x08\x00":
        return frame
    packet = frame[14:]
    size = (packet[0] & 15) * 4
    if packet[9] == 1 and packet[20] in (3, 11) and size == 20 and ones_sum(words(packet[20:])) == 0xFFFF:
        icmp = packet[20:22] + b"\0\0" + packet[24:28] + unidentified(packet[28:])
        packet = packet[:20] + icmp[:2] + (ones_sum(words(icmp)) ^ 0xFFFF).to_bytes(2, "big") + icmp[4:]
    return frame[:14] + unidentified(packet)


def unidentified(packet):
    """An IPv4 packet with identification 0, if it is no fragment and its header checksum is right."""
    header, rest = packet[: (packet[0] & 15) * 4], packet[(packet[0] & 15) * 4 :]
    if int.from_bytes(header[6:8], "big") & 0x3FFF or ones_sum(words(header)) != 0xFFFF:
        return packet
    header = header[:4] + b"\0\0" + header[6:10] + b"\0\0" + header[12:]
    return header[:10] + (ones_sum(words(header)) ^ 0xFFFF).to_bytes(2, "big") + header[12:] + rest


def compare(expected, captured, layer):
    """Complaints about `captured` (list of bytes), where `expected` is a list of (flow, name, bytes).

    Each expected packet must be there once and nothing else may; packets of one flow must be in order.
    """
    left = dict(enumerate(captured))
    places = {}
    missing, complaints = [], []
    for flow, name, data in expected:
        place = next((index for index, seen in left.items() if seen == data), None)
        if place is None:
            missing.append((name, data))
            continue
        del left[place]
        if place < places.get(flow, -1):
            complaints.append(f"{name}: overtaken by a later packet of its flow")
        places[flow] = place
    for name, data in missing:
        nearest = max(left, key=lambda index: likeness(left[index], data), default=None)
        if nearest is None or likeness(left[nearest], data) < 0.5:
            complaints.append(f"{name}: missing\n    expected {data.hex()}")
            continue
        complaints.append(f"{name}: differs\n" + "\n".join(differences(data, left.pop(nearest), layer)))
    complaints += [f"unexpected: {layer(data).summary()}\n    captured {data.hex()}" for data in left.values()]
    return complaints


def likeness(one, other):
    """From 0 to 1: which part of the bytes is the same."""
    return sum(a == b for a, b in zip(one, other)) / max(len(one), len(other), 1)


def fields(packet):
    """(layer, field, value) of each field of a dissected packet."""
    while packet:
        for field in packet.fields_desc:
            yield type(packet).__name__, field.name, packet.getfieldval(field.name)
        packet = packet.payload


def differences(expected, captured, layer):
    """One line for each field that is not the same, or for the first byte where the fields do not tell."""
    pairs = zip(fields(layer(expected)), fields(layer(captured)))
    lines = [
        f"    {name}.{field}: expected {value!r:.80}, captured {other!r:.80}"
        for (name, field, value), (_, _, other) in pairs
        if value != other
    ]
    if len(expected) != len(captured):
        lines.append(f"    length: expected {len(expected)}, captured {len(captured)}")
    if not lines:
        at = next(index for index, (a, b) in enumerate(zip(expected, captured)) if a != b)
        lines.append(f"    byte {at}: expected {expected[at]:#04x}, captured {captured[at]:#04x}")
    return [*lines, f"    expected {expected.hex()}", f"    captured {captured.hex()}"]
