"""The engine that UMLAB_ENGINE asks for is the one that runs, and whatever shows engines says so."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from integration.peers.uml_switch import program_path
from support.deadline import scaled
from support.engines import ENGINES
from support.unix_http import request

pytestmark = [pytest.mark.integration, pytest.mark.any_user]

UMLAB = Path(sys.executable).with_name("umlab")
BEST = "native" if "native" in ENGINES else "py"


@pytest.mark.parametrize(("wanted", "kind"), [("auto", BEST), ("py", "py"), (BEST, BEST)])
async def test_engine_that_runs_is_shown_everywhere(short_dir: Path, wanted: str, kind: str) -> None:
    places = {"XDG_RUNTIME_DIR": str(short_dir), "XDG_STATE_HOME": str(short_dir / "state")}
    environment = os.environ | places | {"UMLAB_ENGINE": wanted}

    def umlab(*words: str) -> str:
        done = subprocess.run(
            [UMLAB, *words], capture_output=True, text=True, timeout=scaled(60), env=environment, check=True
        )
        return done.stdout

    try:
        assert f"({kind} engine)" in umlab("switch", "run", "lan", "--background")
        assert json.loads(umlab("switch", "ls", "--json"))["engine"] == kind
        assert f", {kind} engine" in umlab("switch", "show", "lan")
        socket = short_dir / "umlab/lan/api.sock"
        assert (await request(socket, "GET", "/v1/switches/lan")).json["engine"] == kind
        metrics = (await request(socket, "GET", "/metrics")).body.decode()
        assert f'umlab_switch_info{{engine="{kind}",switch="lan"}} 1.0' in metrics
        log = (short_dir / "state/umlab/lan/daemon.log").read_text()
        assert log.count(f"engine {kind} (UMLAB_ENGINE={wanted})") == 1
        doctor = json.loads(umlab("doctor", "--json"))["findings"]
        (finding,) = [each for each in doctor if each["name"] == "engine"]
        assert finding["detail"].endswith(f"engine {kind}")
    finally:
        umlab("switch", "stop", "lan")


def test_drop_in_without_the_engine_that_is_asked_for_says_so_in_one_line(short_dir: Path) -> None:
    done = subprocess.run(
        [program_path("ours"), "-unix", short_dir / "ctl"],
        env=os.environ | {"UMLAB_ENGINE": "fast"},
        capture_output=True,
        text=True,
        timeout=scaled(20),
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "UMLAB_ENGINE must be auto, native or py, not 'fast'\n"
    assert list(short_dir.iterdir()) == []
