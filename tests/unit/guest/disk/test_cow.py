"""COW files: made, opened, checked, given another backing file."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from support.cow_files import KINDS, SECTOR, header, places, write_cow
from support.forbidden import refuse_read_only
from umlab.errors import LabError, LocalProtocolError
from umlab.guest.disk.cow import CowFile, create_cow, rebase_cow
from umlab.guest.disk.cow_check import cow_facts, cow_problems, dependents, other_dependents
from umlab.guest.disk.file_lock import lock_file
from umlab.wire.cow import CowHeader

SIZE = (1 << 20) + 100
#: Whole pages, as most file systems write.
CHANGES = {n: b"A" * SECTOR for n in (*range(8), *range(40, 48), *range(2040, 2048))}


@pytest.fixture
def backing(tmp_path: Path) -> Path:
    path = tmp_path / "image"
    path.write_bytes(os.urandom(SIZE))
    return path


@pytest.fixture
def cow(tmp_path: Path, backing: Path) -> Path:
    path = tmp_path / "cow"
    write_cow(path, "v3", backing, CHANGES)
    return path


def problems(cow: Path) -> list[str]:
    """Return what is wrong with a COW file."""
    return [each.problem for each in cow_problems(str(cow))]


def test_new_file_is_empty_sparse_and_of_its_backing_file(backing: Path, tmp_path: Path) -> None:
    path = tmp_path / "new"
    made = create_cow(str(path), str(backing))
    assert made == CowHeader(3, bytes(backing), int(backing.stat().st_mtime), SIZE)
    status = path.stat()
    assert status.st_size == places("v3", SIZE)[2] + SIZE
    assert status.st_blocks * 512 < SIZE / 10
    assert problems(path) == []
    assert cow_facts(str(path)).changed == 0


def test_path_of_the_backing_file_is_absolute_and_a_link_at_its_end_stays(
    backing: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "way").symlink_to("folder")
    (tmp_path / "folder/link").symlink_to(backing)
    monkeypatch.chdir(tmp_path)
    assert create_cow("new", "way/link").backing == bytes(tmp_path.resolve() / "folder/link")


def test_backing_file_that_kernels_cannot_use_is_refused(tmp_path: Path, cow: Path) -> None:
    small = tmp_path / "small"
    small.write_bytes(bytes(64 * SECTOR))
    for path, words in (
        (
            small,
            "too small: a kernel that writes to it panics or hangs; make the backing file larger than 32768",
        ),
        (cow, "a COW file itself"),
        (tmp_path, "neither a plain file nor a block device"),
        (tmp_path / "none", "No such file"),
    ):
        with pytest.raises(LabError, match=words):
            create_cow(str(tmp_path / "new"), str(path))
    small.write_bytes(bytes(65 * SECTOR))
    old = tmp_path / "old"
    old.write_bytes(bytes(SIZE))
    os.utime(old, (0, 1 << 32))
    with pytest.raises(LocalProtocolError, match="cannot keep the time 4294967296"):
        create_cow(str(tmp_path / "new"), str(old))
    assert not (tmp_path / "new").exists()
    create_cow(str(tmp_path / "new"), str(small))


def test_file_is_replaced_only_when_told_and_not_in_use(cow: Path, backing: Path) -> None:
    before = cow.read_bytes()
    with pytest.raises(LabError, match="there already; use --force"):
        create_cow(str(cow), str(backing))
    with pytest.raises(LabError, match="is the backing file itself"):
        create_cow(str(backing), str(backing), replace=True)
    with CowFile(str(cow), write=True) as file:
        lock_file(file.fd, str(cow), exclusive=True)
        with pytest.raises(LabError, match="in use by"):
            create_cow(str(cow), str(backing), replace=True)
    assert cow.read_bytes() == before
    assert backing.stat().st_size == SIZE
    create_cow(str(cow), str(backing), replace=True)
    assert cow_facts(str(cow)).changed == 0


def test_folder_that_cannot_be_written_to_is_named(backing: Path, tmp_path: Path) -> None:
    with pytest.raises(LabError, match=r"cannot make .*/no/new: No such file"):
        create_cow(str(tmp_path / "no/new"), str(backing))


@pytest.mark.parametrize("kind", KINDS)
def test_facts_of_every_kind(tmp_path: Path, backing: Path, kind: str) -> None:
    path = tmp_path / "cow"
    write_cow(path, kind, backing, CHANGES)
    facts = cow_facts(str(path))
    assert (facts.version, facts.broken) == {"v1": (1, False), "v2": (2, False), "v3": (3, False)}.get(
        kind, (3, True)
    )
    assert facts.backing == str(backing)
    assert (facts.size, facts.sectors, facts.changed) == (SIZE, 2049, len(CHANGES))
    assert facts.on_disk < facts.length
    assert facts.used_by is None
    with CowFile(str(path)) as file:
        assert list(file.changed()) == [(0, 8), (40, 8), (2040, 8)]
        assert list(file.unchanged(SIZE)) == [(4096, 32 * 512), (48 * 512, 1992 * 512), (1 << 20, 100)]


def test_bitmap_of_the_old_versions_lacks_its_end(tmp_path: Path, backing: Path) -> None:
    for kind in ("v1", "v2"):
        write_cow(tmp_path / kind, kind, backing, {})
        (problem,) = problems(tmp_path / kind)
        assert f"the bitmap of version {kind[1]} has no bit for the last 1 sectors" in problem


def test_backing_file_that_was_changed_is_told_in_the_kernels_words(cow: Path, backing: Path) -> None:
    seconds = int(backing.stat().st_mtime)
    os.utime(backing, (7, 7))
    (problem,) = cow_problems(str(cow))
    assert problem.problem == f'mtime mismatch ({seconds} vs 7) of COW header vs backing file "{backing}"'
    assert problem.fix.endswith(f"touch -d @{seconds} -- {backing}")
    os.truncate(backing, 1 << 20)
    (problem,) = cow_problems(str(cow))
    assert problem.problem == f'Size mismatch ({SIZE} vs {1 << 20}) of COW header vs backing file "{backing}"'


def test_missing_backing_file_and_what_is_no_cow_file_are_problems(cow: Path, backing: Path) -> None:
    (problem,) = problems(backing)
    assert problem.startswith(f"{backing} is no COW file of use: ")
    backing.unlink()
    assert problems(cow) == [f"cannot open {backing}: No such file or directory"]
    assert problems(cow.parent) == [f"{cow.parent} is neither a plain file nor a block device"]


def test_file_that_was_cut_is_a_problem_where_something_is_lost(cow: Path) -> None:
    data = places("v3", SIZE)[2]
    os.truncate(cow, data + 2048 * SECTOR)
    assert problems(cow) == []
    os.truncate(cow, data + 2048 * SECTOR - 1)
    assert problems(cow) == [f"{cow} was cut short: it ends at sector 2047, which is changed"]
    os.truncate(cow, 8200)
    assert problems(cow) == [f"{cow} was cut short: it ends in its bitmap"]


def test_layout_that_kernels_fail_with_is_a_problem(tmp_path: Path, backing: Path, cow: Path) -> None:
    odd = tmp_path / "odd"
    odd.write_bytes(header("v3", bytes(backing), int(backing.stat().st_mtime), SIZE, 1024))
    os.truncate(odd, 1 << 20)
    assert problems(odd) == ["its sectors have 1024 bytes, and kernels keep 512 at a time"]
    chained = tmp_path / "chained"
    write_cow(chained, "v3", cow, {})
    assert problems(chained) == [
        f"its backing file {cow} is a COW file itself, which kernels take for plain data there"
    ]
    enormous = tmp_path / "enormous"
    enormous.write_bytes(header("v3", bytes(backing), 7, (1 << 63) - 4096))
    assert "impossible size" in problems(enormous)[0]


def test_pages_that_are_changed_in_part_are_a_problem(tmp_path: Path, backing: Path) -> None:
    path = tmp_path / "mixed"
    for sectors, pages in (
        ([], 0),
        (range(8, 24), 0),
        ([8], 1),
        ([9, 11, 14], 1),
        (range(1, 63), 2),
        ([7, 8], 2),
        # The last one is not whole in the backing file either.
        ([2048], 0),
    ):
        write_cow(path, "v3", backing, {n: b"A" * SECTOR for n in sectors})
        words = f"pages with changed sectors and others: {pages}; kernels read wrong behind one of them"
        assert problems(path) == ([words] if pages else [])


def test_who_writes_to_the_backing_file_is_a_problem(cow: Path, backing: Path) -> None:
    fd = os.open(backing, os.O_RDWR)
    try:
        lock_file(fd, str(backing), exclusive=True)
        assert problems(cow) == [f"another program writes to the backing file {backing}"]
    finally:
        os.close(fd)


def test_dependents_are_found_where_they_lie(tmp_path: Path, cow: Path, backing: Path) -> None:
    (tmp_path / "deep/folder").mkdir(parents=True)
    second, third, old = tmp_path / "deep/folder/second", tmp_path / "third", tmp_path / "old"
    write_cow(second, "v1", backing, {})
    (tmp_path / "link").symlink_to("image")
    write_cow(third, "v2", tmp_path / "link", {})
    old.write_bytes(header("v3", bytes(backing), 7, SIZE) + bytes(99))
    (tmp_path / "gone").write_bytes(header("v3", b"/no/where", 7, SIZE) + bytes(99))
    found = dependents(str(backing), [str(tmp_path)], [str(tmp_path / "deep"), str(tmp_path / "none")])
    assert found == sorted(map(str, (cow, second, third)))
    real, others = other_dependents(str(cow), str(tmp_path / "deep"))
    assert real == str(backing.resolve())
    assert {Path(each).name for each in others} == {"second", "third"}


@pytest.mark.parametrize("kind", KINDS)
def test_backing_file_that_moved_is_written_into_the_header(tmp_path: Path, backing: Path, kind: str) -> None:
    path, moved = tmp_path / "cow", tmp_path / "moved"
    write_cow(path, kind, backing, CHANGES)
    backing.rename(moved)
    rest = path.read_bytes()[places(kind, SIZE)[0] :]
    assert rebase_cow(str(path), str(moved))
    assert not rebase_cow(str(path), str(moved))
    expected = header(kind, bytes(moved), int(moved.stat().st_mtime), SIZE)
    assert path.read_bytes()[: len(expected)] == expected
    assert path.read_bytes()[places(kind, SIZE)[0] :] == rest


def test_read_only_file_is_rebased_by_its_owner_and_stays_so(
    backing: Path, cow: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refuse_read_only(monkeypatch)
    moved = backing.rename(backing.with_name("moved"))
    cow.chmod(0o444)
    assert rebase_cow(str(cow), str(moved))
    assert cow.stat().st_mode & 0o777 == 0o444
    assert problems(cow) == []
    monkeypatch.setattr(os, "geteuid", lambda: cow.stat().st_uid + 1)
    with pytest.raises(LabError, match=f"cannot open {cow}: Permission denied"):
        rebase_cow(str(cow), str(moved), unsafe=True)


def test_copy_with_another_time_is_compared_where_it_counts(tmp_path: Path, backing: Path, cow: Path) -> None:
    copy, told = tmp_path / "copy", list[tuple[int, int]]()
    data = bytearray(backing.read_bytes())
    data[5 * SECTOR : 7 * SECTOR] = bytes(2 * SECTOR)
    copy.write_bytes(data)
    os.utime(copy, (7, 7))
    assert rebase_cow(str(cow), str(copy), progress=lambda done, total: told.append((done, total)))
    assert told[-1] == (SIZE, SIZE)
    assert cow_facts(str(cow)).mtime == 7
    data[-1] ^= 1
    before = cow.read_bytes()
    other = tmp_path / "other"
    other.write_bytes(data)
    with pytest.raises(
        LabError, match=f"other is not like {copy}: they differ near byte {1 << 20}; .*--unsafe"
    ):
        rebase_cow(str(cow), str(other))
    assert cow.read_bytes() == before
    assert rebase_cow(str(cow), str(other), unsafe=True)
    assert problems(cow) == []


def test_file_that_cannot_be_compared_is_taken_only_when_told(backing: Path, cow: Path) -> None:
    os.utime(backing, (7, 7))
    with pytest.raises(LabError, match=r"was changed; .* umlab cow rebase --unsafe"):
        rebase_cow(str(cow), str(backing))
    moved = backing.rename(backing.with_name("moved"))
    with pytest.raises(LabError, match=f"cannot open {backing}.* umlab cow rebase --unsafe"):
        rebase_cow(str(cow), str(moved))
    assert rebase_cow(str(cow), str(moved), unsafe=True)
    assert cow_facts(str(cow)).backing == str(moved)


def test_no_telling_makes_a_backing_file_of_another_size_fit(
    tmp_path: Path, cow: Path, backing: Path
) -> None:
    before = cow.read_bytes()
    small = tmp_path / "small"
    small.write_bytes(bytes(SIZE - 1))
    chained = tmp_path / "chained"
    chained.write_bytes(header("v3", b"/x", 7, 1 << 20).ljust(SIZE, b"\0"))
    for path in (small, chained, tmp_path / "none"):
        with pytest.raises(LabError):
            rebase_cow(str(cow), str(path), unsafe=True)
    with CowFile(str(cow), write=True) as file:
        lock_file(file.fd, str(cow), exclusive=False)
        with pytest.raises(LabError, match="in use by"):
            rebase_cow(str(cow), str(backing), unsafe=True)
    assert cow.read_bytes() == before


def test_longer_path_than_an_old_version_keeps_is_refused(tmp_path: Path, backing: Path) -> None:
    path = tmp_path / "cow"
    write_cow(path, "v1", backing, {})
    deep = tmp_path / ("x" * 200) / ("y" * 200)
    deep.parent.mkdir()
    backing.rename(deep)
    with pytest.raises(LocalProtocolError, match="version 1 cannot keep"):
        rebase_cow(str(path), str(deep))
