"""``umlab cow``: what it prints, and how it ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from support.cli_run import Run
from support.cow_files import SECTOR, write_cow
from support.deadline import wait_until
from umlab.cli.progress import ProgressLine, told_if_long
from umlab.guest.disk.cow import CowFile
from umlab.guest.disk.file_lock import lock_file

SIZE = 1 << 20
#: Stops where it would tell how far it is.
_STOPPING = """
import signal
from umlab.cli.main import main
from umlab.cli.progress import ProgressLine
from umlab.guest.disk.cow import CowFile
from umlab.guest.disk.file_lock import lock_file

def stop(self, done, total):
    print("in the middle", flush=True)
    signal.pause()

ProgressLine.__call__ = stop
main()
"""
CHANGES = {0: b"A" * SECTOR, 9: b"B" * SECTOR}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the working directory, with an image in it."""
    monkeypatch.chdir(tmp_path)
    for variable in ("XDG_DATA_HOME", "XDG_STATE_HOME"):
        monkeypatch.setenv(variable, str(tmp_path / variable))
    (tmp_path / "image").write_bytes(os.urandom(SIZE))
    os.utime(tmp_path / "image", (7, 7))
    return tmp_path


def test_file_is_made_and_shown(run: Run, folder: Path) -> None:
    assert run("cow", "create", "left", "image").out == f"left: made, for {folder}/image\n"
    again = run("cow", "create", "left", "image")
    assert (again.status, again.err) == (
        1,
        "umlab: left is there already; use --force to replace a plain file\n",
    )
    (record,) = run("cow", "create", "left", "image", "--force", "--json").records
    assert record == {"cow": "left", "backing": f"{folder}/image", "size": SIZE, "mtime": 7}
    write_cow(folder / "left", "broken", folder / "image", CHANGES)
    shown = run("cow", "info", "left").out
    assert "\n  version       3 of old 64-bit programs\n" in shown
    assert f"\n  backing file  {folder}/image\n" in shown
    assert "\n  disk          1.0 MiB\n" in shown
    assert "\n  changed       1.0 KiB, 2 of 2048 sectors\n" in shown
    assert shown.endswith("\n  in use by     nobody\n")
    (record,) = run("cow", "info", "left", "--json").records
    assert (record["changed"], record["size"], record["used_by"]) == (2, SIZE, None)


def test_check_says_how_to_mend_what_is_wrong(run: Run, folder: Path) -> None:
    run("cow", "create", "left", "image")
    assert run("cow", "check", "left").out == "left: ok\n"
    os.utime("image", (8, 8))
    checked = run("cow", "check", "left", "image")
    assert checked.status == 1
    assert checked.out.startswith("left: mtime mismatch (7 vs 8) of COW header")
    assert "\n  fix: if it was changed," in checked.out
    assert "\nimage: image is no COW file of use" in checked.out
    broken = run("cow", "check", "left", "--json")
    (record,) = broken.records
    assert record["used_by"] is None
    assert (broken.status, record["cow"], record["ok"], len(record["problems"])) == (1, "left", False, 1)


def test_file_that_cannot_be_shown_keeps_none_from_being_shown(run: Run, folder: Path) -> None:
    run("cow", "create", "left", "image")
    shown = run("cow", "info", "none\n", "left", "image")
    assert shown.status == 1
    assert shown.out.startswith("left:\n  version       3\n")
    assert [line[:40] for line in shown.err.splitlines()] == [
        r"umlab: cannot open none\n: No such file o"[:40],
        "umlab: image is no COW file of use: bad ",
    ]


def test_check_names_what_helps_where_the_backing_file_was_moved(run: Run, folder: Path) -> None:
    run("cow", "create", "a cow", "image")
    (folder / "image").rename("moved")
    (record,) = run("cow", "check", "a cow", "--json").records
    (problem,) = record["problems"]
    assert problem["problem"] == f"cannot open {folder}/image: No such file or directory"
    assert problem["fix"] == "put it back, or say where it is now: umlab cow rebase 'a cow' BACKING"


def test_check_says_who_runs_on_a_disk(run: Run, folder: Path) -> None:
    run("cow", "create", "left", "image")
    with CowFile("left", write=True) as file:
        lock_file(file.fd, "left", exclusive=True)
        checked = run("cow", "check", "left")
    assert (checked.status, checked.out) == (0, "left: ok\nleft: in use by another program\n")


def test_path_of_a_header_steers_no_terminal_and_makes_no_line(run: Run, folder: Path) -> None:
    backing = folder / "a\x1b[2J\n  in use by  me"
    backing.write_bytes(bytes(SIZE))
    write_cow(folder / "left", "v3", backing, {})
    assert f"{folder}/a\\x1b[2J\\n  in use by  me\n" in run("cow", "info", "left").out


def test_merge_makes_an_image(run: Run, folder: Path) -> None:
    write_cow(folder / "left", "v3", folder / "image", CHANGES)
    assert run("cow", "merge", "left", "new").out == "new: made, 1.0 MiB\n"
    assert (folder / "new").read_bytes()[: SECTOR + 1] == b"A" * SECTOR + (folder / "image").read_bytes()[
        SECTOR : SECTOR + 1
    ]
    assert run("cow", "merge", "left", "new").status == 1
    (record,) = run("cow", "merge", "left", "new", "--force", "--json").records
    assert record == {"cow": "left", "image": "new", "size": SIZE}
    for words in (("left",), ("left", "new", "--in-place")):
        assert run("cow", "merge", *words).status == 2


def test_backing_file_that_others_need_is_merged_into_only_when_told(run: Run, folder: Path) -> None:
    snapshots = folder / "XDG_DATA_HOME/umlab/snapshots/one"
    labs = folder / "XDG_STATE_HOME/umlab/lab"
    for each in (snapshots, labs):
        each.mkdir(parents=True)
    others = [folder / "right", snapshots / "a", labs / "b"]
    for path in (folder / "left", *others):
        write_cow(path, "v3", folder / "image", CHANGES)
    before = (folder / "image").read_bytes()
    refused = run("cow", "merge", "left", "--in-place")
    assert refused.status == 1
    assert refused.err.endswith("of no use after that; merge into a new file, or use --force\n")
    assert all(str(path) in refused.err for path in others)
    assert (folder / "image").read_bytes() == before
    (record,) = run("cow", "merge", "left", "--in-place", "--force", "--json").records
    assert record["image"] == f"{folder}/image"
    assert sorted(record["of_no_use"]) == sorted(["left", *map(str, others)])
    assert (folder / "image").read_bytes()[:SECTOR] == b"A" * SECTOR
    # Now nobody depends on it.
    run("cow", "create", "left", "image", "--force")
    assert run("cow", "merge", "left", "--in-place").out == (
        f"{folder}/image: merged; of no use any more: left\n"
    )


def test_rebase_takes_what_was_moved(run: Run, folder: Path) -> None:
    run("cow", "create", "left", "image")
    (folder / "image").rename("moved")
    assert run("cow", "rebase", "left", "moved").out == "left: for moved now\n"
    assert run("cow", "rebase", "left", "moved").out == "left: as it was\n"
    os.utime("moved", (8, 8))
    refused = run("cow", "rebase", "left", "moved")
    assert refused.status == 1
    assert "use umlab cow rebase --unsafe left" in refused.err
    (record,) = run("cow", "rebase", "left", "moved", "--unsafe", "--json").records
    assert record == {"cow": "left", "backing": "moved", "changed": True}
    assert run("cow", "check", "left").status == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_interrupt_leaves_everything_as_it_was(folder: Path, number: signal.Signals) -> None:
    write_cow(folder / "left", "v3", folder / "image", CHANGES)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    words = ["cow", "merge", "left", "--in-place"]
    with subprocess.Popen([sys.executable, "-c", _STOPPING, *words], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"in the middle\n"
        process.send_signal(number)
        assert process.communicate()[0] == b""
    assert process.returncode == 128 + number
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_signal_that_the_caller_ignores_ends_nothing(folder: Path) -> None:
    write_cow(folder / "left", "v3", folder / "image", CHANGES)
    program = _STOPPING.replace("signal.pause()", "signal.raise_signal(signal.SIGHUP)")
    words = ["nohup", sys.executable, "-c", program, "cow", "merge", "left", "new"]
    subprocess.run(words, capture_output=True, check=True)
    assert (folder / "new").read_bytes()[:SECTOR] == CHANGES[0]


def test_signal_that_comes_when_the_image_is_in_place_waits_until_that_is_told(folder: Path) -> None:
    write_cow(folder / "left", "v3", folder / "image", CHANGES)
    replaced = """
        import os, signal
        from umlab.cli.main import main
        replace = os.replace
        os.replace = lambda *paths: (replace(*paths), signal.raise_signal(signal.SIGINT))
        main()
    """
    words = [sys.executable, "-c", textwrap.dedent(replaced), "cow", "merge", "left", "--in-place"]
    done = subprocess.run(words, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (128 + signal.SIGINT, "")
    assert done.stdout == f"{folder}/image: merged; of no use any more: left\n"
    assert (folder / "image").read_bytes()[:SECTOR] == CHANGES[0]


def test_word_is_said_only_where_something_takes_long(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with told_if_long("removing"):
        pass
    assert capsys.readouterr().err == ""
    monkeypatch.setattr("umlab.cli.progress._SILENCE", 0.0)
    with told_if_long("removing"):
        wait_until(lambda: capsys.readouterr().err == "removing\n", 10, "it is said")
    assert capsys.readouterr().err == ""


def test_progress_is_shown_after_a_second(capsys: pytest.CaptureFixture[str]) -> None:
    now = [100.0]

    def show(*times: float) -> None:
        with ProgressLine("a\x1b[2J\n") as progress:
            for done, now[0] in enumerate(times, 1):
                progress(done, 10)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("time.monotonic", lambda: now[0])
        show(100.9, 101.1, 102, 112)
        assert capsys.readouterr().err == "a\\x1b[2J: 20 %\na\\x1b[2J: 40 %\n"
        patch.setattr(sys.stderr, "isatty", lambda: True)
        show(112.9, 113.1, 113.2, 113.4)
        assert capsys.readouterr().err == "\ra\\x1b[2J: 20 %\ra\\x1b[2J: 40 %\r\x1b[K"
