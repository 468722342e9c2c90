"""Places to listen as text, and the toy transport of the how-to: one module and one line in the table."""

from __future__ import annotations

import os
import re
import socket
from pathlib import Path
from typing import Any

import pytest

from support.deadline import scaled, wait_until_async
from support.guest_end import BROADCAST, frame, mac
from support.require import ROOT
from umlab.daemon.switch import SwitchService
from umlab.errors import TransportError
from umlab.switch.model import SwitchConfig
from umlab.transports.bess import BessListener
from umlab.transports.daemon import DaemonListener
from umlab.transports.registry import TRANSPORTS, parse_listen
from umlab.transports.tap import TapListener

HOWTO = ROOT / "docs/howto/add-a-transport.md"


@pytest.fixture
def _registered(monkeypatch: pytest.MonkeyPatch) -> None:
    """Do what the how-to tells: its module, and its line in the table."""
    module, line = re.findall(r"^```python\n(.*?)^```", HOWTO.read_text(), re.MULTILINE | re.DOTALL)
    names: dict[str, Any] = {"__name__": "umlab.transports.inherited"}
    exec(compile(module, str(HOWTO), "exec", dont_inherit=True), names)
    for kind, entry in eval(f"{{{line}}}", names).items():
        monkeypatch.setitem(TRANSPORTS, kind, entry)


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
    ("spec", "argument"),
    [
        ("daemon:ctl", "eth0=daemon,,unix,{0}/ctl"),
        ("daemon:ctl,/tmp/uml.data", "eth0=daemon,,unix,{0}/ctl,/tmp/uml.data"),
        ("bess:there/bess", "vec0:transport=bess,dst={0}/there/bess"),
        ("tap:tap0", ""),
    ],
)
def test_what_a_guest_is_told_holds_in_its_own_directory(
    spec: str, argument: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert parse_listen(spec).guest_argument == argument.format(tmp_path)


@pytest.mark.parametrize(
    "spec", ["", "/tmp/uml.ctl", "daemon", "daemon:", "vde:/tmp/x", ":x", "Daemon:/tmp/x"]
)
def test_spec_that_is_none_says_what_would_be_one(spec: str) -> None:
    with pytest.raises(TransportError, match=r"write one of daemon:CTL\[,DATA\], bess:PATH, tap:DEVICE"):
        parse_listen(spec)


@pytest.mark.usefixtures("_registered")
async def test_toy_transport_is_a_port_like_any_other(short_dir: Path) -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.setblocking(False)
    specs = [f"inherited:{ours.detach()}", f"bess:{short_dir}/bess"]
    service = SwitchService("toy", SwitchConfig(), map(parse_listen, specs))
    await service.start()
    try:
        with theirs, socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as right:
            right.connect(f"{short_dir}/bess")
            await wait_until_async(lambda: len(service.ports()) == 2, 10, "two ports")
            for sock in (theirs, right):
                sock.settimeout(scaled(10))
            theirs.send(frame(BROADCAST, mac(1)))
            assert right.recv(100) == frame(BROADCAST, mac(1))
            right.send(frame(mac(1), mac(2)))
            assert theirs.recv(100) == frame(mac(1), mac(2))
            assert [(port.kind, port.detail) for port in service.ports()] == [
                ("inherited", specs[0].replace("inherited:", "descriptor ")),
                ("bess", ""),
            ]
    finally:
        await service.stop()


@pytest.mark.usefixtures("_registered")
async def test_toy_transport_that_cannot_start_stops_the_switch_with_its_reason() -> None:
    service = SwitchService("toy", SwitchConfig(), [parse_listen("inherited:x")])
    with pytest.raises(TransportError, match="'x' is not a descriptor"):
        await service.start()
    read_end, write_end = os.pipe()
    service = SwitchService("toy", SwitchConfig(), [parse_listen(f"inherited:{read_end}")])
    with pytest.raises(TransportError, match=f"descriptor {read_end}: "):
        await service.start()
    os.close(read_end)
    os.close(write_end)


@pytest.mark.usefixtures("_registered")
def test_toy_transport_is_in_the_help_of_a_wrong_spec() -> None:
    with pytest.raises(TransportError, match="inherited:FD"):
        parse_listen("inherited")
