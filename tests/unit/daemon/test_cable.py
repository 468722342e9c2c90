"""Which interfaces of a guest are set down before a switch goes, with a guest that only writes down."""

from __future__ import annotations

import os
from types import SimpleNamespace
from typing import Any, cast

import pytest

from umlab.daemon.cable import set_down
from umlab.daemon.guest import GuestService
from umlab.daemon.switch import SwitchService
from umlab.errors import CommandTimeout
from umlab.guest.cmdline import BessNic, DaemonNic, FdNic, GuestSpec, Nic, nic_settings
from umlab.switch.model import SwitchConfig
from umlab.transports.bess import BessListener
from umlab.transports.daemon import DaemonListener

NICS = (
    *(DaemonNic("/r/lan.ctl"), BessNic("/r/other.bess"), FdNic("lan"), BessNic("/r/lan.bess", mtu=9000)),
    FdNic("other"),
)


class WritingGuest:
    """A guest as far as it is asked here.

    Attributes:
        commands: What was run.
    """

    def __init__(self, *nics: Nic, is_ready: bool = True, error: Exception | None = None) -> None:
        self.guest: Any = SimpleNamespace(spec=GuestSpec("g", nics=nics))
        self.is_ready = is_ready
        self.commands: list[str] = []
        self._error = error

    async def run(self, command: str, timeout: float) -> None:  # noqa: ASYNC109
        """Write a command down."""
        self.commands.append(command)
        if self._error is not None:
            raise self._error

    async def hears_of(self, switch: SwitchService, **plugged: str) -> list[str]:
        """Let it know that a switch goes, and return what it ran; ``plugged`` came later."""
        await set_down(cast(GuestService, self), dict(nic_settings(self.guest.spec.nics)) | plugged, switch)
        return self.commands


@pytest.fixture
def switch(monkeypatch: pytest.MonkeyPatch) -> SwitchService:
    monkeypatch.setattr(os, "getcwd", lambda: "/r")
    return SwitchService("lan", SwitchConfig(), [DaemonListener("/r/lan.ctl"), BessListener("lan.bess")])


async def test_interfaces_on_the_switch_whose_end_is_read_for_ever_are_set_down(
    switch: SwitchService,
) -> None:
    plugged = await WritingGuest(*NICS).hears_of(switch, vec7="transport=bess,dst=/r/lan.bess", con3="pty")
    assert plugged == ["ip link set vec2 down; ip link set vec7 down; ip link set vec1 down"]


async def test_guest_that_is_not_concerned_or_cannot_be_told_is_left_alone(switch: SwitchService) -> None:
    assert await WritingGuest(*NICS[:2], NICS[4]).hears_of(switch) == []
    assert await WritingGuest(*NICS, is_ready=False).hears_of(switch) == []


async def test_guest_that_does_not_answer_keeps_nobody(switch: SwitchService) -> None:
    silent = WritingGuest(*NICS, error=CommandTimeout("g", "ip", 5.0))
    assert len(await silent.hears_of(switch)) == 1


async def test_device_is_one_word_for_the_guests_shell(switch: SwitchService) -> None:
    setting = {"vec0;reboot": "transport=bess,dst=/r/lan.bess"}
    assert await WritingGuest().hears_of(switch, **setting) == ["ip link set 'vec0;reboot' down"]
