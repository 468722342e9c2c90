"""``uml_mkcow`` and ``uml_moo`` beside the originals: the same, but for what is listed."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from support.cow_cases import MKCOW, MOO, Case, listed_differences
from support.require import require_program
from umlab.compat import uml_mkcow, uml_moo

pytestmark = [pytest.mark.integration, pytest.mark.any_user]

#: What a call leaves behind: stdout, stderr, status, and every file with its bytes.
Outcome = dict[str, object]


@pytest.fixture
def place(short_dir: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Case], list[str]]:
    """Return what makes a case's folder anew, goes there, and returns the words."""
    monkeypatch.setenv("XDG_DATA_HOME", str(short_dir / "data"))
    folder = short_dir / "f"

    def make(case: Case) -> list[str]:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        monkeypatch.chdir(folder)
        case[1]()
        return case[0].split()

    return make


def outcome(stdout: str, stderr: str, status: int) -> Outcome:
    """Return a call's outcome in the working directory."""
    files = {name: Path(name).read_bytes() for name in sorted(os.listdir()) if os.path.isfile(name)}
    return {"stdout": stdout, "stderr": stderr, "status": status, "files": files}


@pytest.mark.parametrize(
    ("program", "main", "cases"), [("uml_mkcow", uml_mkcow.main, MKCOW), ("uml_moo", uml_moo.main, MOO)]
)
def test_everything_is_as_with_the_original_but_for_what_is_listed(
    place: Callable[[Case], list[str]],
    capsys: pytest.CaptureFixture[str],
    program: str,
    main: Callable[[list[str]], int],
    cases: dict[str, Case],
) -> None:
    original, found = require_program(program), {}
    for name, case in cases.items():
        words = [program, *place(case)]
        done = subprocess.run(words, executable=original, capture_output=True, text=True)
        theirs = outcome(done.stdout, done.stderr, done.returncode)
        place(case)
        status = main(words)
        ours = outcome(*capsys.readouterr(), status)
        if different := {part for part in ours if ours[part] != theirs[part]}:
            found[name] = different
    assert found == listed_differences(program)


def test_new_files_are_the_originals_to_the_byte(short_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original = require_program("uml_mkcow")
    monkeypatch.chdir(short_dir)
    edges = [512, 4096, 512 * 8 * 4096, (1 << 32) - 1, 1 << 40]
    sizes = {1, *(edge + step for edge in edges for step in (-1, 0, 1, 513))}
    for size in sorted(sizes):
        with Path("image").open("wb") as file:
            file.truncate(size)
        os.utime("image", (7, size % 0xFFFFFFFF))
        subprocess.run([original, "-f", "theirs", "image"], check=True)
        assert uml_mkcow.main(["uml_mkcow", "-f", "ours", "image"]) == 0
        theirs, ours = Path("theirs"), Path("ours")
        assert ours.stat().st_size == theirs.stat().st_size
        assert ours.stat().st_blocks <= theirs.stat().st_blocks
        assert ours.stat().st_mode == theirs.stat().st_mode
        with ours.open("rb") as one, theirs.open("rb") as other:
            # What is behind is a hole in both, but for a byte at the end.
            assert one.read(1 << 16) == other.read(1 << 16)
        theirs.unlink()
