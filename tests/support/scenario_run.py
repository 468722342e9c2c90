"""Runs a scenario on an engine, over real sockets, and compares each step with what the model saw."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable

from support.deadline import deadline, scaled
from support.guest_end import (
    GuestEnd,
    plug,
    plug_headed,
    plug_monitor,
    plug_shared,
    plug_unconnected,
    unread_limit,
)
from support.scenario import (
    LIMITED,
    Attach,
    Configure,
    Detach,
    Die,
    Flush,
    Garble,
    Handover,
    Inject,
    Look,
    Resume,
    Send,
    Step,
    Stop,
    Stranger,
)
from support.scenario_model import ModelSwitch, Observation
from umlab._clock import Clock, ManualClock
from umlab.engine.contract import Engine, SwitchSnapshot
from umlab.switch.model import Framing, SwitchConfig

_FRAMINGS = {
    "connected": Framing.DATAGRAM,
    "seqpacket": Framing.SEQPACKET,
    "device": Framing.DEVICE,
    "stream": Framing.STREAM,
}
_PLUGS = {"unconnected": plug_unconnected, "headed": plug_headed, "monitor": plug_monitor}
EngineType = Callable[[SwitchConfig, Clock | None], Engine]


class Divergence(AssertionError):
    """An engine did something else than the model.

    Args:
        position: The step's place in the scenario.
        step: The step.
        what: What differs.
        seen: What the engine did.
        expected: What the model did.
    """

    def __init__(self, position: int, step: Step, what: str, seen: object, expected: object) -> None:
        super().__init__(
            f"step {position}, {_shorten(step)}: {what}\n"
            f"  engine: {_shorten(seen)}\n  model:  {_shorten(expected)}"
        )


def compare(engine_type: EngineType, config: SwitchConfig, steps: list[Step], *, held: bool = False) -> None:
    """Run a scenario on the model and on a new engine.

    Args:
        engine_type: Makes the engine.
        config: What both are told to be at first.
        steps: The scenario.
        held: Let the engine find the first frames in its sockets when it begins.

    Raises:
        Divergence: They differ.
    """
    expected = ModelSwitch(config).run(steps)
    run = _EngineRun(engine_type, config, held)
    try:
        for position, (step, seen) in enumerate(zip((*steps, Look()), expected, strict=True)):
            run.take(position, step, seen)
        run.finish()
    finally:
        run.close()


class _EngineRun:
    """An engine, its guests and a clock."""

    def __init__(self, engine_type: EngineType, config: SwitchConfig, held: bool) -> None:
        self._clock = ManualClock()
        self._engine = engine_type(config, self._clock)
        self._held = held
        self._guests: dict[int, GuestEnd] = {}
        self._limited: set[int] = set()
        # Where the shared guests send, and somebody who is none of them.
        self._shared = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._shared.bind("")
        self._stranger = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._stranger.settimeout(scaled(10))
        self._engine.start(held=held)

    def take(self, position: int, step: Step, expected: Observation) -> None:
        """Take a step, wait for what the model saw, and let the guests read what they got there."""
        self._act(step)
        if (snapshot := self._settled(expected.snapshot)) != expected.snapshot:
            raise Divergence(position, step, "snapshots differ", snapshot, expected.snapshot)
        if (sizes := _sizes(snapshot)) != _sizes(expected.snapshot):
            raise Divergence(position, step, "sizes differ", sizes, _sizes(expected.snapshot))
        if isinstance(step, Look):
            events, punts, fdb = self._engine.take_events(), self._engine.take_punts(), self._engine.fdb()
            if events != expected.events:
                raise Divergence(position, step, "events differ", *_unlike(events, expected.events))
            if punts != expected.punts:
                raise Divergence(position, step, "punts differ", *_unlike(punts, expected.punts))
            if fdb != expected.fdb:
                raise Divergence(position, step, "FDBs differ", *_unlike(fdb, expected.fdb))
        for port_no, frames in expected.received.items():
            received = self._guests[port_no].receive_many(len(frames))
            if received != frames:
                raise Divergence(position, step, f"egress of {port_no} differs", *_unlike(received, frames))

    def finish(self) -> None:
        """Look for frames that nobody should have got."""
        for port_no, guest in self._guests.items():
            if guest.sock.fileno() >= 0:
                assert guest.waiting() == [], f"port {port_no} got more than the model"

    def close(self) -> None:
        """Stop the engine and close every socket."""
        self._engine.stop()
        for each in (*self._guests.values(), self._shared, self._stranger):
            each.close()
        assert set(self._engine.debug_counts().values()) == {0}

    def _act(self, step: Step) -> None:
        engine = self._engine
        match step:
            case Attach(way, port_no):
                self._attach(way, port_no)
            case Detach(port_no):
                engine.detach(port_no)
                self._guests.pop(port_no).close()
                self._limited.discard(port_no)
            case Die(port_no):
                self._guests[port_no].close()
                self._release()
            case Send(port_no, frames, span_ns):
                self._clock.advance(span_ns)
                self._send(port_no, frames)
            case Configure(config, send):
                engine.configure(config)
                self._act(send)
            case Inject(port_no, frame):
                engine.send(port_no, frame)
                self._release()
            case Flush(flushed):
                engine.flush_fdb(flushed)
            case Handover():
                entries = engine.fdb()
                engine.flush_fdb()
                engine.restore_fdb(entries)
            case Stranger(frame):
                self._stranger.sendto(frame, self._shared.getsockname())
                self._release()
            case Garble(port_no, message):
                self._guests[port_no].sock.send(message)
                self._release()
            case Stop() | Resume() | Look():
                self._release()

    def _attach(self, way: str, port_no: int | None) -> None:
        if way in _FRAMINGS:
            guest = plug(self._engine, _FRAMINGS[way], port_no)
        elif way in _PLUGS:
            guest = _PLUGS[way](self._engine, port_no)
        else:
            guest = plug_shared(self._engine, self._shared, port_no)
        self._guests[guest.port_no] = guest
        if way in LIMITED:
            self._limited.add(guest.port_no)

    def _send(self, port_no: int, frames: tuple[bytes, ...]) -> None:
        guest = self._guests[port_no]
        if self._held and len(frames) > unread_limit() and port_no in self._limited:
            self._release()  # before it is waited for room that nobody makes
        if self._held:
            # A time limit would let it wait until three quarters of the room are free.
            guest.sock.setblocking(False)
        for frame in frames:
            guest.send(frame)
        guest.sock.settimeout(scaled(10))
        self._release()

    def _release(self) -> None:
        if self._held:
            self._held = False
            self._engine.release()

    def _settled(self, expected: SwitchSnapshot) -> SwitchSnapshot:
        """Return the first snapshot that is as expected, or the one at the deadline."""
        end = deadline(5)
        while (snapshot := self._engine.snapshot()) != expected and time.monotonic() < end:
            if not self._held:
                os.sched_yield()
        return snapshot


def _sizes(snapshot: SwitchSnapshot) -> dict[int, tuple[list[int], list[int]]]:
    """Return how many frames of each size each port counts, which a comparison of counters leaves aside."""
    return {number: (port.rx_sizes, port.tx_sizes) for number, port in snapshot.ports.items()}


def _unlike(seen: list[object], expected: list[object]) -> tuple[object, object]:
    """Return the lengths and first different items of two lists."""
    pairs = zip(seen, expected, strict=False)
    first = next((place for place, (one, other) in enumerate(pairs) if one != other), None)
    place = min(len(seen), len(expected)) if first is None else first
    return tuple((len(each), place, each[place : place + 1]) for each in (seen, expected))  # type: ignore[return-value]


def _shorten(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 2000 else f"{text[:2000]}... ({len(text)} characters)"
