"""How the command line begins and ends."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

from umlab.cli import app
from umlab.cli.main import main

#: Interrupts itself when a module is imported.
_INTERRUPTED = """
import os, signal, sys
from umlab.cli.main import main

class Finder:
    def find_spec(name, *_):
        if name == moment:
            os.kill(os.getpid(), signal.SIGINT)

moment, *sys.argv[1:] = sys.argv[1:]
sys.meta_path.insert(0, Finder)
main()
"""


@pytest.mark.parametrize(
    ("moment", "status"),
    [
        ("typer", -signal.SIGINT),
        ("umlab.cli.snapshot", -signal.SIGINT),
        # When it says how a command is called, and when that is run.
        ("typer.rich_utils", 130),
        ("umlab.guest.disk.cow_check", 130),
    ],
)
def test_interrupt_ends_it_without_a_word(moment: str, status: int) -> None:
    words = ["--help"] if "rich" in moment else ["cow", "info", "/dev/null"]
    done = subprocess.run([sys.executable, "-c", _INTERRUPTED, moment, *words], capture_output=True)
    assert (done.returncode, done.stdout, done.stderr) == (status, b"", b"")


def test_interrupt_between_the_imports_and_a_command_has_its_status(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt() -> None:
        signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(app, "prepare_standard_streams", interrupt)
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 130


def test_interrupt_that_the_caller_ignores_does_not_end_it() -> None:
    script = 'trap "" INT; exec "$0" "$@"'
    command = ["sh", "-c", script, sys.executable, "-c", _INTERRUPTED, "typer", "--version"]
    assert subprocess.run(command, capture_output=True, check=True).stdout.startswith(b"umlab ")
