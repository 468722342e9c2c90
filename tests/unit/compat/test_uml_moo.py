"""``uml_moo``: its options, its messages, its status."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from support.cow_files import KINDS, SECTOR, merged, write_cow
from umlab.compat.uml_moo import main

SIZE = (1 << 20) + 100
CHANGES = {0: b"A" * SECTOR, 9: b"B" * SECTOR}
#: Sends itself a signal: when modules are imported, or when the image is complete.
_INTERRUPTED = """
import os, sys
from umlab.compat.uml_moo import main

number, moment = int(sys.argv[1]), sys.argv[2]
fsync = os.fsync

class Finder:
    def find_spec(name, *_):
        if name == moment:
            os.kill(os.getpid(), number)

sys.meta_path.insert(0, Finder)
os.fsync = lambda fd: (moment == "fsync" and os.kill(os.getpid(), number), fsync(fd))
sys.exit(main(["uml_moo", "-d", "cow"]))
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the working directory, with an image and a COW file in it."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "image").write_bytes(os.urandom(SIZE))
    os.utime(tmp_path / "image", (7, 7))
    write_cow(tmp_path / "cow", "v3", tmp_path / "image", CHANGES)
    return tmp_path


@pytest.mark.parametrize(
    "words",
    [
        "",
        "cow",
        "-d",
        "-b",
        "-h",
        "-b image",
        "-b image cow",
        "cow new more",
        "-d cow new",
        "-d -d cow",
        "-d -b",
        "-b -d cow",
        "-b image -b image cow new",
        "cow new -b image",
    ],
)
def test_usage(words: str, capsys: pytest.CaptureFixture[str], folder: Path) -> None:
    assert main(["/usr/bin/uml_moo", *words.split()]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("uml_moo usage:\n\tuml_moo [ -b <actual backing file> ] <COW file> <new ")
    assert sorted(os.listdir(folder)) == ["cow", "image"]


@pytest.mark.parametrize("kind", KINDS)
def test_image_is_made_of_every_kind(kind: str, capsys: pytest.CaptureFixture[str], folder: Path) -> None:
    write_cow(folder / "cow", kind, folder / "image", CHANGES)
    for _ in range(2):
        assert main(["uml_moo", "cow", "new"]) == 0
    out, err = capsys.readouterr()
    line = "read_cow_header - broken V3 file with 64-bit layout - recovering content.\n"
    assert (out, err) == (2 * line if kind == "broken" else "", "")
    assert (folder / "new").read_bytes() == merged((folder / "image").read_bytes(), CHANGES)


@pytest.mark.parametrize("words", ["-d -b moved cow", "-b moved -d cow", "-b moved cow moved2"])
def test_another_backing_file_may_be_named(words: str, folder: Path) -> None:
    (folder / "image").rename("moved")
    expected = merged((folder / "moved").read_bytes(), CHANGES)
    assert main(["uml_moo", *words.split()]) == 0
    assert (folder / words.split()[-1].replace("cow", "moved")).read_bytes() == expected


def test_merge_in_place_names_what_is_of_no_use_then(
    capsys: pytest.CaptureFixture[str], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(folder / "data"))
    write_cow(folder / "other", "v1", folder / "image", {})
    expected = merged((folder / "image").read_bytes(), CHANGES)
    assert main(["uml_moo", "-d", "cow"]) == 0
    assert capsys.readouterr() == ("", f"uml_moo: of no use any more: {folder.resolve()}/other\n")
    assert (folder / "image").read_bytes() == expected
    assert main(["uml_moo", "-d", "cow"]) == 1
    assert capsys.readouterr().err.startswith("mtime mismatch (7 vs ")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("none new", "COW file open: No such file or directory"),
        ("image new", "Reading COW header failed"),
        ("-b none cow new", "Stating backing file: No such file or directory"),
        ("-b cow cow new", 'Size mismatch (1048676 vs {cow}) of COW header vs backing file "cow"'),
        ("cow no/new", "Output file open: No such file or directory"),
        ("cow .", "Output file open: Is a directory"),
        ("cow image", "uml_moo: image is the backing file itself; name another file"),
        ("cow cow", "uml_moo: cow is the COW file itself; name another file"),
    ],
)
def test_what_cannot_be_merged_leaves_everything(
    words: str, message: str, capsys: pytest.CaptureFixture[str], folder: Path
) -> None:
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert main(["uml_moo", *words.split()]) == 1
    assert capsys.readouterr() == ("", message.format(cow=len(before["cow"])) + "\n")
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


@pytest.mark.parametrize(
    ("number", "moment"),
    [
        (signal.SIGINT, "umlab.errors"),
        (signal.SIGINT, "umlab.guest.disk.cow_merge"),
        (signal.SIGINT, "fsync"),
        (signal.SIGTERM, "fsync"),
        (signal.SIGHUP, "fsync"),
    ],
)
def test_signal_ends_it_and_leaves_everything(number: signal.Signals, moment: str, folder: Path) -> None:
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    command = [sys.executable, "-c", _INTERRUPTED, str(int(number)), moment]
    done = subprocess.run(command, capture_output=True)
    assert (done.returncode, done.stdout, done.stderr) == (-number, b"", b"")
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_signal_that_the_caller_ignores_does_not_end_it(folder: Path) -> None:
    command = ["nohup", sys.executable, "-c", _INTERRUPTED, str(int(signal.SIGHUP)), "fsync"]
    subprocess.run(command, capture_output=True, check=True)
    assert (folder / "image").read_bytes()[:SECTOR] == CHANGES[0]


@pytest.mark.parametrize("program", ["uml_moo", "uml_mkcow"])
def test_little_is_imported_before_signals_are_heeded(program: str) -> None:
    code = (
        "import os, sys; before = {*sys.modules}\n"
        f"import umlab.compat.{program}; print(*sys.modules.keys() - before)"
    )
    # -S: without .pth files, which may have imported one of these before us.
    done = subprocess.run(
        [sys.executable, "-S", "-c", code],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[3] / "src")},
        capture_output=True,
        text=True,
        check=True,
    )
    expected = {"umlab", "umlab.compat", "umlab.compat._interrupt", f"umlab.compat.{program}"}
    assert set(done.stdout.split()) - {"__future__", "errno"} == expected


def test_a_merge_loads_nothing_that_it_can_do_without() -> None:
    program = "import sys; from umlab.compat.uml_moo import main; main(); print(*sys.modules)"
    command = [sys.executable, "-c", program, "cow", "new"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert "umlab.guest.disk.cow_merge" in loaded
    heavy = {"asyncio", "typer", "rich", "pydantic", "argparse", "subprocess", "socket", "random", "logging"}
    assert loaded & heavy == set()
