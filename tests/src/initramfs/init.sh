#!/bin/busybox sh
# Process 1 of a test guest. It brings up the kernel, then runs the commands that come in on the second serial port, one
# a line: "ID BYTES COMMAND", BYTES the length of the command. Each is answered by its output and a last line "=ID STATUS", and repeated on the console.

export PATH=/bin HOME=/root
busybox mount -t proc proc /proc
busybox mount -t sysfs sys /sys
busybox mount -t devtmpfs dev /dev
exec >/dev/console 2>&1 </dev/console
while read -r module; do insmod "$module"; done </etc/modules
ip link set lo up
ip link set eth0 up

# A machine with one serial port takes no commands: it pings the address that it was given, if any.
if grep -q only-console /proc/cmdline; then
    echo "guest: ready ($(uname -r))"
    target=$(sed -n 's/.* talk=\([^ ]*\).*/\1/p' /proc/cmdline)
    [ -n "$target" ] && udhcpc -i eth0 -f -q -n -t 20 -T 1 -O staticroutes -s /etc/udhcpc.sh
    while [ -n "$target" ]; do ping -i 0.2 "$target"; done
    while :; do sleep 60; done
fi

stty -F /dev/ttyS1 raw -echo
exec 3<>/dev/ttyS1
echo "guest: ready ($(uname -r))"
echo "=ready 0" >&3
while read -r id bytes command <&3; do
    # The port may lose what comes while the machine is busy.
    if [ "${#command}" != "$bytes" ]; then
        echo "guest: a garbled line: $id $bytes $command"
        echo "=garbled 0" >&3
        continue
    fi
    echo "guest# $command"
    sh -c "$command" >/tmp/output 2>&1 </dev/null 3>&-
    status=$?
    cat /tmp/output
    cat /tmp/output >&3
    echo "=$id $status" >&3
done
echo "guest: the harness is gone"
poweroff -f
