"""The command line, run in this process against labs without kernels."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from support.cli_run import Done, Run
from support.guest_roots import guests as guests
from support.guest_roots import runtime as runtime
from umlab.cli.main import main


@pytest.fixture
def run(runtime: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Return what runs ``umlab`` with some words and returns how it ended."""

    def run(*words: str) -> Done:
        monkeypatch.setattr(sys, "argv", ["umlab", *words])
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main()
        code = ended.value.code
        captured = capsys.readouterr()
        return Done(code if isinstance(code, int) else 0, captured.out, captured.err)

    return run
