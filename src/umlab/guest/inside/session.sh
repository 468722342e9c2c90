# Runs one command of a session after the other; the arguments are its number and the first command's serial.
box=/run/umlab/busybox
cd /run/umlab || exit
shell=/bin/sh
[ -x $shell ] || shell="$box sh"
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

# Waits until all that a dd has written to a line is with the host, whose socket takes more than two writes.
settle() {
	writes=3
	while read -r records _ word; do
		[ "$word" != out ] || writes=$((records))
	done <"$1"
	[ "$writes" -le 2 ] || $box stty raw -echo <"$2"
}

# Keys that somebody has typed for an earlier kernel are nobody's.
trap '' INT QUIT TSTP
exec 3>/dev/ttyS0 4<>/dev/ttyS$((2 * n - 1)) 5<>/dev/ttyS$((2 * n))
$box stty raw -echo <&4
$box stty raw -echo <&5
trap - INT QUIT TSTP
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
	serial=-1
	until [ "$word" = run ] && [ "$serial" -ge "$from" ]; do
		read -r word serial input rows columns kind script <&4 || exit
	done
	word=
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
		# The terminal has been hung up: nothing that the command has left behind writes to it any more.
		exec 4<>/dev/ttyS$((2 * n - 1))
		$box stty raw -echo <&4
		;;
	pipe)
		feed >$n.in 5>&- 7>&- 8>&- &
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
	settle $n.outs /dev/ttyS$((2 * n - 1))
	settle $n.errs /dev/ttyS$((2 * n))
	echo "$n end" >&3
done
