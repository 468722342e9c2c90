"""The how-to about simulated guests names every fault, and its examples run."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from support.require import ROOT
from umlab.testing import fault

TEXT = (ROOT / "docs/howto/test-against-simulated-guests.md").read_text()


def test_every_fault_has_its_line() -> None:
    names = set(fault.__all__) - {"Fault", "Step"}
    assert [name for name in sorted(names) if not re.search(rf"`{name}[`(]", TEXT)] == []


def test_examples_run(
    short_dir: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("tempfile.mkdtemp", lambda: short_dir)
    names: dict[str, object] = {}
    for block in re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL):
        exec(compile(block, "test-against-simulated-guests.md", "exec"), names)
    output = capsys.readouterr().out
    assert "7.50 3.00 1.00 " in output
    assert "guest web did not answer 'version' in time" in output
    assert "guest web does not run: nobody listens on" in output
    assert list(short_dir.iterdir()) == []
