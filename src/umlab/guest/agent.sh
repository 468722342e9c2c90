# The guest's end of the serial lines; umlab.guest.agent is the other one and says what goes over them.
box=/run/umlab/busybox
cd /run/umlab || exit
shell=/bin/sh
[ -x $shell ] || shell="$box sh"
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root TERM=dumb

# A serial line stays open in one of our shells: the kernel gives it up when it is closed for the last time.
exec 3<>/dev/ttyS0 2>/dev/null
$box stty raw -echo <&3

# Copies what the host sends on the session's line, piece by piece, to standard output.  A reader that has gone
# away is no reason to stop: what was sent has to be taken from the line.
feed() {
	trap '' PIPE TERM HUP
	while read -r kind what <&4; do
		case "$kind" in
		line) $box dd "bs=$what" count=1 iflag=fullblock <&4 ;;
		file) $box cat "share/$what" ;;
		end) return ;;
		esac
		echo "$1 more" >&3
	done
}

# Waits until all that a dd has written to a line is with the host, whose socket takes more than two writes.
settle() {
	writes=3
	while read -r records _ word; do
		[ "$word" != out ] || writes=$((records))
	done <"$1"
	[ "$writes" -le 2 ] || $box stty raw -echo <"$2"
}

# Runs one command of a session after the other.
session() {
	n=$1
	exec 4<>/dev/ttyS$((2 * n - 1)) 5<>/dev/ttyS$((2 * n))
	$box stty raw -echo <&4
	$box stty raw -echo <&5
	$box mkfifo $n.in $n.out $n.err
	: >$n.pid
	: >$n.pending
	echo "$n end" >&3
	while :; do
		# Copiers that wait already are not waited for when a command comes.
		$box dd bs=64k <$n.out >&4 2>$n.outs 3>&- 5>&- &
		out=$!
		$box dd bs=64k <$n.err >&5 2>$n.errs 3>&- 4>&- &
		err=$!
		exec 7>$n.out 8>$n.err
		echo $out $err >$n.copiers
		read -r word input rows columns kind script <&4 || exit
		[ "$word" = run ] || continue
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
		case "$input" in
		tty)
			$box stty sane rows "$rows" cols "$columns" <&4
			$box setsid -c $shell $script 0<&4 1>&4 2>&4 3>&- 4>&- 5>&- 7>&- 8>&-
			status=$?
			# What it has left behind would write into the next command's output.
			read -r left <$n.pid && $box pkill -KILL -s "$left"
			# Waits until all output is with the host.
			$box stty raw -echo <&4
			;;
		pipe)
			feed $n >$n.in 5>&- 7>&- 8>&- &
			feeder=$!
			echo $out $err $feeder >$n.copiers
			$box setsid $shell $script <$n.in 1>&7 2>&8 3>&- 4>&- 5>&- 7>&- 8>&-
			status=$?
			;;
		*)
			$box setsid $shell $script </dev/null 1>&7 2>&8 3>&- 4>&- 5>&- 7>&- 8>&-
			status=$?
			;;
		esac
		exec 7>&- 8>&-
		echo "$n exit $status" >&3
		[ "$input" != pipe ] || wait $feeder
		wait $out $err
		: >$n.pid
		: >$n.pending
		settle $n.outs /dev/ttyS$((2 * n - 1))
		settle $n.errs /dev/ttyS$((2 * n))
		echo "$n end" >&3
	done
}

# Ends a session with all that it runs, and takes what the host has sent from its line.
clear() {
	read -r shells <$1.shell
	read -r command <$1.pid
	read -r copiers <$1.copiers
	kill -KILL $shells $copiers
	[ -z "$command" ] || kill -KILL -- "-$command"
	wait $shells
	$box timeout -s KILL 0.2 $box cat </dev/ttyS$((2 * $1 - 1)) >/dev/null
	$box rm -f $1.*
}

# With files of the host's in share/ the pieces may be large.
how=line
[ ! -e shared ] || how=file
echo "umlab-agent 2 $how" >&3
sessions=
while read -r verb n what more <&3; do
	case "$verb" in
	open)
		session $n &
		echo $! >$n.shell
		sessions="$sessions $n"
		;;
	signal)
		# A command looks for this when it has written down its number.
		echo "$what" >$n.pending
		read -r command <$n.pid && kill -s "$what" -- -$command
		;;
	size) $box stty rows "$what" cols "$more" </dev/ttyS$((2 * n - 1)) ;;
	cut)
		read -r copiers <$n.copiers && kill -KILL $copiers
		;;
	reset)
		for each in $sessions; do clear $each; done
		sessions=
		echo "0 reset $n $how" >&3
		;;
	esac
done
