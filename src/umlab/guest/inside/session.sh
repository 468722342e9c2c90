# Runs one command of a session after the other; the arguments are its number and the first command's serial.
busybox=/run/umlab/busybox
cd /run/umlab || exit
shell=/bin/sh
[ -x $shell ] || shell="$busybox sh"
# A shell that has the other programs in it runs them by a fork alone, at a third of the price.
box=$busybox PATH=
! command -v cat >/dev/null || box=
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root TERM=dumb
n=$1 from=$2

# Copies what the host sends on the session's line, piece by piece, to standard output.  A reader that has gone
# away is no reason to stop: what was sent has to be taken from the line.
feed() {
	trap '' PIPE TERM HUP
	while read -r kind what <&4; do
		case "$kind" in
		line) $box dd "bs=$what" count=1 iflag=fullblock <&4 ;;
		file) $box dd bs=1M if="share/$what" 2>/dev/null ;;
		end) return ;;
		esac
		echo "$n more" >&3
	done
}

# Starts what copies commands' output to the lines, which lasts for 20 of them.  Each stream has two pipes,
# which commands have in turn: a copier goes on to the next one when the last one has no writer any more, so
# one that can be opened for writing tells that all that was written to the other one has been copied.
copy() {
	outs= errs= left=20
	for each in 1 2 3 4 5 6 7 8 9 10; do
		outs="$outs $n.out$pipe $n.out$((1 - pipe))" errs="$errs $n.err$pipe $n.err$((1 - pipe))"
	done
	# Not $box: whoever kills all that is called cat does not mean these.
	$busybox cat $outs >&4 3>&- 5>&- 7>&- 8>&- 2>/dev/null &
	copiers=$!
	$busybox cat $errs >&5 3>&- 4>&- 7>&- 8>&- 2>/dev/null &
	copiers="$copiers $!"
	echo $((1 - pipe)) $copiers >$n.copiers
}

# Makes pipes that nobody has open yet.
renew() {
	pipe=0
	[ ! -p $n.out0 ] || $box rm -f $n.out[01] $n.err[01] $n.cut
	$box mkfifo $n.out0 $n.out1 $n.err0 $n.err1
	copy
	exec 7>$n.out0 8>$n.err0
}

# Keys that somebody has typed for an earlier kernel are nobody's.
trap '' INT QUIT TSTP
exec 3>/dev/ttyS0 4<>/dev/ttyS$((2 * n - 1)) 5<>/dev/ttyS$((2 * n)) 7>/dev/null 8>/dev/null
$box stty raw -echo <&4
$box stty raw -echo <&5
trap - INT QUIT TSTP
renew
: >$n.pending
while :; do
	: >$n.pid
	echo "$n end" >&3
	serial=-1
	until [ "$word" = run ] && [ "$serial" -ge "$from" ]; do
		read -r word serial input rows columns kind script <&4 || exit
		if [ "$word" = settle ]; then
			# This waits until all that was written to the line is with the host.
			$box stty raw -echo </dev/ttyS$((2 * n - 2 + serial))
			echo "$n settled" >&3
		fi
	done
	word=
	# Of its own group systemd ends all when one of it was killed for want of memory.
	if [ -z "$moved" ] && [ -d /sys/fs/cgroup/init.scope ]; then
		moved=1
		[ -d /sys/fs/cgroup/umlab ] || $box mkdir /sys/fs/cgroup/umlab
		for each in $$ $copiers; do echo $each >/sys/fs/cgroup/umlab/cgroup.procs; done
	fi
	case "$kind" in
	line)
		size=$script script=/run/umlab/$n.script
		: >$script
		while [ "$size" -gt 0 ]; do
			piece=$((size < 2048 ? size : 2048)) size=$((size - 2048))
			$box dd bs=$piece count=1 iflag=fullblock <&4 >>$script
			echo "$n more" >&3
		done
		;;
	file) script=/run/umlab/share/$script ;;
	esac
	if [ ! -r $script ]; then
		echo "umlab: the guest has lost /run/umlab, no command can run in it" >&8
		input=lost
	fi
	case "$input" in
	tty)
		$box stty sane rows "$rows" cols "$columns" <&4
		$box setsid -c $shell $script <&4 3>&- 4>&- 5>&- 7>&- 8>&-
		status=$?
		# The terminal has been hung up: nothing that the command has left behind writes to it any more.
		exec 4<>/dev/ttyS$((2 * n - 1))
		$box stty raw -echo <&4
		left=2
		;;
	pipe)
		[ -p $n.in ] || $box mkfifo $n.in
		feed >$n.in 5>&- 7>&- 8>&- &
		feeder=$!
		echo $((1 - pipe)) $copiers $feeder >$n.copiers
		$box setsid $shell $script <$n.in 3>&- 4>&- 5>&-
		status=$?
		;;
	lost) status=125 ;;
	*)
		$box setsid $shell $script </dev/null 3>&- 4>&- 5>&-
		status=$?
		;;
	esac
	exec 7>&- 8>&-
	echo "$n exit $status" >&3
	[ "$input" != pipe ] || wait $feeder
	pipe=$((1 - pipe)) left=$((left - 1))
	exec 7>$n.out$pipe 8>$n.err$pipe
	if [ -e $n.cut ]; then
		read -r _ copiers <$n.copiers
		kill -KILL $copiers
		renew
	elif [ $left = 1 ]; then
		kill -KILL $copiers
		copy
	else
		echo $((1 - pipe)) $copiers >$n.copiers
	fi
done
