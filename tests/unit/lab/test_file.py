"""A lab file becomes switches and guests, or a list of all that is wrong with it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from umlab.daemon.spec import DEFAULT_KINDS, SwitchSpec, default_listen
from umlab.errors import LabFileError, LabFileErrors
from umlab.guest.cmdline import BessNic, DaemonNic, DiskRoot, FdNic, GuestSpec, HostRoot, TinyRoot
from umlab.lab.document import MAX_SIZE
from umlab.lab.file import MAX_ERRORS, LabFile, load
from umlab.switch.model import SECOND_NS, SwitchConfig
from umlab.transports.contract import Access

RUNTIME = Path("/run/lab")
LAN = SwitchSpec(
    "lan",
    SwitchConfig(),
    tuple(default_listen(kind, "lan", Path("/run/lab")) for kind in DEFAULT_KINDS),
)
MAC = "02:00:00:00:00:01"


def read(folder: Path, text: str) -> LabFile:
    (folder / "lab.yaml").write_text(text)
    return load(folder / "lab.yaml", runtime=RUNTIME)


def errors(folder: Path, text: str) -> list[LabFileError]:
    """Return what is wrong with a text."""
    with pytest.raises((LabFileError, LabFileErrors)) as refusal:
        read(folder, text)
    if isinstance(refusal.value, LabFileErrors):
        return list(refusal.value.errors)
    assert isinstance(refusal.value, LabFileError)
    return [refusal.value]


def guest(folder: Path, keys: str) -> GuestSpec:
    """Return a guest of a lab with one segment."""
    return read(folder, f"segments: {{lan: }}\nguests:\n  g: {{{keys}}}\n").guests["g"]


def test_parts_without_keys_have_all_defaults(tmp_path: Path) -> None:
    lab = read(tmp_path, "segments:\n  lan:\nguests:\n  left:\n  right: {}\n")
    assert lab == LabFile({"lan": LAN}, {"left": GuestSpec("left"), "right": GuestSpec("right")})


def test_two_segments_may_be_the_two_ends_of_one_link(tmp_path: Path) -> None:
    listen = ("dgram:/x,/y", "dgram:/y,/x", "qemu:/z", "qemu:connect=/z")
    text = "\n".join(f"  s{number}: {{listen: ['{place}']}}" for number, place in enumerate(listen))
    segments = read(tmp_path, f"segments:\n{text}\n").segments.values()
    assert [segment.listen for segment in segments] == [(place,) for place in listen]


@pytest.mark.parametrize("text", ["{}", "segments:", "guests: {}\n"])
def test_part_may_be_missing(text: str, tmp_path: Path) -> None:
    assert read(tmp_path, text) == LabFile({}, {})


def test_segment_has_what_its_keys_say(tmp_path: Path) -> None:
    keys = (
        "hub: true, ageing_time: 100ms, max_frame: 1514, fdb_capacity: 0, "
        "listen: ['bess:b', daemon, 'tap:t'], "
        "mode: 0660, group: 5, allow_users: [70000, root], allow_groups: [2, 1, 2], lldp: true"
    )
    assert read(tmp_path, f"segments: {{s: {{{keys}}}}}").segments["s"] == SwitchSpec(
        "s",
        SwitchConfig(hub=True, ageing_time_ns=SECOND_NS // 10, max_frame=1514, fdb_capacity=0),
        (f"bess:{tmp_path}/b", "daemon:/run/lab/s.ctl", "tap:t"),
        Access(0o660, 5, (0, 70000), (1, 2)),
        lldp=True,
    )


@pytest.mark.parametrize(
    ("keys", "spec"),
    [
        ("kernel: /k, memory: 1G, landlock: false", GuestSpec("g", "/k", memory=1 << 30, landlock=False)),
        ("root: tiny, modules: [8021q, a-b]", GuestSpec("g", root=TinyRoot(("8021q", "a-b")))),
        ("root: host, modules: [a]", GuestSpec("g", root=HostRoot(("a",)))),
        ("root: {disk: /d}", GuestSpec("g", root=DiskRoot("/d"))),
        ("root: {disk: /c, backing: /d}, modules: []", GuestSpec("g", root=DiskRoot("/c", "/d"))),
        ("root: {disk: /d}, modules: [a]", GuestSpec("g", root=DiskRoot("/d", modules=("a",)))),
        ("extra: [loglevel=4, 'x=1.2']", GuestSpec("g", extra=("loglevel=4", "x=1.2"))),
        ("writable: [/a, /b]", GuestSpec("g", writable=("/a", "/b"))),
        ("nics: [lan]", GuestSpec("g", nics=(DaemonNic("/run/lab/lan.ctl"),))),
        (f"nics: [{{segment: lan, mac: {MAC}}}]", GuestSpec("g", nics=(DaemonNic("/run/lab/lan.ctl", MAC),))),
        (
            f"nics: [lan, {{segment: lan, transport: bess, mac: {MAC}, mtu: 9000}}]",
            GuestSpec("g", nics=(DaemonNic("/run/lab/lan.ctl"), BessNic("/run/lab/lan.bess", MAC, 9000))),
        ),
        (
            f"nics: [{{segment: lan, transport: fd, mac: {MAC}, mtu: 16000}}]",
            GuestSpec("g", nics=(FdNic("lan", MAC, 16000),)),
        ),
    ],
)
def test_guest_has_what_its_keys_say(keys: str, spec: GuestSpec, tmp_path: Path) -> None:
    assert guest(tmp_path, keys) == spec


def test_relative_paths_begin_at_the_files_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir("/")
    keys = "kernel: k/linux, root: {disk: ./c, backing: ../d}, writable: [w]"
    (tmp_path / "lab.yaml").write_text(f"guests: {{g: {{{keys}}}}}")
    spec = load(os.path.relpath(tmp_path / "lab.yaml"), runtime=RUNTIME).guests["g"]
    assert (spec.kernel, spec.writable) == (f"{tmp_path}/k/linux", (f"{tmp_path}/w",))
    assert spec.root == DiskRoot(f"{tmp_path}/c", f"{tmp_path.parent}/d")


def test_kernel_is_one_of_the_store_or_where_it_was_built(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    program = tmp_path / "data/umlab/kernels/mine/linux"
    program.parent.mkdir(parents=True)
    program.touch()
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree/linux").touch()
    for word, path in (
        ("mine", program),
        ("debian", Path("/usr/bin/linux")),
        ("./mine", tmp_path / "mine"),
        ("./tree", tmp_path / "tree/linux"),
        ("tree/linux", tmp_path / "tree/linux"),
    ):
        assert guest(tmp_path, f"kernel: {word}").kernel == str(path)
    for word, told in (
        ("tree", "there is no kernel 'tree'; there is debian, mine; .*; or do you mean ./tree?"),
        ("a b", "the kernel name 'a b' is not usable"),
    ):
        with pytest.raises(LabFileError, match=f"guests.g.kernel: {told}"):
            guest(tmp_path, f"kernel: {word}")


def test_inherited_socket_needs_no_place(tmp_path: Path) -> None:
    text = "segments: {s: {listen: []}}\nguests: {g: {nics: [{segment: s, transport: fd}]}}"
    assert read(tmp_path, text).guests["g"].nics == (FdNic("s"),)


def test_nic_attaches_to_the_first_place_of_its_kind(tmp_path: Path) -> None:
    segments = "segments: {s: {listen: ['tap:t', 'daemon:/a,/b', 'daemon:/c', 'bess:/d', bess]}}\n"
    guests = "guests: {g: {nics: [s, {segment: s, transport: bess}]}}"
    nics = read(tmp_path, segments + guests).guests["g"].nics
    assert nics == (DaemonNic("/a"), BessNic("/d"))


@pytest.mark.parametrize(
    ("text", "line", "key", "words"),
    [
        # the file and its parts
        ("a", 1, "", "must have the keys segments and guests"),
        ("- a", 1, "", "must have the keys"),
        ("segments:\nguest:\n", 2, "guest", "did you mean guests?"),
        ("segments:\nhosts:\n", 2, "hosts", "there are segments, guests"),
        ("\nsegments: x\n", 2, "segments", "must have names below it"),
        ("guests:\n- g\n", 1, "guests", "must have names below it"),
        ("segments:\n  lan:\n  lan:\n", 3, "segments.lan", "twice, first in line 2"),
        # segments
        ("segments:\n  b ad:\n", 2, "segments.b ad", "segment name 'b ad'"),
        ("segments:\n  a: x\n", 2, "segments.a", "must have keys below it"),
        ("segments:\n  a:\n    hubb: true\n", 3, "segments.a.hubb", "did you mean hub?"),
        ("segments:\n  a:\n    hub: yes\n", 3, "segments.a.hub", "neither true nor false"),
        ("segments:\n  a:\n    ageing_time: 300\n", 3, "segments.a.ageing_time", "unit (ms, s, min, h)"),
        ("segments:\n  a:\n    ageing_time: 0s\n", 3, "segments.a.ageing_time", "longer than 0"),
        ("segments:\n  a:\n    ageing_time: 278h\n", 3, "segments.a.ageing_time", "at most 1000000s"),
        ("segments:\n  a:\n    max_frame: 13\n", 3, "segments.a.max_frame", "between 14 and 65535"),
        ("segments:\n  a:\n    max_frame: [1]\n", 3, "segments.a.max_frame", "single value"),
        ("segments:\n  a:\n    fdb_capacity: 999999999\n", 3, "segments.a.fdb_capacity", "between 0 and"),
        ("segments:\n  a:\n    fdb_capacity: many\n", 3, "segments.a.fdb_capacity", "whole number"),
        ("segments:\n  a:\n    listen: bess\n", 3, "segments.a.listen", "must be a list"),
        ("segments:\n  a:\n    listen:\n    - bess\n    - none\n", 5, "segments.a.listen[1]", "write one of"),
        ("segments:\n  a: {listen: [bess, bess]}\n", 2, "segments.a.listen[1]", "/run/lab/a.bess is taken"),
        (
            "segments:\n  a: {listen: ['bess:/x']}\n  b: {listen: ['daemon:/y,/x']}\n",
            3,
            "segments.b.listen[0]",
            "by segment a",
        ),
        ("segments:\n  a:\n    mode: 888\n", 3, "segments.a.mode", "write one like 0660"),
        ("segments:\n  a:\n    group: [1]\n", 3, "segments.a.group", "a single value"),
        ("segments:\n  a:\n    allow_users: [root, no one]\n", 3, "segments.a.allow_users[1]", "no user"),
        # guests
        ("guests:\n  b/d:\n", 2, "guests.b/d", "guest name 'b/d'"),
        ("guests:\n  g: [x]\n", 2, "guests.g", "must have keys below it"),
        ("guests:\n  g:\n    kernle: /k\n", 3, "guests.g.kernle", "did you mean kernel?"),
        ("guests:\n  g:\n    kernel: /a b\n", 3, "guests.g.kernel", "must not contain ' '"),
        ("guests:\n  g:\n    kernel:\n", 3, "guests.g.kernel", "has no value"),
        ("guests:\n  g:\n    memory: 128\n", 3, "guests.g.memory", "unit (K, M, G)"),
        ("guests:\n  g:\n    memory: 1M\n", 3, "guests.g.memory", "1048576 bytes, at least"),
        ("guests:\n  g:\n    root: small\n", 3, "guests.g.root", "must be tiny, host, {image: NAME}"),
        ("guests:\n  g:\n    root: {backing: /b}\n", 3, "guests.g.root.disk", "must be given"),
        ("guests:\n  g:\n    root:\n      disk: /a:b\n", 4, "guests.g.root.disk", "must not contain ':'"),
        ("guests:\n  g:\n    root: {disk: /a, bakking: b}\n", 3, "guests.g.root.bakking", "mean backing?"),
        ("guests:\n  g:\n    modules: [a, ../b]\n", 3, "guests.g.modules[1]", "not a module's name"),
        ("guests:\n  g:\n    extra:\n    - a b\n", 4, "guests.g.extra[0]", "one printable word"),
        ("guests:\n  g:\n    extra: [mem=1G]\n", 3, "guests.g.extra[0]", "mem is set from"),
        ("guests:\n  g:\n    writable: [/a b]\n", 3, "guests.g.writable[0]", "must not contain"),
        ("guests:\n  g:\n    landlock: off\n", 3, "guests.g.landlock", "neither true nor false"),
        ("guests:\n  g:\n    nics: lan\n", 3, "guests.g.nics", "must be a list"),
        ("guests:\n  g:\n    nics:\n    - lan\n", 4, "guests.g.nics[0].segment", "no segment 'lan'"),
        ("guests:\n  g:\n    nics:\n    - [lan]\n", 4, "guests.g.nics[0]", "must have keys below it"),
        ("guests:\n  g:\n    nics:\n    - {}\n", 4, "guests.g.nics[0].segment", "must be given"),
    ],
)
def test_wrong_file_is_told_with_line_and_key(
    text: str, line: int, key: str, words: str, tmp_path: Path
) -> None:
    (error,) = errors(tmp_path, text)
    assert (error.file, error.line, error.key) == (str(tmp_path / "lab.yaml"), line, key)
    assert words in error.reason


@pytest.mark.parametrize(
    ("nic", "line", "key", "words"),
    [
        ("segment: lan\n      transport: tap", 6, "transport", "must be 'daemon', 'bess' or 'fd'"),
        ("segment: lan\n      mac: 03:00:00:00:00:01", 6, "mac", "not a unicast address"),
        ("segment: lan\n      mac:", 6, "mac", "has no value"),
        ("segment: lan\n      transport: bess\n      mtu: 9", 7, "mtu", "between 576 and 65534"),
        ("segment: lan\n      mtu: 1500", 6, "mtu", "take transport: bess"),
        ("segment: lan\n      netmask: x", 6, "netmask", "there are segment, transport, mac, mtu"),
        ("transport: bess\n      segment: old", 5, "transport", "add bess to its listen"),
        ("segment: tap", 5, "transport", "add daemon to its listen"),
        ("segment: comma", 5, "transport", "where no guest attaches"),
    ],
)
def test_wrong_nic_is_told_at_its_line(nic: str, line: int, key: str, words: str, tmp_path: Path) -> None:
    segments = "{lan: , old: {listen: [daemon]}, tap: {listen: ['tap:t']}, comma: {listen: ['daemon:/a b']}}"
    (error,) = errors(tmp_path, f"segments: {segments}\nguests:\n  g:\n    nics:\n    - {nic}\n")
    assert (error.line, error.key) == (line, f"guests.g.nics[0].{key}")
    assert words in error.reason


def test_all_errors_come_at_once_in_the_order_of_their_lines(tmp_path: Path) -> None:
    text = """\
guests:
  left:
    memory: 128
    kernel: [x]
    nics: [lan, wan, {segment: bad, mtu: 1}]
    memory: 64M
  ri ght:
    root: {disc: x}
segments:
  lan:
    hub: 1
    max_frame: 1
  bad: {listen: [x, y]}
  wan: &w {listen: [daemon, daemon]}
other: 1
"""
    found = errors(tmp_path, text)
    assert [(error.line, error.key) for error in found] == [
        (3, "guests.left.memory"),
        (4, "guests.left.kernel"),
        (5, "guests.left.nics[2].mtu"),
        (6, "guests.left.memory"),
        (7, "guests.ri ght"),
        (8, "guests.ri ght.root.disk"),
        (8, "guests.ri ght.root.disc"),
        (11, "segments.lan.hub"),
        (12, "segments.lan.max_frame"),
        (13, "segments.bad.listen[0]"),
        (13, "segments.bad.listen[1]"),
        (14, "segments.wan"),
        (14, "segments.wan.listen[1]"),
        (15, "other"),
    ]


def test_several_errors_are_one_line_each(tmp_path: Path) -> None:
    with pytest.raises(LabFileErrors) as refusal:
        read(tmp_path, "a:\nb:\n")
    file = tmp_path / "lab.yaml"
    assert str(refusal.value).splitlines() == [
        f"{file}:1: a: there is no such key; there are segments, guests",
        f"{file}:2: b: there is no such key; there are segments, guests",
    ]


def test_no_more_errors_are_told_than_anybody_reads(tmp_path: Path) -> None:
    assert len(errors(tmp_path, "".join(f"k{number}:\n" for number in range(5000)))) == MAX_ERRORS


def test_runtime_directory_that_is_too_long_is_told_at_the_segment(tmp_path: Path) -> None:
    (tmp_path / "lab.yaml").write_text("segments:\n  lan: {listen: [bess]}\n")
    with pytest.raises(
        LabFileError, match=r"lab.yaml:2: segments.lan.listen\[0\]: .*/lan.bess has 1\d\d bytes"
    ):
        load(tmp_path / "lab.yaml", runtime=Path("/" + "x" * 100))


def test_file_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "loop").symlink_to("loop")
    for path, words in (
        (tmp_path / "none", "No such file"),
        (tmp_path, "not a regular file"),
        (tmp_path / "fifo", "not a regular file"),
        (Path("/dev/zero"), "not a regular file"),
        (tmp_path / "loop", "cannot be read"),
        ("a\0b", "null byte"),
    ):
        with pytest.raises(LabFileError, match=words) as refusal:
            load(path, runtime=RUNTIME)
        assert str(refusal.value).startswith(f"{path}:1: ")


def test_file_that_is_too_large_is_not_read(tmp_path: Path) -> None:
    with open(tmp_path / "lab.yaml", "wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(LabFileError, match=f"more than {MAX_SIZE >> 10} KiB"):
        load(tmp_path / "lab.yaml", runtime=RUNTIME)
