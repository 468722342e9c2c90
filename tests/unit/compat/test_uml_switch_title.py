"""The command line that others see, in a process of its own each time."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

REPORT = """
import os, sys
from umlab.compat import _process_title
{before}
shown = _process_title.show_script_command_line(sys.argv)
print([shown, open("/proc/self/cmdline", "rb").read(), open("/proc/self/comm").read()])
os.environ["CHANGED"] = "the environment lies behind the arguments"
assert open("/proc/self/environ", "rb").read().startswith(b"FIRST=1\\0")
"""


def run(script: Path, *words: str, before: str = "", options: str = "") -> tuple[bool, bytes, str]:
    script.write_text(f"#!{sys.executable} {options}\n{REPORT.format(before=before)}")
    script.chmod(0o755)
    done = subprocess.run(
        [str(script), *words], env={"FIRST": "1", "SECOND": "2"}, capture_output=True, text=True, check=True
    )
    shown, command_line, name = eval(done.stdout)
    return shown, command_line, name


def joined(*words: object) -> bytes:
    return b"".join(str(word).encode() + b"\0" for word in words)


@pytest.mark.parametrize("options", ["", "-u"])
@pytest.mark.parametrize("words", [[], ["-unix", "/a path/ctl"], ["-tap", "", "ü"]])
def test_script_is_shown_with_its_words_and_nothing_behind(
    short_dir: Path, options: str, words: list[str]
) -> None:
    script = short_dir / "uml_switch"
    assert run(script, *words, options=options) == (True, joined(script, *words), "uml_switch\n")


def test_long_name_is_cut_as_the_kernel_does(short_dir: Path) -> None:
    script = short_dir / "a-name-of-more-than-15-bytes"
    assert run(script, "-hub") == (True, joined(script, "-hub"), "a-name-of-more-\n")


def test_kernel_that_refuses_gets_the_words_moved(short_dir: Path) -> None:
    script = short_dir / "uml_switch"
    refuse = "_process_title._PR_SET_MM = -1"
    shown, command_line, _ = run(script, "-unix", "ctl", before=refuse)
    assert shown
    wanted = joined(script, "-unix", "ctl")
    assert command_line.startswith(wanted)
    assert command_line[len(wanted) :].strip(b"\0") == b""


def test_plain_users_way_shows_the_same(short_dir: Path) -> None:
    """Without root's privilege only the checkpoint interface is left."""
    script = short_dir / "uml_switch"
    no_privilege = "_process_title._PR_SET_MM_ARG_START = -1"
    assert run(script, "-unix", "ctl", before=no_privilege)[1] == joined(script, "-unix", "ctl")


def test_shown_twice_is_shown_once(short_dir: Path) -> None:
    script = short_dir / "uml_switch"
    again = "_process_title.show_script_command_line(sys.argv)"
    assert run(script, "-hub", before=again) == (True, joined(script, "-hub"), "uml_switch\n")


@pytest.mark.parametrize(
    "before",
    [
        "sys.argv[1] = 'other'",
        "_process_title.open = lambda *_: exec('raise PermissionError')",
    ],
)
def test_what_cannot_be_shown_changes_nothing(short_dir: Path, before: str) -> None:
    script = short_dir / "uml_switch"
    shown, command_line, _ = run(script, "-hub", before=before)
    assert not shown
    assert command_line.endswith(joined(script, "-hub"))
    assert command_line.startswith(sys.executable.encode())
