"""The captures of a lab: who gets one, and every way in which one ends."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest

from support.capture_file import check_counts, read_capture
from support.capture_switch import CaptureSwitch, CaptureSwitches
from support.deadline import scaled, wait_until_async
from umlab.capture.order import CaptureProgress, CaptureRequest
from umlab.daemon import capture as daemon_capture
from umlab.daemon.capture import CaptureSet, LabCapture
from umlab.daemon.event_log import EventLog
from umlab.engine.contract import MAX_CAPTURES
from umlab.errors import CaptureError, NoSuchPort, NoSuchSwitch, StateError, SwitchError


class Lab:
    """A lab of the switch ``lan``."""

    def __init__(self) -> None:
        self.switch = CaptureSwitch()
        self.events = EventLog()
        self.captures = CaptureSet(CaptureSwitches(lan=self.switch), self.events)  # type: ignore[arg-type]

    def told(self) -> list[dict[str, Any]]:
        """Return the events so far, without their times."""
        records = [json.loads(record) for record in self.events.since(1).records]
        return [{key: value for key, value in record.items() if key != "at"} for record in records]


@pytest.fixture
def lab() -> Iterator[Lab]:
    made = Lab()
    yield made
    made.switch.end()
    made.switch.recorder = None


async def rest_of(capture: LabCapture) -> tuple[bytes, CaptureProgress]:
    """Return the bytes and the last report of what a capture tells."""
    data, report = b"", None
    async with asyncio.timeout(scaled(10)), aclosing(capture.items()) as items:
        async for item in items:
            if isinstance(item, bytes):
                data += item
            else:
                report = item
    assert report is not None
    assert report.event == "ended"
    return data, report


async def test_stream_of_ports_with_a_filter(lab: Lab) -> None:
    request = CaptureRequest("lan", ports=(2,), filter="len <= 500", snap_length=64)
    capture = await lab.captures.begin(request)
    lab.switch.send(3, 1)
    lab.switch.send(2, 2)
    lab.switch.send(4, 2, size=500)
    capture.end("asked")
    data, report = await rest_of(capture)
    await capture.close()
    (interface,) = read_capture(data)
    check_counts([interface])
    assert (interface.name, interface.description) == ("lan:2", "daemon, guest g2")
    assert (interface.filter, interface.snap_length) == ("len <= 500", 64)
    assert [(len(each.data), each.length) for each in interface.packets] == [(64, 500)] * 4
    assert (report.seen, report.frames, report.lost, report.reason) == (6, 4, 0, "asked")
    assert lab.told() == [
        {"event": "capture_started", "switch": "lan", "ports": [2], "file": None},
        {
            **{"event": "capture_ended", "switch": "lan", "ports": [2], "file": None},
            **{"reason": "asked", "frames": 4, "lost": 0},
        },
    ]
    assert lab.switch.open == 1
    assert not lab.switch.before_stop


async def test_file(lab: Lab, tmp_path: Path) -> None:
    path = tmp_path / "a.pcapng"
    capture = await lab.captures.begin(CaptureRequest("lan", file=str(path)))
    lab.switch.send(3, 1)
    await capture.close()
    interfaces = read_capture(path)
    check_counts(interfaces)
    assert [len(each.packets) for each in interfaces] == [3, 0]
    assert lab.told()[-1]["frames"] == 3


async def test_past(lab: Lab, tmp_path: Path) -> None:
    lab.switch.send(3)
    capture = await lab.captures.begin(CaptureRequest("lan", last=10))
    data, report = await rest_of(capture)
    await capture.close()
    assert len(read_capture(data)[0].packets) == 3
    assert report.reason == "saved"
    path = tmp_path / "a.pcapng"
    capture = await lab.captures.begin(CaptureRequest("lan", last=10, file=str(path), filter="len < 10"))
    assert (await rest_of(capture))[1].frames == 0
    await capture.close()
    assert read_capture(path)[0].statistics == (3, 0, 0, 0)
    assert lab.told()[-1]["reason"] == "saved"


@pytest.mark.parametrize("to_file", [True, False])
async def test_end_of_the_switch_ends_it(lab: Lab, tmp_path: Path, to_file: bool) -> None:
    file = str(tmp_path / "a.pcapng") if to_file else None
    capture = await lab.captures.begin(CaptureRequest("lan", file=file))
    lab.switch.send(3)
    lab.switch.end()
    data, report = await rest_of(capture)
    await capture.close()
    assert (report.reason, report.frames) == ("switch", 3)
    check_counts(read_capture(Path(file) if file else data))
    assert lab.told()[-1]["reason"] == "switch"


async def test_end_of_the_lab_waits_for_captures_that_go_along(
    lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    capture = await lab.captures.begin(CaptureRequest("lan", file=str(tmp_path / "a.pcapng")))

    async def follow() -> CaptureProgress:
        report = (await rest_of(capture))[1]
        await capture.close()
        return report

    reading = asyncio.ensure_future(follow())
    await lab.captures.end_all()
    assert reading.done()
    assert reading.result().reason == "lab"
    # A reader that does not is not waited for.
    monkeypatch.setattr(daemon_capture, "_END_TIME", 0.05)
    stalled = await lab.captures.begin(CaptureRequest("lan"))
    async with asyncio.timeout(scaled(5)):
        await lab.captures.end_all()
    await stalled.close()
    assert lab.told()[-1]["reason"] == "lab"
    await lab.captures.end_all()


class TestRefused:
    async def nothing_left(self, lab: Lab) -> None:
        await wait_until_async(lambda: lab.switch.open == 1, 10, "nothing but the recorder")
        assert not lab.switch.before_stop
        assert lab.told() == []

    @pytest.mark.parametrize(
        ("fields", "error", "text"),
        [
            ({"switch": "wan"}, NoSuchSwitch, "no switch wan"),
            ({"ports": (1, 7)}, NoSuchPort, "no port 7"),
            ({"filter": "no such thing ("}, CaptureError, "does not compile"),
            ({"filter": "1\n5 0 0 0"}, CaptureError, "instruction 0"),
            ({"file": "/dev/null/x"}, CaptureError, "Not a directory"),
            ({"file": "/dev/null/x", "last": 3}, CaptureError, "Not a directory"),
            ({"last": 3, "ports": (7,)}, NoSuchPort, "no port 7"),
        ],
    )
    async def test_what_is_not_there(
        self, lab: Lab, fields: dict[str, Any], error: type[Exception], text: str
    ) -> None:
        with pytest.raises(error, match=text):
            await lab.captures.begin(CaptureRequest(**{"switch": "lan"} | fields))
        await self.nothing_left(lab)

    async def test_past_without_a_recorder(self, lab: Lab) -> None:
        lab.switch.recorder = None
        with pytest.raises(StateError, match="switch lan has no flight recorder"):
            await lab.captures.begin(CaptureRequest("lan", last=3))

    async def test_one_too_many(self, lab: Lab) -> None:
        captures = [await lab.captures.begin(CaptureRequest("lan")) for _ in range(MAX_CAPTURES - 1)]
        with pytest.raises(StateError, match="switch lan: 8 captures are open already"):
            await lab.captures.begin(CaptureRequest("lan"))
        for capture in captures:
            await capture.close()

    async def test_no_memory(self, lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
        def none_left(_order: object) -> None:
            raise MemoryError

        monkeypatch.setattr(lab.switch, "capture", none_left)
        with pytest.raises(SwitchError, match="switch lan: there is no memory for a capture"):
            await lab.captures.begin(CaptureRequest("lan"))
        await self.nothing_left(lab)

    async def test_switch_that_ends_while_the_filter_is_compiled(
        self, lab: Lab, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def compile_slowly(_text: str) -> None:
            lab.switch.ports = (2,)

        monkeypatch.setattr(daemon_capture, "compile_filter", compile_slowly)
        with pytest.raises(NoSuchPort):
            await lab.captures.begin(CaptureRequest("lan", ports=(1,), filter="arp"))
        await self.nothing_left(lab)

    async def test_caller_that_leaves_while_the_file_is_opened(self, lab: Lab, tmp_path: Path) -> None:
        path = tmp_path / "a.pcapng"
        task = asyncio.ensure_future(lab.captures.begin(CaptureRequest("lan", file=str(path))))
        await wait_until_async(lambda: lab.switch.open == 2 or task.done(), 10, "a capture")
        task.cancel()
        await asyncio.wait((task,))
        if not task.cancelled():
            await task.result().close()
        await wait_until_async(lambda: lab.switch.open == 1, 10, "nothing but the recorder")
        assert not lab.switch.before_stop


async def test_file_that_another_capture_writes_is_refused(lab: Lab, tmp_path: Path) -> None:
    path = tmp_path / "a.pcapng"
    first = await lab.captures.begin(CaptureRequest("lan", file=str(path)))
    with pytest.raises(CaptureError, match="another capture does"):
        await lab.captures.begin(CaptureRequest("lan", file=str(path)))
    lab.switch.send(3)
    await first.close()
    assert len(read_capture(path)[0].packets) == 3
