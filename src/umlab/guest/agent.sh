# The guest's end of the serial lines; umlab.guest.agent is the other one and says what goes over them.
box=/run/umlab/busybox
cd /run/umlab || exit
# A serial line stays open in one of our shells: the kernel gives it up when it is closed for the last time.
exec 3<>/dev/ttyS0 2>/dev/null
$box stty raw -echo <&3

# Ends a session with all that it runs, and takes what the host has sent from its line.
clear() {
	read -r shell <$1.shell
	read -r command _ <$1.pid
	read -r copiers <$1.copiers
	kill -KILL $shell $copiers
	[ -z "$command" ] || kill -KILL -- "-$command"
	while kill -0 $shell; do $box usleep 20000; done
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
		# Not with "&": commands would ignore the interrupt signal.
		$box start-stop-daemon -S -b -m -p $n.shell -x $box -- sh session $n
		sessions="$sessions $n"
		;;
	signal)
		# A command looks for this when it has written down its numbers.
		echo "$what $more" >$n.pending
		read -r command serial <$n.pid && [ "$serial" = "$more" ] && kill -s "$what" -- -$command
		;;
	size) $box stty rows "$what" cols "$more" </dev/ttyS$((2 * n - 1)) ;;
	cut)
		read -r copiers <$n.copiers
		read -r _ serial <$n.pid && [ "$serial" = "$what" ] && kill -KILL $copiers
		;;
	reset)
		for each in $sessions; do clear $each & done
		wait
		sessions=
		echo "0 reset $n $how" >&3
		;;
	esac
done
