//! ICMP errors between realms.
