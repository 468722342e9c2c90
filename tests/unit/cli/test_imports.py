"""What a command loads: starting fast is loading little."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from support.lab_thread import LabThread

_RUN = """
import sys
sys.argv = ["umlab", *sys.argv[1:]]
from umlab.cli.main import main
try:
    main()
finally:
    print(*sorted(sys.modules), file=sys.stderr)
"""

#: Each of these costs more than showing help may take.
HEAVY = {"asyncio", "pydantic", "fastapi", "uvicorn", "websockets", "h11", "ruamel", "prometheus_client"}
#: What showing a table needs to ask a daemon.
FOR_ASKING = {"pydantic", "h11"}


def loaded(words: tuple[str, ...], runtime: Path) -> set[str]:
    """Return the modules that a command has loaded at its end."""
    done = subprocess.run(
        [sys.executable, "-c", _RUN, *words],
        capture_output=True,
        text=True,
        env={"XDG_RUNTIME_DIR": str(runtime)},
        check=True,
    )
    return set(done.stderr.splitlines()[-1].split())


@pytest.mark.parametrize("words", [("--help",), ("--version",), ("switch", "ls", "--help")])
def test_help_loads_no_client(words: tuple[str, ...], runtime: Path) -> None:
    modules = loaded(words, runtime)
    # With it typer checks numbers, such as those of --watch.
    assert modules & HEAVY <= ({"pydantic"} if "switch" in words else set())
    assert not any(name.startswith(("umlab.client", "umlab.api", "umlab.daemon")) for name in modules)


def test_asking_loads_only_what_asks(runtime: Path) -> None:
    with LabThread(runtime, "lan", ("lan",), ("left",)):
        for words in (("switch", "ls"), ("switch", "show", "lan"), ("guest", "ls")):
            modules = loaded(words, runtime)
            # Guests are asked side by side.
            assert modules & HEAVY == {*FOR_ASKING, *(("asyncio",) if "guest" in words else ())}
            # Nobody looks at these in a pipe.
            assert "rich.table" not in modules


def test_one_command_for_guests_loads_no_shell(runtime: Path) -> None:
    assert "umlab.cli.console_run" not in loaded(("console", "--help"), runtime)
    with LabThread(runtime, "lan", guests=("left",)):
        modules = loaded(("console", "left", "--", "version"), runtime)
    assert modules & HEAVY == {*FOR_ASKING, "asyncio"}
    assert not modules & {"prompt_toolkit", "rich.table", "umlab.cli.console_shell"}
