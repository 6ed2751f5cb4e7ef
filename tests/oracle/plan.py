"""The plan of a site as the tests write it: hosts, networks, attachments. Shape:

{"sir": "2001:db8:51::/64", "checksum": "neutral", "uplink_mtu": 1500,
 "hosts": {"hv1": "2001:db8:0:1::/64", ...},
 "networks": {"blue": {"vni": 1001, "ipv4": "10.0.0.0/8", "ipv6": "2001:db8:b1:e::/96"}, ...},
 "attachments": {"vm1": {"host": "hv1", "network": "blue", "mac": "52:54:00:00:00:01", "addresses": ["10.1.0.1", ...]}, ...}}
"""

import json
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address

from ila import Domain, Network

GATEWAY_MAC = "02:49:4c:41:00:01"


@dataclass(frozen=True)
class Attachment:
    """A tenant's NIC."""

    name: str
    host: str
    network: Network
    mac: str
    addresses: tuple


class Plan:
    """What both ends know."""

    def __init__(self, text):
        raw = json.loads(text)
        self.domain = Domain(IPv6Network(raw["sir"]), neutral={"neutral": True, "unmodified": False}[raw["checksum"]])
        self.uplink_mtu = raw["uplink_mtu"]
        self.locators = {host: IPv6Network(prefix) for host, prefix in raw["hosts"].items()}
        self.networks = {
            name: Network(name, network["vni"], IPv4Network(network["ipv4"]), IPv6Network(network["ipv6"]))
            for name, network in raw["networks"].items()
        }
        self.attachments = {
            name: Attachment(
                name, raw["host"], self.networks[raw["network"]], raw["mac"], tuple(map(ip_address, raw["addresses"]))
            )
            for name, raw in raw["attachments"].items()
        }

    def holder(self, network, address):
        """The attachment of `network` that has `address`, or None."""
        for attachment in self.attachments.values():
            if attachment.network == network and address in attachment.addresses:
                return attachment
        return None

    def is_gateway(self, network, address):
        """Whether the NVE speaks from `address` to tenants of `network`."""
        last_usable = network.ipv4[-2]
        return address in (last_usable, IPv6Address("fe80::1"), network.ipv6[-2])

    def is_ours(self, address):
        """Whether an address on the fabric is a locator's, a SIR address or a tenant's, a host's control address excepted."""
        prefixes = [*self.locators.values(), self.domain.sir, *(network.ipv6 for network in self.networks.values())]
        control = [prefix[1] for prefix in self.locators.values()]
        return address not in control and any(address in prefix for prefix in prefixes)
