#!/bin/busybox sh
# Called by udhcpc: sets what the lease says, and says it on standard output.
[ "$1" = bound ] || [ "$1" = renew ] || exit 0
echo "dhcp: ip=$ip mask=$mask router=$router mtu=$mtu dns=$dns domain=$domain hostname=$hostname lease=$lease server=$serverid staticroutes=$staticroutes"
ip addr flush dev "$interface" scope global
ip addr add "$ip/$mask" dev "$interface"
[ -n "$mtu" ] && ip link set "$interface" mtu "$mtu"
if [ -n "$staticroutes" ]; then
    # RFC 3442: with option 121, option 3 is not used. Pairs of destination and gateway.
    set -- $staticroutes
    while [ $# -ge 2 ]; do
        if [ "$2" = 0.0.0.0 ]; then ip route add "$1" dev "$interface"; else ip route add "$1" via "$2" dev "$interface" onlink; fi
        shift 2
    done
elif [ -n "$router" ]; then
    ip route add default via "$router" dev "$interface"
fi
exit 0
