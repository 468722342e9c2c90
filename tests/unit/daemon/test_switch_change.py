"""A running switch's ports and mirror sessions: changed all or nothing, and taken up by the next daemon."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from support.deadline import wait_until_async
from support.guest_end import mac
from support.kept_lab import KeptLab
from umlab.daemon.journal import SwitchJournal, kept_switches
from umlab.daemon.spec import DEFAULT_RECORDER, SwitchSpec
from umlab.daemon.switch_change import SwitchChange, settled
from umlab.errors import LabError, SwitchError
from umlab.switch.fdb import FdbEntry
from umlab.switch.model import MirrorSession, PortConfig, ReservedPolicy, SwitchConfig
from umlab.switch.vlan import PortVlan, VidSet

ACCESS = PortConfig(PortVlan.access(10))
TRUNK = PortConfig(PortVlan.trunk(VidSet.parse("10,20-29"), 1), ReservedPolicy.BRIDGE)
TAP = MirrorSession("tap", 9, frozenset({1, 2}), VidSet.of([10]))
CONFIG = SwitchConfig(hub=True, ports={1: ACCESS, 24: TRUNK}, mirrors=(TAP,))


def test_what_is_not_named_stays() -> None:
    blue = MirrorSession("blue", 8, vids=VidSet.of([10]))
    change = SwitchChange({"max_frame": 1518}, {1: None, 2: ACCESS, 3: PortConfig()}, {"blue": blue})
    assert change.of(CONFIG) == SwitchConfig(
        hub=True, max_frame=1518, ports={2: ACCESS, 24: TRUNK}, mirrors=(TAP, blue)
    )
    moved = MirrorSession("tap", 7, frozenset({1}))
    assert SwitchChange(mirrors={"tap": moved}).of(CONFIG).mirrors == (moved,)
    assert SwitchChange(mirrors={"tap": None, "none": None}).of(CONFIG).mirrors == ()


def test_port_of_which_nothing_is_said_is_left_out() -> None:
    assert settled(SwitchConfig(ports={1: PortConfig(), 2: ACCESS})) == SwitchConfig(ports={2: ACCESS})
    assert settled(CONFIG) is CONFIG


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (SwitchChange({"max_frame": 3}), "max_frame must be between"),
        (SwitchChange(ports={0: ACCESS}), "port 0 is not between 1 and 65535"),
        (SwitchChange(mirrors={"other": TAP}), "mirror other: its name is tap"),
        (
            SwitchChange(mirrors={"back": MirrorSession("back", 1, frozenset({9}))}),
            "mirror back: port 9 gets the copies of mirror tap",
        ),
    ],
)
def test_what_no_switch_can_be_is_refused(change: SwitchChange, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        change.of(CONFIG)


def test_numbers_that_stand_for_nothing_are_named_together() -> None:
    ports = {1: ACCESS, 24: ACCESS, 4: ACCESS, 5: ACCESS, 77: None, 78: PortConfig()}
    mirrors = {"m": MirrorSession("m", 99, frozenset({98, 2}), VidSet()), "tap": TAP, "none": None}
    with pytest.raises(SwitchError, match=r"at port 5,98-99 \(there are 2-4\); --ahead"):
        SwitchChange(ports=ports, mirrors=mirrors).check_attached(CONFIG, [2, 3, 4])
    with pytest.raises(SwitchError, match=r"at port 1 \(there are none\)"):
        SwitchChange(ports={1: ACCESS}).check_attached(SwitchConfig(), [])
    SwitchChange(ports=ports, mirrors=mirrors, ahead=True).check_attached(CONFIG, [])


async def test_settings_of_ports_are_found_as_they_were_written(kept: KeptLab) -> None:
    # Far more than a message to the keeper takes.
    many = VidSet(sum(1 << vid for vid in range(2, 4094, 9)))
    ports = dict.fromkeys(range(1, 301), PortConfig(PortVlan(None, many)))
    spec = SwitchSpec("lan", SwitchConfig(ports=ports, mirrors=(TAP,)), (), recorder=0)
    SwitchJournal(kept.link, "lan").switch(spec, ())
    await kept.crash()
    link = kept.keeper.connect()
    ((found, switch),) = kept_switches(link)
    assert found == spec
    assert switch.unused == set()
    link.close()


async def test_what_an_earlier_version_wrote_is_understood(kept: KeptLab) -> None:
    def earlier(meta: dict[str, Any], fds: list[int]) -> None:
        for name in ("settings", "recorder", "lldp"):
            del meta[name]

    SwitchJournal(kept.link, "lan").switch(SwitchSpec("lan", SwitchConfig(hub=True), ()), ())
    await kept.alter("switch/lan", earlier)
    await kept.start()
    view = kept.lab.switch("lan")
    assert (view.config, view.recorder) == (SwitchConfig(hub=True), DEFAULT_RECORDER)


async def test_addresses_that_an_earlier_version_wrote_are_learnt_anew(
    kept: KeptLab, caplog: pytest.LogCaptureFixture
) -> None:
    await kept.lab.put_switch(kept.switch())
    SwitchJournal(kept.link, "lan").fdb([FdbEntry(mac(1), 1, 5, 10)])
    await kept.alter("fdb/lan", lambda meta, fds: meta.clear())
    await kept.start()
    assert "switch lan has to learn its addresses anew" in caplog.text
    assert kept.lab.fdb("lan") == []


@pytest.mark.parametrize("content", [b"", b"[]", b'{"ports": 1}', b'{"ports": {"1": {"access": 0}}}', b"{"])
async def test_settings_that_cannot_be_understood_end_the_switch_with_a_word(
    kept: KeptLab, content: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(meta: dict[str, Any], fds: list[int]) -> None:
        os.ftruncate(fds[-1], 0)
        os.pwrite(fds[-1], content, 0)

    await kept.lab.put_switch(kept.switch())
    await kept.lab.set_switch("lan", SwitchChange(ports={1: ACCESS}, ahead=True))
    await kept.alter("switch/lan", broken)
    await kept.start()
    assert "switch lan cannot be taken over and is ended" in caplog.text
    assert kept.lab.switches() == []


async def test_change_is_refused_whole_and_repeated_without_effect(kept: KeptLab) -> None:
    lab = kept.lab
    await lab.put_switch(kept.switch())
    change = SwitchChange({"hub": True}, {1: ACCESS, 2: TRUNK}, {"tap": TAP})
    with pytest.raises(SwitchError, match="at port 1-2,9 "):
        await lab.set_switch("lan", change)
    loop = MirrorSession("loop", 2, frozenset({9}))
    with pytest.raises(ValueError, match="mirror loop: port 9 gets the copies"):
        await lab.set_switch("lan", SwitchChange({}, {1: ACCESS}, {"tap": TAP, "loop": loop}, ahead=True))
    assert lab.switch("lan").config == SwitchConfig()
    ahead = SwitchChange(change.settings, change.ports, change.mirrors, ahead=True)
    assert await lab.set_switch("lan", ahead)
    assert not await lab.set_switch("lan", ahead)
    wanted = SwitchConfig(hub=True, ports={1: ACCESS, 2: TRUNK}, mirrors=(TAP,))
    assert lab.switch("lan").config == wanted
    assert lab.switch_set.service("lan").engine.config == wanted
    await kept.restart()
    assert kept.lab.switch("lan").config == wanted


async def test_what_cannot_be_written_down_changes_nothing(
    kept: KeptLab, monkeypatch: pytest.MonkeyPatch
) -> None:
    def exhausted(*_: object) -> int:
        raise OSError(24, "Too many open files")

    await kept.lab.put_switch(kept.switch())
    change = SwitchChange(ports={1: ACCESS}, ahead=True)
    with monkeypatch.context() as patch:
        patch.setattr(os, "memfd_create", exhausted)
        with pytest.raises(LabError, match="its settings cannot be written down: Too many open files"):
            await kept.lab.set_switch("lan", change)
    assert kept.lab.switch("lan").config == SwitchConfig()
    assert kept.lab.switch_set.service("lan").engine.config == SwitchConfig()
    odd = PortConfig(PortVlan(None, VidSet(sum(1 << vid for vid in range(1, 4094, 2)))))
    with pytest.raises(LabError, match="the settings of its ports have over 1048576 bytes"):
        await kept.lab.set_switch("lan", SwitchChange(ports=dict.fromkeys(range(1, 200), odd), ahead=True))
    assert kept.lab.switch("lan").config == SwitchConfig()


async def test_engine_that_refuses_leaves_what_was_written_down(
    kept: KeptLab, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(_: SwitchConfig) -> None:
        raise RuntimeError("its thread died")

    await kept.lab.put_switch(kept.switch())
    await kept.lab.set_switch("lan", SwitchChange(ports={1: ACCESS}, ahead=True))
    with monkeypatch.context() as patch:
        patch.setattr(kept.lab.switch_set.service("lan"), "configure", broken)
        with pytest.raises(RuntimeError):
            await kept.lab.set_switch("lan", SwitchChange(ports={1: TRUNK}))
    await kept.restart()
    assert kept.lab.switch("lan").config == SwitchConfig(ports={1: ACCESS})


async def test_ports_are_told_before_the_first_guest_comes(kept: KeptLab, short_dir: Path) -> None:
    spec = SwitchSpec("lan", SwitchConfig(ports={1: ACCESS, 2: PortConfig()}), (f"bess:{kept.runtime}/b",))
    assert await kept.lab.put_switch(spec)
    assert not await kept.lab.put_switch(spec)
    assert kept.lab.switch("lan").config.ports == {1: ACCESS}
    await wait_until_async(lambda: (kept.runtime / "b").exists(), 10, "its socket")
