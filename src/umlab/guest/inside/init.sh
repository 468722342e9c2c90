#!/bin/busybox sh
# Process 1 of every root of ours, from the initramfs.  It never powers off or reboots: run as a host process
# by accident, that would end the host.  The guest is ended from outside.
export PATH=/bin HOME=/ TERM=dumb
# Words of the command line that the kernel has left to us.
unset mem uml_dir
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev 2>/dev/null
mount -t tmpfs tmpfs /run
say() { echo "umlab: $*" >/dev/console; }
# Process 1 that ends is the kernel's end.
fail() {
	say "$*"
	exit 1
}

# What the host says on the kernel's command line.  No name or path in it has a blank.
root=tiny name=guest share= init= shared= modules= here=
set -f
for word in $(cat /proc/cmdline); do
	case "$word" in
	umlab.root=*) root=${word#*=} ;;
	umlab.name=*) name=${word#*=} ;;
	umlab.share=*) share=${word#*=} ;;
	umlab.init=*) init=${word#*=} ;;
	umlab.shared=*) shared="$shared ${word#*=}" ;;
	umlab.modules=*) modules=${word#*=} ;;
	umlab.here=*) here=${word#*=} ;;
	esac
done
set +f
hostname "$name"
while read -r module; do
	insmod "$module" || say "cannot load $module"
done </etc/modules
ip link set lo up

# The root file system, in /new.
new=/new
case "$root" in
tiny)
	# This one's files would take all memory, and what runs with it.
	mount -t tmpfs -o mode=0755 tmpfs $new
	mkdir $new/bin $new/etc $new/lib $new/mnt $new/root $new/var
	mount --bind /bin $new/bin
	mount --bind /lib $new/lib
	ln -s bin $new/sbin
	cp /etc/* $new/etc/
	;;
host)
	mkdir -p /host /layer
	mount -t hostfs -o / none /host -o ro || fail "this kernel has no hostfs"
	mount -t tmpfs tmpfs /layer
	mkdir /layer/upper /layer/work
	if ! mount -t overlay -o lowerdir=/host,upperdir=/layer/upper,workdir=/layer/work none $new 2>/dev/null; then
		say "this kernel has no overlay: only /tmp, /var/tmp and /run can be written to"
		mount --bind /host $new
		for each in tmp var/tmp; do
			[ ! -d $new/$each ] || mount -t tmpfs -o mode=1777 tmpfs $new/$each
		done
		# Where the host's user is shall be there.
		case "$here" in
		/tmp/* | /var/tmp/*) mkdir -p "$new$here" && mount --bind "/host$here" "$new$here" ;;
		esac
	fi
	# A link to what the host's programs make in /run, which is the guest's own.
	[ ! -L $new/etc/resolv.conf ] || cp --remove-destination /host/etc/resolv.conf $new/etc/resolv.conf 2>/dev/null
	# Where modprobe looks for what the initramfs has not loaded.
	if [ -n "$modules" ]; then
		mkdir -p $new/lib/modules && ln -sfn "$modules" "$new/lib/modules/$(uname -r)"
	fi 2>/dev/null
	;;
disk)
	mount /dev/ubda $new || fail "cannot mount the disk: it has no file system that this kernel knows, or is damaged"
	;;
esac
for each in proc sys dev run tmp; do
	[ -d $new/$each ] || mkdir $new/$each
done
mount --move /proc $new/proc
mount --move /sys $new/sys
mount --move /dev $new/dev
mount --move /run $new/run
[ -x $new/bin/sh ] || say "there is no /bin/sh in this root"
mkdir -p $new/dev/pts $new/dev/shm $new/run/umlab/share
mount -t devpts -o mode=0620,gid=5,ptmxmode=0666 devpts $new/dev/pts
mount -t tmpfs -o mode=1777 tmpfs $new/dev/shm
ln -sf /proc/self/fd $new/dev/fd
for each in 0:stdin 1:stdout 2:stderr; do ln -sf /proc/self/fd/${each%:*} $new/dev/${each#*:}; done
cp /bin/busybox /umlab/* $new/run/umlab/
mkfifo $new/run/umlab/alive
# After what is mounted above: a folder may be below /run or /dev.
for each in $shared; do
	mkdir -p "$new$each"
	mount -t hostfs -o "$each" none "$new$each" || say "cannot share $each"
done
if [ -n "$share" ]; then
	mount -t hostfs -o "$share" none $new/run/umlab/share 2>/dev/null && touch $new/run/umlab/shared
fi

# What runs in the root.  Not with "&": a shell's background jobs would ignore the interrupt signal, and all
# they start.
start() { start-stop-daemon -S -b -n "umlab-$1" -x /bin/busybox -- chroot $new /run/umlab/busybox sh "/run/umlab/$1"; }
if [ -n "$init" ] && ! chroot $new /run/umlab/busybox test -x "$init"; then
	fail "there is no $init in this root that could be run"
fi
start agent
if [ -n "$init" ]; then
	# What it is started with is gone after that.
	turns=500
	while [ ! -e $new/run/umlab/begun ] && [ $((turns -= 1)) -gt 0 ]; do usleep 10000; done
	exec switch_root $new "$init" </dev/console >/dev/console 2>&1
fi
# A shell on the second console, where the host has given it a terminal.
case " $(cat $new/proc/cmdline) " in
*" con1=fd:"*) start terminal ;;
esac

# Ctrl-alt-del from the management console: end the programs, keep the machine.
echo 0 >$new/proc/sys/kernel/ctrl-alt-del
down=
go_down() {
	trap '' INT
	down=1
	# Held first: kernel 6.12 panics of a program that is killed in the middle of a fork.
	kill -STOP -1
	usleep 20000
	kill -TERM -1
	kill -CONT -1
	sleep 0.2
	kill -STOP -1
	usleep 20000
	kill -KILL -1
	sync
	echo "umlab: guest is down" >$new/dev/console
}
trap go_down INT
agent_is_alive() {
	read -r agent && read -r _ _ state _ <$new/proc/"$agent"/stat && [ "$state" != Z ]
} <$new/run/umlab/agent.pid
# A trap runs at once during "wait", and "wait" also takes in orphans that have ended.  What is waited for ends
# with the agent, which has the other end of the pipe.
while :; do
	if [ -p $new/run/umlab/alive ]; then
		cat $new/run/umlab/alive &
	else
		sleep 1000000 &
	fi
	wait $!
	if [ -z "$down" ] && ! agent_is_alive 2>/dev/null; then
		say "the agent was killed"
		start agent
	fi
done
