"""The examples of the how-to do what it says."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from support.lab_thread import LabThread
from support.require import ROOT

PAGE = ROOT / "docs/howto/use-the-client-from-python.md"


def test_every_example_runs(runtime: Path, capsys: pytest.CaptureFixture[str]) -> None:
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    names: dict[str, object] = {}
    with LabThread(runtime, "lan", ("lan",)) as daemon:
        daemon.call(lambda lab: lab.add_port("lan", 1))
        daemon.call(lambda lab: lab.events.publish({"event": "port_attached", "port_no": 1}))
        for block in blocks:
            exec(compile(block, PAGE.name, "exec"), names)
        assert daemon.call(lambda lab: lab.switch("lan").config.hub)
        assert daemon.call(lambda lab: lab.asked) == [("sysrq", "s")]
    printed = capsys.readouterr().out.splitlines()
    assert printed[0] == "lan lan 1 ports, 1 addresses"
    assert "False" in printed
    assert "10" in printed
    assert "Linux version 6.1" in printed
    assert any(line.startswith("port_attached {") for line in printed)
    # A terminal in its usual mode shows what is typed.
    assert any(line.startswith("b'uname") for line in printed)
    assert any("nowhere does not run" in line for line in printed)
    assert printed[-1] == "7"


def test_every_method_is_named() -> None:
    from umlab.client import Client

    text = PAGE.read_text()
    public = {name for name in vars(Client) if not name.startswith("_")} - {"close"}
    assert [name for name in sorted(public) if name not in text] == []
