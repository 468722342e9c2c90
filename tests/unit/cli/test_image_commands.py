"""``umlab image`` and ``umlab snapshot``, on files of this test."""

from __future__ import annotations

import gzip
import subprocess
from pathlib import Path

import pytest
import typer
import typer.main

from support.cli_run import Run
from support.require import require_program
from umlab.cli import complete
from umlab.cli.app import app
from umlab.daemon.disk import disk_path
from umlab.guest.disk.cow import create_cow
from umlab.guest.disk.image import image_path, new_image


@pytest.fixture(autouse=True)
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("XDG_DATA_HOME", "XDG_STATE_HOME"):
        monkeypatch.setenv(variable, str(tmp_path / variable))


@pytest.fixture
def image() -> Path:
    with new_image("debian") as place, open(place / "image", "xb") as file:
        file.truncate(1 << 20)
    return image_path("debian")


@pytest.fixture
def disk(image: Path, tmp_path: Path) -> Path:
    """The disk of the guest left of the lab office."""
    path = disk_path(tmp_path / "XDG_STATE_HOME/umlab/office", "left")
    path.parent.mkdir(parents=True)
    create_cow(str(path), str(image))
    return path


def test_import_list_and_remove(run: Run, tmp_path: Path) -> None:
    assert run("image", "ls").out == "there is no image\n"
    (tmp_path / "raw.gz").write_bytes(gzip.compress(b"hsqs" + bytes(1 << 20)))
    done = run("image", "import", str(tmp_path / "raw.gz"), "small")
    assert (done.status, done.err) == (0, "")
    assert done.out.startswith("image small: squashfs, 1.0 MiB, ")
    lines = run("image", "ls").out.splitlines()
    assert lines[0].split() == ["IMAGE", "SIZE", "ON", "DISK", "HAS", "MADE", "USED", "BY"]
    assert lines[1].split()[:3] == ["small", "1.0", "MiB"]
    (record,) = run("image", "ls", "--json").records
    assert record["path"] == str(image_path("small"))
    assert (record["name"], record["file_system"], record["used_by"]) == ("small", "squashfs", [])
    assert record["block_size"] is None
    assert run("image", "rm", "small", "--json").records == [{"image": "small", "changed": True}]
    again = run("image", "rm", "small")
    assert (again.status, "there is no image small; there is none yet" in again.err) == (1, True)


def test_import_of_a_file_of_the_same_name(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("same").write_bytes(b"hsqs" + bytes(1 << 20))
    (record,) = run("image", "import", "same", "same", "--json").records
    assert record["path"] == str(image_path("same"))


@pytest.mark.parametrize(("size", "told"), [(1024, True), (4096, False)])
def test_import_tells_of_blocks_that_kernels_read_wrong(
    run: Run, tmp_path: Path, size: int, told: bool
) -> None:
    subprocess.run([require_program("mke2fs"), "-q", "-b", str(size), tmp_path / "raw", "8M"], check=True)
    done = run("image", "import", str(tmp_path / "raw"), "small")
    assert done.status == 0
    assert ("blocks of 1024 bytes" in done.out + done.err) is told


def test_image_that_disks_and_snapshots_need_is_kept(run: Run, disk: Path) -> None:
    assert run("snapshot", "save", "left", "clean").status == 0
    (record,) = run("image", "ls", "--json").records
    assert record["used_by"] == ["office/left", "office/left@clean"]
    disk.unlink()
    refused = run("image", "rm", "debian")
    assert refused.status == 1
    assert "image debian is needed by office/left@clean, whose disks are lost" in refused.err
    assert run("image", "rm", "debian", "--force").status == 0


def test_image_is_kept_where_it_is_unknown_who_needs_it(run: Run, disk: Path) -> None:
    disk.unlink()
    folder = disk.parent
    folder.rmdir()
    # Which nobody can read, not even root.
    for state in (folder, folder.parent.parent / "lan"):
        state.symlink_to(state)
        refused = run("image", "rm", "debian")
        assert refused.status == 1
        assert f"cannot read {state}" in refused.err
        assert "may need the image: Too many levels of symbolic links" in refused.err
        state.unlink()
    folder.mkdir()
    disk.symlink_to(disk)
    refused = run("image", "rm", "debian")
    assert (refused.status, f"cannot read {disk}, which may need the image" in refused.err) == (1, True)
    assert run("image", "rm", "debian", "--force").status == 0


def test_snapshot_is_saved_listed_put_back_and_removed(run: Run, disk: Path, image: Path) -> None:
    assert run("snapshot", "ls").out == "there is no snapshot\n"
    saved = run("snapshot", "save", "office", "clean")
    assert saved.out == "office/left: copying\noffice/left: saved as clean\n"
    before = disk.read_bytes()
    disk.write_bytes(b"spoilt")
    (record,) = run("snapshot", "ls", "office/left", "--json").records
    assert record["backing"] == str(image)
    assert (record["lab"], record["guest"], record["name"], record["problem"]) == (
        "office",
        "left",
        "clean",
        None,
    )
    assert run("snapshot", "ls").out.splitlines()[1].split()[:3] == ["office", "clean", "left"]
    restored = run("snapshot", "restore", "left", "clean", "--json")
    assert restored.records == [
        {"lab": "office", "guest": "left", "snapshot": "clean", "path": str(disk)},
    ]
    assert disk.read_bytes() == before
    assert run("snapshot", "rm", "office", "clean").out == "office/left: removed clean\n"
    missing = run("snapshot", "restore", "office", "clean")
    assert (missing.status, missing.err) == (1, "umlab: office has no snapshot clean; there is none yet\n")


def test_build_prints_its_commands_and_makes_nothing(run: Run) -> None:
    words = ("--suite", "sid", "--include", "less,vim", "--include", "git", "--mirror", "http://m/debian")
    done = run("image", "build", "new", *words, "--size", "1G", "--dry-run")
    bootstrap, imported = done.out.splitlines()
    assert "--include=systemd-sysv,less,vim,git" in bootstrap
    assert bootstrap.endswith(" sid new.tar http://m/debian")
    assert imported == "umlab image import new.tar new --size 1G"
    (record,) = run("image", "build", "new", *words, "--dry-run", "--json").records
    assert record["commands"][0][0] == "mmdebstrap"
    assert run("image", "build", "new", *words, "--size", "1M", "--dry-run").status == 2
    assert not image_path("new").exists()


def test_build_says_what_is_done_and_what_was_made(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    require_program("fakeroot")
    program = tmp_path / "mmdebstrap"
    program.write_text(
        '#!/bin/sh\nfor word; do case "$word" in *.tar) archive=$word;; esac; done\n'
        'echo "I: running\\033[1m"\ncd "$(dirname "$0")" && mkdir -p run && tar -cf "$archive" run\n'
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/sbin:/usr/bin:/sbin:/bin")
    done = run("image", "build", "new", "--size", "16M", "--json")
    (record,) = done.records
    assert (record["name"], record["size"], record["file_system"]) == ("new", 16 << 20, "ext4")
    # What a program prints is shown as text, and not among the records.
    assert "running\\x1b[1m" in done.err
    assert run("image", "build", "new").err.startswith("umlab: there is an image new already")


@pytest.mark.parametrize("size", ["2", "1M", "x"])
def test_wrong_size_is_a_wrong_command_line(size: str, run: Run) -> None:
    for words in (("build", "new"), ("import", "file", "new")):
        done = run("image", *words, "--size", size)
        assert done.status == 2
        assert "--size" in done.err


def test_names_are_completed(run: Run, disk: Path) -> None:
    assert run("snapshot", "save", "left", "clean").status == 0
    assert complete.image_names("d") == ["debian"]
    assert complete.image_names("x") == []
    assert complete.disk_names("of") == ["office", "office/left"]
    context = typer.Context(typer.main.get_command(app))
    for target, names in (("office", ["clean"]), ("left", ["clean"]), ("office/left", ["clean"]), ("x", [])):
        context.params["target"] = target
        assert complete.snapshot_names(context, "c") == names
