"""The API of a real daemon, as plain HTTP sees it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import stat
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families
from websockets.asyncio.client import ClientConnection, unix_connect

from integration.peers.background_lab import BackgroundLab
from integration.peers.fake_guest import BROADCAST, FakeGuest, frame, mac
from integration.peers.uml_kernel import debian_kernel
from support.deadline import scaled, wait_until
from support.unix_http import connect, read_chunk, read_head, request, request_bytes
from umlab.daemon.place import API_SOCKET

pytestmark = pytest.mark.integration


@pytest.fixture
def lab() -> Iterator[BackgroundLab]:
    with BackgroundLab() as lab:
        yield lab


@pytest.fixture
def path(lab: BackgroundLab) -> Path:
    return lab.runtime / API_SOCKET


async def get(path: Path, target: str) -> Any:
    """Return what a GET answers."""
    answer = await request(path, "GET", target)
    assert answer.status == 200, answer
    return answer.json


@contextlib.asynccontextmanager
async def events(path: Path, query: str) -> AsyncIterator[AsyncIterator[dict[str, Any]]]:
    """Listen to events."""
    reader, writer = await connect(path)
    writer.write(request_bytes("GET", f"/v1/events{query}"))

    async def records() -> AsyncIterator[dict[str, Any]]:
        text = ""
        while chunk := await read_chunk(reader):
            *blocks, text = (text + chunk.decode()).split("\n\n")
            for block in blocks:
                if data := re.search(r"^data: (.*)$", block, re.MULTILINE):
                    yield json.loads(data[1])

    try:
        async with asyncio.timeout(scaled(30)):
            assert (await read_head(reader))[0] == 200
            yield records()
    finally:
        writer.close()


#: Runs a daemon until it is ready, and prints how many objects each full collection of garbage looks at.
_COUNT_OBJECTS = """
import asyncio, gc, os, signal
from umlab.api.run import Daemon
from umlab.daemon.order import LabOrder

def ready(_):
    print(len(gc.get_objects()))
    os.kill(os.getpid(), signal.SIGTERM)

asyncio.run(Daemon(LabOrder("collected"), on_ready=ready).run())
"""


def test_collecting_garbage_does_not_stop_a_daemon_for_long(lab: BackgroundLab) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _COUNT_OBJECTS], stdout=subprocess.PIPE, check=True, timeout=scaled(30)
    )
    # A full collection looks at a million objects or so in a second.
    assert int(done.stdout) < 10_000


def test_socket_is_its_users_alone(path: Path) -> None:
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


@pytest.mark.needs_root
def test_another_user_is_refused_even_where_the_files_allow_it(path: Path) -> None:
    path.chmod(0o666)
    path.parent.chmod(0o711)
    # The directories above stay shut: it is in there already when it becomes another user.
    program = """
import os, socket, sys
os.chdir(sys.argv[1])
os.setgroups([])
os.setgid(65534)
os.setuid(65534)
sock = socket.socket(socket.AF_UNIX)
sock.connect("api.sock")
sock.sendall(b"GET /v1/labs HTTP/1.1\\r\\nhost: umlab\\r\\n\\r\\n")
sys.stdout.buffer.write(sock.recv(10_000))
"""
    answer = subprocess.run(
        [sys.executable, "-c", program, path.parent], capture_output=True, check=True, timeout=scaled(20)
    ).stdout
    assert answer.startswith(b"HTTP/1.1 403 ")
    assert b'"class":"Forbidden"' in answer


async def test_ports_addresses_events_and_numbers_of_guests_that_attach(path: Path) -> None:
    assert (await get(path, "/v1/labs"))[0]["name"] == "lan"
    (switch,) = await get(path, "/v1/switches")
    control = next(each["where"] for each in switch["listeners"] if each["kind"] == "daemon")
    async with events(path, "?from=now") as records:
        with FakeGuest(control.partition(",")[0]) as one, FakeGuest(control.partition(",")[0]) as two:
            one.attach()
            two.attach()
            one.send(frame(BROADCAST, mac(1)))
            two.receive()
            kinds = []
            async for record in records:
                kinds.append(record["event"])
                if record["event"] == "mac_learned":
                    assert record["mac"] == "02:00:00:00:00:01"
                    break
            assert kinds.count("session_opened") == 2
            ports = await get(path, "/v1/switches/lan/ports")
            assert [(port["port_no"], port["kind"], port["pid"]) for port in ports] == [
                (1, "daemon", os.getpid()),
                (2, "daemon", os.getpid()),
            ]
            assert ports[0]["counters"]["rx_frames"] == 1
            assert (await get(path, "/v1/switches/lan/fdb"))[0]["mac"] == "02:00:00:00:00:01"
            metrics = (await request(path, "GET", "/metrics")).body.decode()
            samples = {
                (sample.name, sample.labels.get("port_no")): sample.value
                for family in text_string_to_metric_families(metrics)
                for sample in family.samples
            }
            assert samples["umlab_port_received_frames_total", "1"] == 1
            assert samples["umlab_port_transmitted_frames_total", "2"] == 1
            assert samples["umlab_event_listeners", None] == 1
            answer = await request(path, "DELETE", "/v1/switches/lan/ports/2")
            assert answer.json == {"changed": True}
            assert (await request(path, "GET", "/v1/switches/lan/ports/2")).error == "NoSuchPort"


async def test_guest_from_its_start_to_its_end(path: Path) -> None:
    body = {"kernel": debian_kernel(), "memory": 128 << 20}
    assert (await request(path, "PUT", "/v1/guests/left", body)).json == {"changed": True}
    assert (await request(path, "PUT", "/v1/guests/left", body)).json == {"changed": False}
    async with asyncio.timeout(scaled(60)):
        await _is_ready(path)
        assert "ssl0" in [device["name"] for device in await get(path, "/v1/guests/left/devices")]
        stack = await request(path, "POST", "/v1/guests/left/stack", {"pid": 1})
        assert stack.status == 200
        assert (await request(path, "GET", "/v1/guests/left/log?limit=200")).body
        target = "ws://umlab/v1/guests/left/consoles/con1"
        async with unix_connect(os.fspath(path), target, compression=None) as console:
            # What is typed before the shell is there is lost.
            await _shown(console, b":~# ")
            await console.send(b"echo it-$((1000+1))\n")
            await _shown(console, b"it-1001")
            shown = (await request(path, "GET", "/v1/guests/left/consoles/con1/screen")).json["lines"]
            assert "it-1001" in shown
            printed = await request(path, "GET", "/v1/guests/left/log?console=con1&start=-4096")
            assert b"it-1001\r\n" in printed.body
            times = (await request(path, "GET", "/v1/guests/left/log/times?console=con1")).json
            assert 0 < times[-1]["at"] - times[0]["at"] < scaled(60)
            reader, writer = await connect(path)
            writer.write(request_bytes("GET", "/v1/guests/left/log?follow=true"))
            assert (await read_head(reader))[0] == 200
            assert (await request(path, "DELETE", "/v1/guests/left")).json == {"changed": True}
            # Both come to their end because the guest does.
            while await read_chunk(reader):
                pass
            writer.close()
            async for _ in console:
                pass
            assert console.close_code == 1000
    assert (await request(path, "DELETE", "/v1/guests/left")).json == {"changed": False}


async def _shown(console: ClientConnection, text: bytes) -> None:
    """Read until the terminal has shown something."""
    shown = b""
    while text not in shown:
        piece = await console.recv()
        # Text says how large the screen is.
        shown += piece if isinstance(piece, bytes) else b""


async def _is_ready(path: Path) -> None:
    async with events(path, "?from=oldest") as records:
        async for _ in records:
            if (await get(path, "/v1/guests/left"))["state"] == "ready":
                return


async def test_refusals_name_what_is_wrong(path: Path) -> None:
    answer = await request(path, "PUT", "/v1/guests/left", {"kernel": "/nowhere/linux"})
    assert answer.status == 422
    assert "/nowhere/linux" in answer.json["error"]["message"]
    listen = {"config": {}, "listen": ["daemon:/nowhere/wan.ctl"]}
    answer = await request(path, "PUT", "/v1/switches/wan", listen)
    assert (answer.status, answer.error) == (422, "TransportError")
    answer = await request(path, "PUT", "/v1/switches/wan", {"config": {}, "listen": ["nonsense"]})
    assert (answer.status, answer.error) == (422, "TransportError")


async def test_lab_ends_when_asked_to(lab: BackgroundLab, path: Path) -> None:
    pid = (await get(path, "/v1/labs/lan"))["pid"]
    async with events(path, "") as records:
        assert (await request(path, "DELETE", "/v1/labs/lan")).status == 202
        # The stream ends in order: nothing is cut.
        async for _ in records:
            pass
    wait_until(lambda: not os.path.exists(f"/proc/{pid}"), 20, "the end of the daemon")
    assert not path.exists()
