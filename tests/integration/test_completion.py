"""Completion of commands, options and names, in real shells."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.deadline import scaled
from support.lab_thread import LabThread
from support.require import require_program
from support.terminal_session import TerminalSession

pytestmark = [pytest.mark.integration, pytest.mark.any_user]

BIN = Path(sys.executable).parent

PROMPT = "prompt> "
#: What is typed, and what Tab makes of it.
TYPED = [
    ("umlab swi", "umlab switch "),
    ("umlab guest at", "umlab guest attach "),
    ("umlab guest device sh", "umlab guest device show "),
    ("umlab switch ls --wa", "umlab switch ls --watch "),
    ("umlab switch show la", "umlab switch show lan "),
    ("umlab switch show ring/", "umlab switch show ring/core "),
    ("umlab guest logs le", "umlab guest logs left "),
    ("umlab events ri", "umlab events ring "),
]


@pytest.fixture
def environment(short_dir: Path) -> Iterator[dict[str, str]]:
    """The environment of a shell beside two labs and one that hangs."""
    (short_dir / "umlab/hung").mkdir(parents=True)
    with (
        socket.socket(socket.AF_UNIX) as hung,
        LabThread(short_dir, "lan", ("lan",), ("left",)),
        LabThread(short_dir, "ring", ("core",)),
    ):
        hung.bind(str(short_dir / "umlab/hung/api.sock"))
        hung.listen(8)
        yield os.environ | {
            "XDG_RUNTIME_DIR": str(short_dir),
            "HOME": str(short_dir),
            "PATH": f"{BIN}:{os.environ['PATH']}",
            "PS1": PROMPT,
            "TERM": "dumb",
        }


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_tab_completes(shell: str, environment: dict[str, str]) -> None:
    program = require_program(shell) if shell != "bash" else "/bin/bash"
    options = {"bash": ["--norc", "--noprofile", "-i"], "zsh": ["-f", "-i"]}[shell]
    begin = {"bash": "", "zsh": "autoload -Uz compinit; compinit -u -D; "}[shell]
    with TerminalSession([program, *options], environment, (40, 200)) as session:
        session.wait_for(PROMPT)
        session.type(f'{begin}eval "$(_UMLAB_COMPLETE=source_{shell} umlab)"; echo re""ady\r')
        session.wait_for("ready")
        session.wait_for(PROMPT)
        for typed, completed in TYPED:
            session.type(typed)
            session.wait_for(typed)
            session.type("\t")
            session.wait_for(completed.removeprefix(typed))
            # Leave the line, and see that the shell is ready for the next one.
            session.type("\x15")
            session.type("echo do''ne\r")
            session.wait_for("done")
            session.wait_for(PROMPT)
        assert b"Traceback" not in session.shown


def test_fish_completes(environment: dict[str, str]) -> None:
    fish = require_program("fish")
    script = "_UMLAB_COMPLETE=source_fish umlab | source\n"
    # It starts the program twice for each.
    typed_words = TYPED[::2]
    script += "\n".join(f"complete -C '{typed}'; echo =" for typed, _ in typed_words)
    done = subprocess.run(
        [fish, "--no-config", "-c", script],
        env=environment,
        capture_output=True,
        text=True,
        timeout=scaled(60),
        check=True,
    )
    answers = done.stdout.split("=\n")
    for (_, completed), answer in zip(typed_words, answers, strict=False):
        # One line each, a description behind a tab.
        assert [line.partition("\t")[0] for line in answer.splitlines()] == [completed.split()[-1]]
    assert done.stderr == ""


@pytest.mark.parametrize("state", ["nothing", "strange", "hung"])
def test_completion_is_silent_and_quick_whatever_the_state(state: str, short_dir: Path) -> None:
    base = short_dir / "umlab"
    listeners = []
    if state == "strange":
        base.write_text("no directory")
    if state == "hung":
        for number in range(10):
            (base / f"hung{number}").mkdir(parents=True)
            listeners.append(socket.socket(socket.AF_UNIX))
            listeners[-1].bind(str(base / f"hung{number}/api.sock"))
            listeners[-1].listen(8)
    environment = os.environ | {"XDG_RUNTIME_DIR": str(short_dir)}

    def complete(words: str) -> tuple[float, str, str]:
        begin = time.monotonic()
        done = subprocess.run(
            [BIN / "umlab"],
            env=environment
            | {"_UMLAB_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(words.count(" "))},
            capture_output=True,
            text=True,
            timeout=scaled(60),
            check=False,
        )
        return time.monotonic() - begin, done.stdout, done.stderr

    try:
        static = min(complete("umlab switch sho")[0] for _ in range(3))
        took, out, err = min(complete("umlab switch show ") for _ in range(3))
    finally:
        for listener in listeners:
            listener.close()
    assert (out.strip(), err) == ("", "")
    # A static word needs the same program, and asks nobody.
    assert took - static < scaled(0.6)
