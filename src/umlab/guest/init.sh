#!/bin/busybox sh
# Process 1 of the tiny root.  It never powers off or reboots: run as a host process by accident, that
# would end the host.  The guest is ended from outside.
export PATH=/bin HOME=/ TERM=dumb
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev 2>/dev/null
mkdir -p /dev/pts /dev/shm
mount -t devpts devpts /dev/pts
mount -t tmpfs tmpfs /run
ln -sf /proc/self/fd /dev/fd
hostname -F /etc/hostname
while read -r module; do
	insmod "$module" || echo "umlab: cannot load $module" >/dev/console
done </etc/modules
ip link set lo up

# Ctrl-alt-del from the management console: end the programs, keep the machine.
echo 0 >/proc/sys/kernel/ctrl-alt-del
go_down() {
	trap '' INT
	kill -TERM -1
	sleep 0.2
	kill -KILL -1
	sync
	echo "umlab: guest is down" >/dev/console
}
trap go_down INT

# The serial line stays open in this shell: the kernel gives it up when it is closed for the last time.
exec 3<>/dev/ttyS0
stty raw -echo <&3
# Not with "&": a shell's background jobs would ignore the interrupt signal, and all they start.
start-stop-daemon -S -b -x /bin/umlab-agent
# A shell on the second console, where the host has given it a terminal.
case " $(cat /proc/cmdline) " in
*" con1=fd:"*) start-stop-daemon -S -b -x /bin/umlab-terminal ;;
esac
# A trap runs at once during "wait", and "wait" also takes in orphans that have ended.
while :; do
	sleep 1000000 3>&- &
	wait $!
done
