"""The umid of a process: from its command line or its pid file, and nothing that a guest could abuse."""

from __future__ import annotations

import contextlib
import os
import pwd
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from umlab.guest.umid import umid_of


@contextlib.contextmanager
def process(*words: str) -> Iterator[int]:
    """Run a process with a command line of these words until the block ends."""
    command = [sys.executable, "-c", "input(1)", *words]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as running:
        try:
            # It has its command line a moment after it was started.
            assert running.stdout is not None
            assert running.stdout.read(1)
            yield running.pid
        finally:
            running.communicate(b"\n")


@pytest.mark.parametrize(
    ("words", "umid"),
    [
        (("umid=left",), "left"),
        (("mem=64M", "umid=first", "umid=second"), "first"),
        (("umid=",), None),
        (("umid=a/b",), None),
        (("umid=\x1b[2J",), None),
        ((f"umid={'x' * 65}",), None),
        (("notumid=x",), None),
    ],
)
def test_command_line_says_it(words: tuple[str, ...], umid: str | None, tmp_path: Path) -> None:
    with process(f"uml_dir={tmp_path}", *words) as pid:
        assert umid_of(pid, os.geteuid()) == umid


def test_process_without_the_argument_is_found_by_its_pid_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, text in (("other", "1\n"), ("empty", "")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "pid").write_text(text)
    (tmp_path / "trap").mkdir()
    os.mkfifo(tmp_path / "trap/pid")
    with process(f"uml_dir={tmp_path}") as told, process() as plain:
        assert umid_of(told, os.geteuid()) is None
        (tmp_path / "a1B2c3").mkdir()
        (tmp_path / "a1B2c3/pid").write_text(f"{told}\n")
        assert umid_of(told, os.geteuid()) == "a1B2c3"
        assert umid_of(told, None) is None
        # Where the kernel keeps it by itself: below the home of its user.
        home = pwd.struct_passwd(("x", "x", 0, 0, "", str(tmp_path / "home"), ""))
        monkeypatch.setattr(pwd, "getpwuid", lambda uid: home)
        assert umid_of(plain, os.geteuid()) is None
        (tmp_path / "home/.uml/d4E5f6").mkdir(parents=True)
        (tmp_path / "home/.uml/d4E5f6/pid").write_text(f"{plain}\n")
        assert umid_of(plain, os.geteuid()) == "d4E5f6"


def test_process_that_is_gone_has_none() -> None:
    with process("umid=left") as pid:
        pass
    assert umid_of(pid, 4_000_000_000) is None
