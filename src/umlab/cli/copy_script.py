"""What a guest's shell does for a copy; the first lines set ``place``, the path that the user has written."""

from __future__ import annotations

import shlex

from umlab.guest.inside.archive import HOLES, PART_UNIT, PARTS

_BOX = "/run/umlab/busybox"

#: Makes a folder beside the place, where what comes is until it is whole.
_BEGIN = f"""
box={_BOX} failed=0
refuse() {{
	echo "$1: ${{2##*: }}" >&2
	exit 1
}}
if [ -d "$place" ]; then
	at=${{place%/}}/ name=
	[ "$place" != . ] || at=
elif [ "$only" = 1 ] && [ "${{place%/}}" = "$place" ]; then
	name=${{place##*/}}
	at=${{place%"$name"}}
else
	refuse "$place" "no such folder"
fi
cd -- "${{at:-.}}" 2>/dev/null || refuse "${{at%/}}" "no such folder"
new=.umlab-$$
said=$($box mkdir -m 700 $new 2>&1) || refuse "${{at:-.}}" "$said"
trap '$box rm -rf "$new"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP
"""
#: Puts what is whole in its place.  A folder that is there keeps what it has, and what cannot be put in its
#: place is told, and keeps nothing else from it.
_MOVE = """
complain() {
	echo "$at${1#./}: ${2##*: }" >&2
	failed=1
}
device() { $box stat -L -c %d "$1"; }
merge() {
	from=$1
	if [ "$(device "$1")" != "$(device "$2")" ]; then
		# Nothing is renamed into another file system: what goes there is whole there first.
		from=$2/$new
		trap '$box rm -rf "$from"' EXIT
		trap 'exit 143' INT TERM HUP
		said=$($box cp -a "$1" "$from" 2>&1) || { complain "$2" "$said"; exit 1; }
	fi
	for each in "$from"/* "$from"/.[!.]* "$from"/..?*; do
		[ ! -e "$each" ] && [ ! -L "$each" ] || move "$each" "$2/${each##*/}"
	done
	exit $failed
}
move() {
	if [ -d "$1" ] && [ ! -L "$1" ]; then
		if [ -d "$2" ]; then
			(merge "$1" "$2") || failed=1
			return
		elif [ -e "$2" ] || [ -L "$2" ]; then
			complain "$2" "is no folder"
			return
		fi
	elif [ -d "$2" ] && [ ! -L "$2" ]; then
		complain "$2" "is a folder"
		return
	fi
	$box mv -fT "$1" "$2" 2>/dev/null || said=$($box mv -fT "$1" "$2" 2>&1) || complain "$2" "$said"
}
"""
_UNTAR = f"""{_BEGIN}{_MOVE}
fill() {{
	file=$1 size=$2 time=$3
	shift 3
	while [ $# -gt 0 ]; do
		part=$new/{PARTS}/$1 how="bs={PART_UNIT} seek=$2 conv=notrunc status=none"
		said=$($box dd if=$part of="$new/$file" $how 2>&1) || refuse "$at$file" "$said"
		$box rm $part
		shift 2
	done
	said=$($box truncate -s "$size" "$new/$file" 2>&1) || refuse "$at$file" "$said"
	said=$($box touch -d "@$time" "$new/$file" 2>&1) || refuse "$at$file" "$said"
}}
$box tar xpf - -C $new || exit 1
if [ -e $new/{HOLES} ]; then
	. ./$new/{HOLES}
	$box rm -rf $new/{HOLES} $new/{PARTS}
fi
for member in $new/* $new/.[!.]* $new/..?*; do
	[ ! -e "$member" ] && [ ! -L "$member" ] || move "$member" "./${{name:-${{member##*/}}}}"
done
exit $failed
"""
_STORE = f"""{_BEGIN}{_MOVE}
[ "$name" ] || refuse "$place" "is a folder"
$box cat >$new/content || exit 1
move $new/content "./$name"
exit $failed
"""
_TAR = f"""
if [ -d "$place" ]; then
	cd -- "$place" && exec {_BOX} tar cf - .
elif [ -e "$place" ]; then
	name=${{place##*/}}
	at=${{place%"$name"}}
	cd -- "${{at:-.}}" && exec {_BOX} tar chf - "./$name"
else
	echo "$place: no such file or folder" >&2
	exit 1
fi
"""
_FETCH = f'exec {_BOX} cat -- "$place"\n'


def unpacking(place: str, *, is_one: bool) -> str:
    """Return what unpacks an archive that comes, at a path.

    Args:
        place: The path.
        is_one: There is one member, whose new name the path may be.
    """
    return _with(_UNTAR, place=place, only=str(int(is_one)))


def storing(place: str) -> str:
    """Return what makes a file of what comes."""
    return _with(_STORE, place=place, only="1")


def packing(place: str) -> str:
    """Return what sends an archive of a file or folder."""
    return _with(_TAR, place=place)


def fetching(place: str) -> str:
    """Return what sends the bytes of a file."""
    return _with(_FETCH, place=place)


def _with(script: str, **values: str) -> str:
    return "".join(f"{name}={shlex.quote(value)}\n" for name, value in values.items()) + script
