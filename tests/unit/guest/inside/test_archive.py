"""Files as tar streams, and what becomes of a hostile guest's."""

from __future__ import annotations

import io
import os
import shlex
import stat
import subprocess
import tarfile
from collections.abc import Iterable
from pathlib import Path

import pytest

from support.require import require_program
from umlab.errors import RemoteProtocolError
from umlab.guest.inside.archive import (
    HOLES,
    MAX_DEPTH,
    PART_UNIT,
    PARTS,
    ArchiveReader,
    Member,
    measure,
    write_archive,
)
from umlab.guest.inside.unpack import Unpacker


def archive(*members: tarfile.TarInfo, contents: bytes = b"", form: int = tarfile.GNU_FORMAT) -> bytes:
    """Return an archive of members; those of a size have the same contents."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=form) as tar:
        for member in members:
            tar.addfile(member, io.BytesIO(contents) if member.size else None)
    return file.getvalue()


def member(name: str, kind: bytes = tarfile.REGTYPE, **fields: object) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type = kind
    info.mode = 0o755 if kind == tarfile.DIRTYPE else 0o644
    for key, value in fields.items():
        setattr(info, key, value)
    return info


def unpack(data: bytes, place: Path, *, step: int = 1000) -> list[str]:
    """Unpack an archive and return the problems."""
    problems: list[str] = []
    reader = ArchiveReader()
    with Unpacker(str(place), problems.append) as unpacker:
        for start in range(0, len(data), step):
            for event in reader.feed(data[start : start + step]):
                unpacker.take(event)
        reader.finish()
        unpacker.finish()
    return problems


def pack(*sources: tuple[str, str]) -> tuple[bytes, list[str]]:
    problems: list[str] = []
    return b"".join(write_archive(sources, problems.append)), problems


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Return a folder with all that can be copied."""
    tree = tmp_path / "tree"
    (tree / "sub/deep").mkdir(parents=True)
    (tree / "a").write_bytes(os.urandom(70_000))
    (tree / "empty").write_bytes(b"")
    os.link(tree / "a", tree / "sub/again")
    os.symlink("../a", tree / "sub/link")
    name = "long" * 50
    (tree / "sub/deep" / name).write_text("x")
    os.symlink(f"deep/{name}", tree / "sub/far")
    (tree / os.fsdecode(b"by\xfftes")).write_text("y")
    (tree / "sub").chmod(0o750)
    (tree / "a").chmod(0o700)
    os.utime(tree / "a", (1, 1_000_000_000))
    os.utime(tree / "sub", (1, 1_100_000_000))
    return tree


def facts(folder: Path) -> dict[str, tuple[int, int, bytes | str]]:
    """Return what is in a folder: modes, times, contents."""
    found: dict[str, tuple[int, int, bytes | str]] = {}
    for path in sorted(folder.rglob("*")):
        status = path.lstat()
        content: bytes | str = b""
        if path.is_symlink():
            found[str(path.relative_to(folder))] = (0, 0, os.readlink(path))
            continue
        content = path.read_bytes() if path.is_file() else ""
        found[str(path.relative_to(folder))] = (stat.S_IMODE(status.st_mode), int(status.st_mtime), content)
    return found


@pytest.mark.parametrize("step", [1, 511, 100_000])
def test_folder_is_the_same_at_the_other_end(tree: Path, tmp_path: Path, step: int) -> None:
    data, problems = pack((str(tree), "."))
    assert problems == []
    assert unpack(data, tmp_path / "other", step=step) == []
    assert facts(tmp_path / "other") == facts(tree)
    assert (tmp_path / "other/a").samefile(tmp_path / "other/sub/again")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["other", "tree"]


def test_busybox_reads_and_writes_the_same(tree: Path, tmp_path: Path) -> None:
    busybox = require_program("busybox")
    data, _ = pack((str(tree), "tree"))
    (tmp_path / "theirs").mkdir()
    subprocess.run([busybox, "tar", "xpf", "-"], input=data, cwd=tmp_path / "theirs", check=True)
    theirs, ours = facts(tmp_path / "theirs/tree"), facts(tree)
    # Busybox makes links that lead upwards last of all, which changes their folder's time.
    assert theirs.pop("sub")[0] == ours.pop("sub")[0]
    assert theirs == ours
    done = subprocess.run([busybox, "tar", "cf", "-", "."], cwd=tree, capture_output=True, check=True)
    assert unpack(done.stdout, tmp_path / "ours") == []
    assert facts(tmp_path / "ours") == facts(tree)


def test_file_replaces_a_file_and_a_folder_is_added_to(tree: Path, tmp_path: Path) -> None:
    place = tmp_path / "place"
    place.write_text("old")
    assert unpack(archive(member("./whatever", size=3), contents=b"new"), place) == []
    assert place.read_text() == "new"
    assert unpack(pack((str(tree), "."))[0], place) == [f"{place}: Not a directory"]
    assert place.read_text() == "new"
    other = tmp_path / "other"
    (other / "sub").mkdir(parents=True)
    (other / "sub/kept").write_text("kept")
    (other / "a").write_text("old")
    assert unpack(pack((str(tree), "."))[0], other) == []
    assert (other / "sub/kept").read_text() == "kept"
    assert (other / "a").read_bytes() == (tree / "a").read_bytes()
    # What cannot be put in its place keeps nothing else from it.
    for name in ("a", "sub"):
        (other / name).rename(tmp_path / name)
    (other / "a").mkdir()
    (other / "sub").symlink_to(tmp_path / "sub")
    (other / "empty").unlink()
    problems = [f"{other}/a: Is a directory", f"{other}/sub: Not a directory"]
    assert unpack(pack((str(tree), "."))[0], other) == problems
    assert (other / "empty").exists()
    assert os.listdir(other / "a") == []
    assert not list(tmp_path.glob(".umlab*"))


def test_what_a_killed_one_has_left_goes_with_the_next_one(tmp_path: Path) -> None:
    place = tmp_path / "place"
    with Unpacker(str(place), pytest.fail):
        (live,) = tmp_path.iterdir()
        dead = tmp_path / ".umlab-copy-dead"
        (dead / "content").mkdir(parents=True)
        others = [tmp_path / ".umlab-260", tmp_path / ".umlab-copy-file"]
        others[0].mkdir()
        others[1].write_text("")
        assert unpack(archive(member("./whatever", size=3), contents=b"new"), place) == []
        assert sorted(tmp_path.iterdir()) == sorted([live, *others, place])


def test_zeros_become_holes(tmp_path: Path) -> None:
    sparse = tmp_path / "sparse"
    with sparse.open("wb") as file:
        file.write(b"begin")
        file.seek(50 << 20)
        file.write(b"end")
        file.truncate(60 << 20)
    data = archive(member("sparse", size=60 << 20), contents=sparse.read_bytes())
    assert unpack(data, tmp_path / "copy", step=65_536) == []
    status = (tmp_path / "copy").stat()
    assert status.st_size == 60 << 20
    assert status.st_blocks * 512 < 1 << 20
    assert (tmp_path / "copy").read_bytes() == sparse.read_bytes()


@pytest.mark.parametrize(
    ("size", "data", "parts"),
    [
        (20 << 20, {0: 5, (10 << 20) + 100: 70_000}, [(0, 5), ((10 << 20), 70_100)]),
        (20 << 20, {(19 << 20) + 5: 5}, [(19 << 20, 1 << 20)]),
        (8 << 20, {}, []),
    ],
)
def test_holes_are_told_beside_the_archive(
    size: int, data: dict[int, int], parts: list[tuple[int, int]], tmp_path: Path
) -> None:
    sparse = tmp_path / "it's"
    with sparse.open("wb") as file:
        for at, length in data.items():
            file.seek(at)
            file.write(b"x" * length)
        file.truncate(size)
    os.utime(sparse, (7, 7))
    whole, problems = pack((str(sparse), "it's"))
    assert problems == []
    assert len(whole) < 2 << 20
    with tarfile.open(fileobj=io.BytesIO(whole)) as tar:
        assert tar.getmember("it's").size == 0
        words = shlex.split(tar.extractfile(HOLES).read().decode())  # type: ignore[union-attr]
        assert words[:4] == ["fill", "it's", str(size), "7"]
        made = bytearray(size)
        for number, place in zip(words[4::2], words[5::2], strict=True):
            part = tar.extractfile(f"{PARTS}/{number}").read()  # type: ignore[union-attr]
            at = int(place) * PART_UNIT
            made[at : at + len(part)] = part
    assert made == sparse.read_bytes()
    assert len(words[4:]) == 2 * len(parts)


def test_what_cannot_be_copied_is_left_out(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    os.mkfifo(tree / "pipe")
    (tree / "file").write_text("1")
    data, problems = pack((str(tree), "tree"), (str(tmp_path / "nothing"), "nothing"))
    assert len(problems) == 2
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        assert tar.getnames() == ["tree", "tree/file", "tree"]
    assert measure([str(tree), str(tmp_path / "nothing")]) <= 1


def test_folders_that_lie_too_deep_are_left_out(tmp_path: Path) -> None:
    names = ["/".join(["."] + ["a"] * depth) for depth in range(1500)]
    data = archive(*(member(name, tarfile.DIRTYPE) for name in names))
    with Unpacker(str(tmp_path / "place"), lambda problem: None) as unpacker:
        for event in ArchiveReader().feed(data):
            unpacker.take(event)
    assert list(tmp_path.iterdir()) == []
    # What is there already is gone through as well.
    for _ in range(2):
        assert len(unpack(data, tmp_path / "place", step=1 << 20)) == 1499 - MAX_DEPTH
    deepest = tmp_path / "place" / "/".join("a" * MAX_DEPTH)
    assert list(deepest.iterdir()) == []
    assert pack((str(tmp_path / "place"), "."))[1] == []
    (deepest / "a").mkdir()
    assert pack((str(tmp_path / "place"), "."))[1] == [f"{deepest}/a: lies too deep; left out"]
    below = os.open(deepest, os.O_RDONLY)
    for _ in range(1300):
        os.mkdir("b", dir_fd=below)
        above, below = below, os.open("b", os.O_RDONLY, dir_fd=below)
        os.close(above)
    os.close(below)
    assert measure([str(tmp_path / "place")]) == 0
    subprocess.run(["rm", "-r", deepest], check=True)


def test_file_that_becomes_shorter_does_not_break_the_archive(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"x" * 5000)
    problems: list[str] = []
    pieces = write_archive([(str(file), "file"), (str(file), "again")], problems.append)
    head = next(pieces)
    os.truncate(file, 1000)
    with tarfile.open(fileobj=io.BytesIO(head + b"".join(pieces))) as tar:
        assert [(each.name, each.size) for each in tar] == [("file", 5000), ("again", 1000)]
    assert len(problems) == 1


ROOT = member("./", tarfile.DIRTYPE)


@pytest.mark.parametrize(
    "members",
    [
        [member("../out", size=1)],
        [member("/out", size=1)],
        [member("a/../../out", size=1)],
        [member("link", tarfile.SYMTYPE, linkname="/etc")],
        [member("link", tarfile.SYMTYPE, linkname="..")],
        [member("a", tarfile.DIRTYPE), member("a/link", tarfile.SYMTYPE, linkname="../../out")],
        # A step up behind a link is one from somewhere else.
        [
            member("a", tarfile.DIRTYPE),
            member("a/up", tarfile.SYMTYPE, linkname=".."),
            member("y", tarfile.SYMTYPE, linkname="a/up/.."),
        ],
        # What goes through a link, even one that stays inside.
        [
            member("a", tarfile.DIRTYPE),
            member("link", tarfile.SYMTYPE, linkname="a"),
            member("link/out", size=1),
        ],
        [member("hard", tarfile.LNKTYPE, linkname="/etc/passwd")],
        [member("hard", tarfile.LNKTYPE, linkname="../secret")],
        [member("hard", tarfile.LNKTYPE, linkname="nothing")],
        # A second name for a link would lead elsewhere than the first.
        [
            member("a", tarfile.DIRTYPE),
            member("a/link", tarfile.SYMTYPE, linkname="../out"),
            member("hard", tarfile.LNKTYPE, linkname="a/link"),
        ],
        [member("dev", tarfile.CHRTYPE, devmajor=1, devminor=3)],
        [member("pipe", tarfile.FIFOTYPE)],
        [member("a", size=1), member("a", size=1)],
        [member("n" * 300, size=1)],
    ],
)
def test_nothing_of_a_hostile_guest_lies_elsewhere(members: list[tarfile.TarInfo], tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("secret")
    place = tmp_path / "place"
    problems = unpack(archive(ROOT, *members, member("good", size=1), contents=b"x"), place)
    assert len(problems) == 1
    assert (place / "good").read_text() == "x"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["place", "secret"]
    assert (tmp_path / "secret").stat().st_nlink == 1
    for path in place.rglob("*"):
        assert path.resolve().is_relative_to(place)


def test_rights_of_others_are_not_kept(tmp_path: Path) -> None:
    data = archive(
        ROOT, member("program", size=1, mode=0o6777), member("secret", size=1, mode=0), contents=b"x"
    )
    assert unpack(data, tmp_path / "place") == []
    assert stat.S_IMODE((tmp_path / "place/program").stat().st_mode) == 0o755
    assert stat.S_IMODE((tmp_path / "place/secret").stat().st_mode) == 0o600


def test_more_than_the_file_that_was_asked_for_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RemoteProtocolError):
        unpack(archive(member("a", size=1), member("b", size=1), contents=b"x"), tmp_path / "place")
    assert list(tmp_path.iterdir()) == []


def _broken() -> Iterable[bytes]:
    whole = archive(ROOT, member("a", size=600), contents=b"x" * 600)
    yield b""
    yield bytes(100)
    yield whole[:1000]
    yield b"\xff" * 1024
    yield whole[:512].replace(b"ustar", b"xstar") + b"garbage" * 200
    yield archive(member("a" * 200), form=tarfile.PAX_FORMAT)
    yield archive(member("a" * 5000))
    yield archive(member("a", b"Z"))
    negative = bytearray(member("a").tobuf(tarfile.GNU_FORMAT))
    negative[124:136] = b"\xff" * 12
    negative[148:156] = b"%06o\0 " % (256 + sum(negative[:148]) + sum(negative[156:512]))
    yield bytes(negative)


@pytest.mark.parametrize("data", list(_broken()), ids=range(9))
def test_what_is_no_archive_is_refused(data: bytes, tmp_path: Path) -> None:
    with pytest.raises(RemoteProtocolError):
        unpack(data, tmp_path / "place")
    assert list(tmp_path.iterdir()) == []


def test_members_are_told_as_they_are() -> None:
    data = archive(member("dir/", tarfile.DIRTYPE, mtime=7), member("x", tarfile.SYMTYPE, linkname="y" * 200))
    assert list(ArchiveReader().feed(data)) == [
        Member("dir", "directory", 0o755, 7, 0, ""),
        Member("x", "symlink", 0o644, 0, 0, "y" * 200),
    ]
