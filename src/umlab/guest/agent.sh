#!/bin/busybox sh
# The guest's end of the command channel on the first serial line; umlab.guest.agent is the other and
# says how they talk.
exec 3<>/dev/ttyS0
output=/run/umlab.output
script=/run/umlab.command
echo "umlab-agent 1" >&3
while read -r number limit command <&3; do
	echo "$command" | base64 -d >$script
	timeout -s KILL "$limit" sh $script </dev/null >$output 2>&1 3>&-
	status=$?
	echo "$number $status $(wc -c <$output)" >&3
	cat $output >&3
done
