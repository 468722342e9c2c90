"""Places to listen as text, and the toy transport of the how-to: one module and its name in the registry."""

from __future__ import annotations

import contextlib
import json
import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import umlab
from support.deadline import scaled, wait_until_async
from support.engines import ENGINES
from support.guest_end import BROADCAST, frame, mac
from support.require import ROOT
from umlab._clock import MonotonicClock
from umlab.daemon.switch import SwitchService
from umlab.errors import TransportError
from umlab.switch.model import SwitchConfig
from umlab.transports.bess import BessListener
from umlab.transports.contract import Access
from umlab.transports.daemon import DaemonListener
from umlab.transports.registry import TRANSPORTS, parse_listen
from umlab.transports.tap import TapListener

HOWTO = ROOT / "docs/howto/add-a-transport.md"
(MODULE,) = re.findall(r"^```python\n(.*?)^```", HOWTO.read_text(), re.MULTILINE | re.DOTALL)
UMLAB = [sys.executable, "-c", "from umlab.cli.main import main; main()"]


@pytest.fixture
def _registered(monkeypatch: pytest.MonkeyPatch) -> None:
    """Do in this process what the how-to tells."""
    names: dict[str, Any] = {"__name__": "umlab.transports.toy"}
    exec(compile(MODULE, str(HOWTO), "exec", dont_inherit=True), names)
    monkeypatch.setitem(TRANSPORTS, "toy", names["TRANSPORT"])


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Return a source directory that is ours, but for what the how-to tells."""
    ours = Path(umlab.__file__).parent
    package = tmp_path / "umlab"
    (package / "transports").mkdir(parents=True)
    for theirs, folder in ((ours, package), (ours / "transports", package / "transports")):
        for path in theirs.iterdir():
            if path.name not in ("transports", "registry.py", "__pycache__"):
                (folder / path.name).symlink_to(path)
    registry = (ours / "transports/registry.py").read_text()
    for place, name in (
        (r"from umlab\.transports import \(?", "toy, "),
        (r"for each in \(", "toy.TRANSPORT, "),
    ):
        registry, count = re.subn(place, lambda found, name=name: found[0] + name, registry)  # type: ignore[misc]
        assert count == 1
    (package / "transports/registry.py").write_text(registry)
    (package / "transports/toy.py").write_text(MODULE)
    return tmp_path


@pytest.mark.parametrize(
    ("spec", "kind", "where"),
    [
        ("daemon:/tmp/uml.ctl", DaemonListener, "/tmp/uml.ctl"),
        ("daemon:/tmp/a:b,/tmp/uml.data", DaemonListener, "/tmp/a:b,/tmp/uml.data"),
        ("daemon:/tmp/uml.ctl,", DaemonListener, "/tmp/uml.ctl"),
        ("bess:/tmp/bess", BessListener, "/tmp/bess"),
        ("tap:tap0", TapListener, "tap0"),
    ],
)
def test_spec_names_a_kind_and_a_place(spec: str, kind: type, where: str) -> None:
    listener = parse_listen(spec)
    assert type(listener) is kind
    assert listener.where == where
    assert spec.startswith(f"{listener.kind}:")


@pytest.mark.parametrize(
    ("spec", "arguments"),
    [
        ("daemon:ctl", [("uml", "eth0=daemon,,unix,{0}/ctl", "daemon")]),
        ("daemon:ctl,/tmp/uml.data", [("uml", "eth0=daemon,,unix,{0}/ctl,/tmp/uml.data", "daemon")]),
        ("bess:there/bess", [("uml", "vec0:transport=bess,dst={0}/there/bess", "bess")]),
        ("tap:tap0", []),
    ],
)
def test_what_a_guest_is_told_holds_in_its_own_directory(
    spec: str, arguments: list[tuple[str, str, str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    found = [(each.program, each.text, each.needs) for each in parse_listen(spec).arguments]
    assert found == [(program, text.format(tmp_path), needs) for program, text, needs in arguments]


@pytest.mark.parametrize(
    "spec", ["", "/tmp/uml.ctl", "daemon", "daemon:", "nothing:/tmp/x", ":x", "Daemon:/tmp/x"]
)
def test_spec_that_is_none_says_what_would_be_one(spec: str) -> None:
    with pytest.raises(TransportError) as caught:
        parse_listen(spec)
    forms = [each.form for each in TRANSPORTS.values()]
    assert {"daemon:CTL[,DATA]", "bess:PATH", "tap:DEVICE"} <= set(forms)
    assert str(caught.value).endswith(f"write one of {', '.join(forms)}")


def test_every_transport_is_named_as_its_places_are() -> None:
    for kind, transport in TRANSPORTS.items():
        assert transport.kind == kind
        assert transport.form.startswith(f"{kind}:")


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.usefixtures("_registered")
async def test_toy_transport_is_a_port_like_any_other(engine: str, short_dir: Path) -> None:
    clock, config = MonotonicClock(), SwitchConfig()
    toy = parse_listen(f"toy:{short_dir}/toy", Access(mode=0o640))
    service = SwitchService(
        "toy", config, [toy, parse_listen(f"bess:{short_dir}/bess")], engine=ENGINES[engine](config, clock)
    )
    await service.start()
    try:
        with (
            socket.socket(socket.AF_UNIX) as left,
            socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as right,
        ):
            for sock, name in ((left, "toy"), (right, "bess")):
                sock.settimeout(scaled(10))
                sock.connect(f"{short_dir}/{name}")
            await wait_until_async(lambda: len(service.ports()) == 2, 10, "two ports")
            out, back = frame(BROADCAST, mac(1)), frame(mac(1), mac(2))
            left.send(len(out).to_bytes(4) + out)
            assert right.recv(100) == out
            right.send(back)
            assert left.recv(4 + len(back), socket.MSG_WAITALL) == len(back).to_bytes(4) + back
            ports = {port.kind: port.peer.pid for port in service.ports() if port.peer is not None}
            assert ports == {"toy": os.getpid(), "bess": os.getpid()}
            assert (short_dir / "toy").stat().st_mode & 0o777 == 0o640
            left.close()
            await wait_until_async(lambda: len(service.ports()) == 1, 10, "the end of a port")
    finally:
        await service.stop()
    assert not (short_dir / "toy").exists()


@contextlib.contextmanager
def _switch_run(environment: dict[str, str], *words: str) -> Iterator[dict[str, Any]]:
    """Run a switch until the block ends; yield what it says first."""
    with subprocess.Popen(
        [*UMLAB, "switch", "run", *words, "--json"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        env=environment,
    ) as process:
        try:
            assert process.stdout is not None
            yield json.loads(process.stdout.readline())
        finally:
            process.terminate()
            process.communicate(timeout=scaled(20))


def _umlab(environment: dict[str, str], *words: str) -> str:
    command = [*UMLAB, *words]
    return subprocess.run(command, capture_output=True, text=True, env=environment, check=True).stdout


def test_one_module_and_its_name_are_all_that_a_transport_needs(source: Path, short_dir: Path) -> None:
    environment = os.environ | {"PYTHONPATH": str(source), "XDG_RUNTIME_DIR": str(short_dir)}
    (short_dir / "lab.yaml").write_text('segments: {lan: {listen: [toy, "toy:deep/../own.toy"]}}')
    argument = "-netdev stream,id=net0,addr.type=unix,addr.path="
    places = [f"{short_dir}/umlab/lan/lan.toy", f"{short_dir}/own.toy"]

    with _switch_run(environment, "lan", "--file", f"{short_dir}/lab.yaml") as started:
        assert [(each["kind"], each["where"]) for each in started["listeners"]] == [
            ("toy", place) for place in places
        ]
        with socket.socket(socket.AF_UNIX) as guest:
            guest.connect(places[1])
            shown = json.loads(_umlab(environment, "switch", "show", "lan", "--json"))
        assert [port["kind"] for port in shown["ports"]] == ["toy"]
        told = [
            json.loads(line) for line in _umlab(environment, "switch", "args", "lan", "--json").splitlines()
        ]
        assert [(each["program"], each["transport"], each["argument"]) for each in told] == [
            ("qemu", "toy", f"{argument}{place}") for place in places
        ]

    # Without a word about where, and as the option has it.
    with _switch_run(environment, "lan") as started:
        assert ("toy", places[0]) in [(each["kind"], each["where"]) for each in started["listeners"]]
    with _switch_run(environment, "lan", "--listen", f"toy:{short_dir}/x.toy") as started:
        assert [each["where"] for each in started["listeners"]] == [f"{short_dir}/x.toy"]
    assert "toy:PATH" in _umlab(environment | {"COLUMNS": "200"}, "switch", "run", "--help")
