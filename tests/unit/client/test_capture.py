"""A capture of both clients against the real API."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from support.both_clients import Shell
from support.capture_file import check_counts, read_capture
from support.capture_switch import CaptureSwitch
from support.fake_lab import FakeLab
from support.lab_thread import LabThread
from umlab.capture.order import CaptureProgress, CaptureRequest
from umlab.client import AsyncClient, Client
from umlab.errors import CaptureError, LabNotRunning, NoSuchPort, NoSuchSwitch

Item = bytes | CaptureProgress


class Daemon:
    """A daemon whose switch ``lan`` has the frames that the test makes up."""

    def __init__(self, thread: LabThread, shell: Shell) -> None:
        self.thread = thread
        self._shell = shell

    def act(self, work: Callable[[CaptureSwitch], object]) -> None:
        """Do something to the switch."""

        def act(lab: FakeLab) -> None:
            work(lab.capture_switches.by_name["lan"])

        self.thread.call(act)

    def capture(self, work: Callable[[CaptureSwitch], object] | None = None, **fields: Any) -> list[Item]:
        """Return what a capture tells; when it has begun something is done to the switch, and it is stopped.

        Nothing is, and it is not, without ``work``.
        """
        request = CaptureRequest(**{"switch": "lan"} | fields)
        items: list[Item] = []
        if self._shell.kind == "sync":
            with Client("lan") as client, client.capture(request) as running:
                for item in running:
                    items.append(item)
                    if len(items) == 1 and work is not None:
                        self.act(work)
                        running.stop()
                assert list(running) == []
                running.stop()
            return items

        async def take() -> None:
            async with AsyncClient("lan") as client, await client.capture(request) as running:
                async for item in running:
                    items.append(item)
                    if len(items) == 1 and work is not None:
                        self.act(work)
                        await running.stop()
                assert [item async for item in running] == []
                await running.stop()

        asyncio.run(take())
        return items


@pytest.fixture
def daemon(runtime: Path, shell: Shell) -> Iterator[Daemon]:
    with LabThread(runtime, "lan", ("lan",)) as thread:

        def plug(lab: FakeLab) -> None:
            lab.capture_switches.by_name["lan"] = CaptureSwitch()

        def unplug(lab: FakeLab) -> None:
            switch = lab.capture_switches.by_name.pop("lan")
            switch.end()
            switch.recorder = None

        thread.call(plug)
        yield Daemon(thread, shell)
        thread.call(unplug)


def report(item: Item) -> CaptureProgress:
    assert isinstance(item, CaptureProgress)
    return item


def test_bytes_and_reports_come_until_the_end(daemon: Daemon) -> None:
    items = daemon.capture(lambda switch: switch.send(5))
    assert report(items[0]).event == "started"
    ended = report(items[-1])
    data = b"".join(item for item in items if isinstance(item, bytes))
    assert (ended.event, ended.reason, ended.frames, ended.bytes) == ("ended", "asked", 5, len(data))
    interfaces = read_capture(data)
    check_counts(interfaces)
    assert [len(each.packets) for each in interfaces] == [5, 0]


def test_file_is_the_daemons(daemon: Daemon, tmp_path: Path) -> None:
    path = str(tmp_path / "a.pcapng")
    items = daemon.capture(lambda switch: switch.send(5), file=path, rotate_size=1 << 20, rotate_time=60)
    assert all(report(item).file == f"{tmp_path}/a_00001.pcapng" for item in items)
    assert len(read_capture(tmp_path / "a_00001.pcapng")[0].packets) == 5


def test_past_ends_by_itself(daemon: Daemon) -> None:
    daemon.act(lambda switch: switch.send(5))
    ended = report(daemon.capture(last=60)[-1])
    assert (ended.reason, ended.frames) == ("saved", 5)
    assert ended.covered is not None


def test_switch_ends(daemon: Daemon) -> None:
    assert report(daemon.capture(CaptureSwitch.end)[-1]).reason == "switch"


@pytest.mark.parametrize(
    ("fields", "error"),
    [
        ({"switch": "wan"}, NoSuchSwitch),
        ({"ports": (9,)}, NoSuchPort),
        ({"filter": "and"}, CaptureError),
        ({"file": "/dev/null/x"}, CaptureError),
    ],
)
def test_refusal_is_its_error(daemon: Daemon, fields: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error):
        daemon.capture(**fields)


def test_no_daemon(shell: Shell, runtime: Path) -> None:
    with pytest.raises(LabNotRunning):
        shell.ask("lan", "capture", CaptureRequest("lan"))
