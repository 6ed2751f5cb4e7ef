//! The virtual gateway: answers ARP, NDP, RS, DHCP and echo for an attachment, one short file per protocol.
