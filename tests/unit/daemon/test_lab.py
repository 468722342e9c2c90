"""A lab as a service: what it starts, keeps written down, leaves and ends."""

from __future__ import annotations

import os
from dataclasses import replace

import pytest

from support.deadline import wait_until_async
from support.kept_lab import KeptLab
from umlab import __version__
from umlab.daemon import lab as lab_module
from umlab.daemon.journal import SwitchJournal
from umlab.errors import LabError, TransportError
from umlab.guest.watch import group_members
from umlab.switch.model import SwitchConfig


async def test_order_is_carried_out_and_what_is_there_stays_as_it_is(
    kept: KeptLab, caplog: pytest.LogCaptureFixture
) -> None:
    switch = kept.switch()
    await kept.lab.start([switch], [kept.spec()])
    pid = await kept.ready()
    await kept.restart()
    other = replace(switch, config=SwitchConfig(hub=True))
    await kept.lab.start(
        [other, kept.switch(f"bess:{kept.runtime}/n", name="new")], [kept.spec(memory=64 << 20)]
    )
    assert "switch lan goes on as it was" in caplog.text
    assert not kept.lab.switch("lan").config.hub
    assert kept.lab.guest("g").pid == pid
    view = kept.lab.lab()
    assert (view.name, view.version, view.pid, view.keeper_pid) == (
        "lan",
        __version__,
        os.getpid(),
        kept.keeper.pid,
    )
    assert (view.switches, view.guests) == (("lan", "new"), ("g",))


async def test_switch_that_stands_alone_is_not_added_to_others(kept: KeptLab) -> None:
    core = kept.switch(f"bess:{kept.runtime}/c", name="core")
    await kept.lab.start([core], [], alone=True)
    await kept.restart()
    await kept.lab.start([kept.switch()], [], alone=True)
    assert kept.lab.lab().switches == ("core",)


async def test_what_cannot_be_had_ends_the_start_and_what_came_before_stays(kept: KeptLab) -> None:
    bad = kept.switch(f"bess:{kept.runtime}/none/b", name="bad")
    with pytest.raises(TransportError):
        await kept.lab.start([kept.switch(), bad], [kept.spec()])
    assert kept.lab.lab().switches == ("lan",)
    assert kept.lab.guests() == []


async def test_stop_ends_everything_and_leaves_nothing(kept: KeptLab) -> None:
    await kept.lab.start([kept.switch()], [kept.spec()])
    pid = await kept.ready()
    await kept.lab.stop()
    assert group_members(pid) == []
    assert os.listdir(kept.runtime) == ["g"]
    assert not kept.keeper.path.exists()
    assert kept.lab.events.closed
    assert kept.link.lost.result()


async def test_leave_keeps_everything_and_writes_the_addresses_down(
    kept: KeptLab, monkeypatch: pytest.MonkeyPatch
) -> None:
    await kept.lab.start([kept.switch()], [kept.spec()])
    await kept.ready()
    written: list[str] = []
    monkeypatch.setattr(SwitchJournal, "fdb", lambda journal, entries: written.append("fdb"))
    await kept.lab.leave()
    assert written == ["fdb"]
    assert kept.lab.events.closed
    # The switch's thread would end with the process.
    await kept.lab.switch_set.service("lan").stop()
    assert kept.kept() == {"switch/lan", "guest/g", "group/g"}


async def test_addresses_are_written_down_all_the_time(
    kept: KeptLab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lab_module, "FDB_TIME", 0.01)
    await kept.restart()
    looks: list[int] = []
    monkeypatch.setattr(kept.lab.switch_set, "_switches", _Counting(looks))
    await wait_until_async(lambda: len(looks) > 3, 10, "the chore")


class _Counting(dict[str, object]):
    def __init__(self, looks: list[int]) -> None:
        super().__init__()
        self._looks = looks

    def values(self):  # type: ignore[no-untyped-def]
        self._looks.append(1)
        return super().values()


async def test_stop_of_a_lab_whose_guest_hangs_ends_the_rest(
    kept: KeptLab, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def hangs(name: str) -> bool:
        raise LabError("it hangs")

    await kept.lab.start([kept.switch()], [kept.spec()])
    pid = await kept.ready()
    monkeypatch.setattr(kept.lab.guest_set, "remove", hangs)
    await kept.lab.stop()
    assert "it hangs" in caplog.text
    # The keeper ends what is left.
    assert group_members(pid) == []
    assert not (kept.runtime / "b").exists()
    await kept.lab.guest_set.leave()
