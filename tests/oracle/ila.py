"""Addresses of draft-herbert-nvo3-ila-02 and one's complement arithmetic, over Python integers.

Written from the draft (sections 3, 4.4 and 5), RFC 1071 and RFC 1624, not from the program under test: where the two agree,
two readings of the same text agree. All words are 16 bits in network byte order; word 0 of an address is its first.
"""

from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Address, IPv6Network

TYPE_IPV4 = 2
TYPE_IPV6 = 3
C_BIT = 0x1000  # in word 4: bit 67 of the address


def words(data):
    """The 16-bit words of `data` (bytes); an odd last byte is padded with zero (RFC 1071)."""
    data = bytes(data)
    if len(data) % 2:
        data += b"\0"
    return [int.from_bytes(data[i : i + 2], "big") for i in range(0, len(data), 2)]


def ones_sum(values):
    """The one's complement sum of 16-bit words: 0 only when all are 0, else 1..0xffff."""
    total = sum(values)
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total


def complement(word):
    """One's complement negation."""
    return word ^ 0xFFFF


def of_words(values):
    """The IPv6 address of eight words."""
    return IPv6Address(b"".join(value.to_bytes(2, "big") for value in values))


@dataclass(frozen=True)
class Network:
    """A virtual network."""

    name: str
    vni: int
    ipv4: IPv4Network | None
    ipv6: IPv6Network | None


@dataclass(frozen=True)
class Domain:
    """One SIR prefix and how its hosts send."""

    sir: IPv6Network
    neutral: bool

    def sir_address(self, network, tenant):
        """SIR:(VNI:VA), the IPv6 address that stands for a tenant's IPv4 address (sections 3.6, 5.12.2). C is 0."""
        identifier = TYPE_IPV4 << 61 | network.vni << 32 | int(tenant)
        return IPv6Address(int(self.sir.network_address) | identifier)

    def endpoint_address(self, network, tenant):
        """The IPv6 address that transport checksums are for: a tenant's own, or SIR:(VNI:VA) for IPv4."""
        return self.sir_address(network, tenant) if tenant.version == 4 else tenant

    def ila_address(self, locator, network, tenant):
        """L:(VNI:VA) or L:(VNI:VAX) as sent to `tenant`, whose host has `locator` (sections 3.6, 3.7, 4.4).

        The low word is solved for, not copied from the steps of section 4.4.1 (they are not neutral when read literally):
        it is the one that leaves the sum over the eight words as it was for the endpoint's address. 0xffff is never sent
        with C set, because 0x0000 would be sent alike.
        """
        kind = TYPE_IPV4 if tenant.version == 4 else TYPE_IPV6
        value = int(tenant) & 0xFFFFFFFF
        plain = IPv6Address(int(locator.network_address) | kind << 61 | network.vni << 32 | value)
        if not self.neutral or value & 0xFFFF == 0xFFFF:
            return plain
        old = words(self.endpoint_address(network, tenant).packed)
        new = words(plain.packed)[:7]
        new[4] |= C_BIT
        low = ones_sum(old + [complement(word) for word in new])
        return of_words(new + [low])

    def restored(self, locators, networks, address):
        """The endpoint's address of `address` as seen on the wire; any other address as it is."""
        value = address.packed
        locator = IPv6Network((value[:8] + bytes(8), 64))
        kind, c_bit = value[8] >> 5, value[8] & 0x10
        vni = int.from_bytes(value[8:12], "big") & 0x0FFFFFFF
        network = next((network for network in networks if network.vni == vni), None)
        if locator not in locators or kind not in (TYPE_IPV4, TYPE_IPV6) or network is None:
            return address
        prefix = network.ipv6 if kind == TYPE_IPV6 else IPv6Network((int(self.sir_address(network, 0)), 96))
        upper = words(prefix.network_address.packed)[:6]
        here = words(value)
        if not c_bit:
            return of_words(upper + here[6:])
        # Word 6 is the same on both sides, so it is left out of both sums.
        low = ones_sum(here[:6] + here[7:] + [complement(word) for word in upper])
        return of_words(upper + [here[6], 0 if low == 0xFFFF else low])
