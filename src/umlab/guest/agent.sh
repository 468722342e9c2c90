#!/bin/busybox sh
# The guest's end of the command channel on the first serial line; umlab.guest.agent is the other and
# says how they talk.
exec 3<>/dev/ttyS0
output=/run/umlab.output
script=/run/umlab.command
echo "umlab-agent 1" >&3
while read -r limit left <&3; do
	: >$script
	while [ "$left" -gt 0 ]; do
		size=$((left < 2048 ? left : 2048))
		dd bs=$size count=1 iflag=fullblock <&3 2>/dev/null >>$script
		left=$((left - size))
		echo more >&3
	done
	timeout -s KILL "$limit" sh $script </dev/null >$output 2>&1 3>&-
	echo "$? $(wc -c <$output)" >&3
	cat $output >&3
done
