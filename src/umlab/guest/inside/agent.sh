# The guest's end of the serial lines; umlab.guest.agent is the other one and says what goes over them.
box=/run/umlab/busybox
cd /run/umlab || exit
# A guest without memory has no other way to say so.
echo -1000 >/proc/self/oom_score_adj
exec 9<>alive
echo $$ >agent.pid
: >begun
# A serial line stays open in one of our shells: the kernel gives it up when it is closed for the last time.
exec 3<>/dev/ttyS0 2>/dev/null
$box stty raw -echo <&3

# Sends processes, or groups, a signal.  What may end them is sent to programs that are held: kernel 6.12 panics
# of one that is killed in the middle of a fork.
hit() {
	name=$1
	shift
	case "$name" in
	STOP | TSTP | CONT | WINCH) kill -s $name -- "$@" ;;
	*)
		kill -STOP -- "$@"
		$box usleep 20000
		kill -s $name -- "$@"
		kill -CONT -- "$@"
		;;
	esac
}

# Ends a session with all that it runs, and takes what the host has sent from its line.
clear() {
	read -r shell <$1.shell
	read -r command _ <$1.pid
	read -r _ copiers <$1.copiers
	hit KILL $shell $copiers
	[ -z "$command" ] || hit KILL -$command
	while kill -0 $shell; do $box usleep 20000; done
	$box timeout -s KILL 0.2 $box cat </dev/ttyS$((2 * $1 - 1)) >/dev/null
	$box rm -f $1.*
}

# What an agent that was killed has left running.
for each in *.shell; do
	[ ! -e "$each" ] || clear "${each%.shell}"
done
# With files of the host's in share/ the pieces may be large.
how=line
[ ! -e shared ] || how=file
read -r boot </proc/sys/kernel/random/boot_id || boot=$($box date +%s)
# After what the line has echoed until now.
greet() { printf '\n%s\n' "umlab-agent 2 $how $boot $$" >&3; }
greet
# What an earlier kernel has not read is still in the line, and was not for us.
until [ "$verb $n $what" = "begin $boot $$" ]; do
	read -r verb n what more <&3 || exit
	# The line has a new owner, who has not heard it.
	[ "$verb" != reset ] || greet
done
sessions=
while read -r verb n what more <&3; do
	case "$verb" in
	open)
		# Not with "&": commands would ignore the interrupt signal.
		$box start-stop-daemon -S -b -m -p $n.shell -x $box -- sh session $n "$what" 9>&-
		sessions="$sessions $n"
		;;
	signal)
		# A command looks for this when it has written down its numbers.
		echo "$what $more" >$n.pending
		read -r command serial <$n.pid && [ "$serial" = "$more" ] && hit "$what" -$command
		echo "$n heard" >&3
		;;
	size) $box stty rows "$what" cols "$more" </dev/ttyS$((2 * n - 1)) ;;
	cut)
		read -r next copiers <$n.copiers
		if read -r _ serial <$n.pid && [ "$serial" = "$what" ]; then
			: >$n.cut
			kill -KILL $copiers
			# The session's shell waits for those who are to copy what the next command writes.
			$box cat $n.out$next $n.out$((1 - next)) >/dev/ttyS$((2 * n - 1)) 3>&- 9>&- &
			copiers=$!
			$box cat $n.err$next $n.err$((1 - next)) >/dev/ttyS$((2 * n)) 3>&- 9>&- &
			echo $next $copiers $! >$n.copiers
		fi
		;;
	reset)
		for each in $sessions; do clear $each & done
		wait
		sessions=
		echo "0 reset $n $how" >&3
		;;
	esac
done
