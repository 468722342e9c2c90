"""``umlab switch set``: VLANs, reserved addresses and mirror sessions; the difference comes first."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import typer
import typer.main

from support.cli_run import Run
from support.lab_thread import LabThread
from umlab.cli.app import app
from umlab.cli.complete import mirror_names, port_numbers
from umlab.client import Client
from umlab.switch.model import MirrorSession, PortConfig, ReservedPolicy, SwitchConfig
from umlab.switch.vlan import STAG, PortVlan, VidSet

ACCESS = PortConfig(PortVlan.access(10))


@pytest.fixture
def lan(runtime: Path) -> Iterator[LabThread]:
    """A switch with guests on its ports 1 to 4."""
    with LabThread(runtime, "lan", ("lan",)) as daemon:
        for port_no in range(1, 5):
            daemon.call(lambda lab, port_no=port_no: lab.add_port("lan", port_no))  # type: ignore[misc]
        yield daemon


def config(lan: LabThread) -> SwitchConfig:
    """Return what the switch is told to be."""
    return lan.call(lambda lab: lab.specs["lan"].config)


def test_ports_become_access_ports_and_the_difference_is_shown_first(run: Run, lan: LabThread) -> None:
    done = run("switch", "set", "lan", "--ports", "1-2,4", "--access", "10")
    assert (done.status, done.err) == (0, "")
    assert done.out.splitlines() == ["port 1-2,4: transparent -> access 10", "lan: changed"]
    assert config(lan).ports == {1: ACCESS, 2: ACCESS, 4: ACCESS}
    assert run("switch", "set", "lan", "--ports", "1-2,4", "--access", "10").out == "lan: it was so already\n"


@pytest.mark.parametrize(
    ("words", "vlan", "text"),
    [
        (("--trunk", "10,20-29"), PortVlan.trunk(VidSet.parse("10,20-29")), "trunk 10,20-29"),
        (
            ("--trunk", "10", "--native", "1", "--tpid", "stag"),
            PortVlan.trunk(VidSet.of([10]), 1, STAG),
            "trunk 10 native 1 tpid stag",
        ),
        (
            ("--pvid", "1", "--tagged", "10", "--untagged", "1,5"),
            PortVlan(1, VidSet.of([10]), VidSet.of([1, 5])),
            "hybrid pvid 1 tagged 10 untagged 1,5",
        ),
        (("--tagged", "10", "--untagged", "5"), PortVlan(None, VidSet.of([10]), VidSet.of([5])), None),
    ],
    ids=lambda value: str(value)[:40],
)
def test_every_kind_of_port_can_be_told(
    words: tuple[str, ...], vlan: PortVlan, text: str | None, run: Run, lan: LabThread
) -> None:
    done = run("switch", "set", "lan", "--ports", "3", *words)
    assert config(lan).ports == {3: PortConfig(vlan)}
    text = text or "hybrid tagged 10 untagged 5"
    assert done.out.splitlines()[0] == f"port 3: transparent -> {text}"


def test_what_is_not_named_stays(run: Run, lan: LabThread) -> None:
    run("switch", "set", "lan", "--ports", "1,2", "--access", "10")
    done = run("switch", "set", "lan", "--ports", "2,3", "--reserved", "bridge", "hub=on")
    assert done.out.splitlines() == [
        "hub: off -> on",
        "port 2: access 10 -> access 10, reserved bridge",
        "port 3: transparent -> transparent, reserved bridge",
        "lan: changed",
    ]
    bridge = PortConfig(None, ReservedPolicy.BRIDGE)
    assert config(lan).ports == {1: ACCESS, 2: PortConfig(ACCESS.vlan, ReservedPolicy.BRIDGE), 3: bridge}
    run("switch", "set", "lan", "--ports", "3", "--access", "20")
    assert config(lan).ports[3] == PortConfig(PortVlan.access(20), ReservedPolicy.BRIDGE)
    done = run("switch", "set", "lan", "--ports", "1-3", "--transparent", "--json")
    assert config(lan).ports == {}
    (record,) = done.records
    assert record["difference"][0] == {"ports": [1], "before": {"access": 10}, "after": {}}


def test_dry_run_shows_and_changes_nothing(run: Run, lan: LabThread) -> None:
    words = ("switch", "set", "lan", "--ports", "1", "--access", "10", "--dry-run")
    assert run(*words).out.splitlines() == ["port 1: transparent -> access 10", "lan: nothing is changed"]
    (record,) = run(*words, "--json").records
    assert record == {
        **{"lab": "lan", "switch": "lan", "changed": False},
        "difference": [{"ports": [1], "before": {}, "after": {"access": 10}}],
    }
    assert config(lan).ports == {}


def test_numbers_that_stand_for_nothing_are_named_unless_ahead(run: Run, lan: LabThread) -> None:
    words = ("switch", "set", "lan", "--ports", "3-6,9", "--access", "10")
    for more in ((), ("--dry-run",)):
        done = run(*words, *more)
        assert done.status == 1
        assert "nothing is plugged in at port 5-6,9 (there are 1-4)" in done.err
        assert "--ahead" in done.err
    assert config(lan).ports == {}
    assert run(*words, "--ahead").status == 0
    assert set(config(lan).ports) == {3, 4, 5, 6, 9}
    # A number that has a setting is known, and what it is not told needs nobody there.
    assert run("switch", "set", "lan", "--ports", "9", "--access", "20").status == 0
    assert run("switch", "set", "lan", "--ports", "9,77", "--transparent").status == 0
    assert set(config(lan).ports) == {3, 4, 5, 6}
    # As many as there can be: only what becomes another is told.
    assert run("switch", "set", "lan", "--ports", "1-65535", "--transparent").status == 0
    assert config(lan).ports == {}


def test_long_lists_leave_the_table_of_ports_legible(run: Run, lan: LabThread) -> None:
    odd = ",".join(map(str, range(1, 4095, 2)))
    words = ("--ports", "1", "--trunk", odd, "--mirror", "m", "--vlans", odd, "--to", "2")
    assert run("switch", "set", "lan", *words).status == 0
    shown = run("switch", "show", "lan").out
    assert "trunk 1,3,5,7,9" in shown
    assert max(map(len, shown.splitlines())) < 250
    assert config(lan).ports[1].vlan == PortVlan.trunk(VidSet.parse(odd))


def test_mirror_sessions_begin_change_and_end(run: Run, lan: LabThread) -> None:
    done = run("switch", "set", "lan", "--mirror", "tap", "--from", "1,2", "--vlans", "10", "--to", "3")
    assert done.out.splitlines() == ["mirror tap: none -> port 1-2 and VLAN 10 to port 3", "lan: changed"]
    session = MirrorSession("tap", 3, frozenset({1, 2}), VidSet.of([10]))
    assert config(lan).mirrors == (session,)
    run("switch", "set", "lan", "--mirror", "tap", "--from", "1", "--to", "3", "--ingress-only")
    assert config(lan).mirrors == (MirrorSession("tap", 3, frozenset({1}), egress=False),)
    words = ("--mirror", "all", "--vlans", "1-4094", "--to", "4", "--no-mirror", "tap")
    done = run("switch", "set", "lan", *words)
    assert done.out.splitlines() == [
        "mirror tap: port 1 to port 3, ingress only -> none",
        "mirror all: none -> VLAN 1-4094 to port 4",
        "lan: changed",
    ]
    assert [each.name for each in config(lan).mirrors] == ["all"]


@pytest.mark.usefixtures("lan")
def test_direction_is_not_shown_of_a_session_that_copies_vlans_alone(run: Run) -> None:
    session = MirrorSession("blue", 3, vids=VidSet.of([10]), ingress=False)
    with Client("lan") as client:
        client.set_switch("lan", mirrors={"blue": session})
    assert ["blue", "-", "both", "ways", "10", "3"] in [
        line.split() for line in run("switch", "show", "lan").out.splitlines()
    ]


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (("--mirror", "m", "--from", "1,3", "--to", "3"), "port 3 cannot be copied to itself"),
        (("--ports", "1", "--trunk", "10,x"), "'x' is no VID or range of VIDs"),
        (("--ports", "1", "--trunk", "4095"), "VID 4095 is not between 1 and 4094"),
        (("--ports", "1", "--tagged", "0"), "VID 0 is not between"),
        (("--ports", "1", "--access", "0"), "greater than or equal to 1"),
        (("--ports", "1", "--access", "4095"), "less than or equal to 4094"),
        (("--ports", "1", "--trunk", "20-10"), "the range 20-10 runs backwards"),
        (("--ports", "1", "--trunk", ""), "a member of at least one VLAN"),
        (("--ports", "1", "--tagged", "1-10", "--untagged", "10"), "VLAN 10 cannot leave both"),
        (("--ports", "1", "--pvid", "9", "--tagged", "10"), "own VLAN 9 is neither"),
        (("--ports", "1", "--access", "10", "--trunk", "20"), "do not go together"),
        (("--ports", "1", "--native", "10"), "it goes with trunk"),
        (("--ports", "1", "--access", "10", "--transparent"), "a transparent port looks at no tags"),
        (("--ports", "1", "--tpid", "stag"), "a transparent port looks at no tags"),
        (("--ports", "1", "--tpid", "qinq", "--access", "1"), "'qinq' is not one of"),
        (("--ports", "1", "--reserved", "drop"), "'drop' is not one of"),
        (("--ports", "0-3", "--access", "10"), "ports are between 1 and 65535"),
        (("--ports", "3-1", "--access", "10"), "the range 3-1 runs backwards"),
        (("--ports", "one", "--access", "10"), "'one' is no port or range of ports"),
        (("--ports", "1"), "say what they are told to be"),
        (("--access", "10"), "say which ports"),
        (("--reserved", "bridge"), "say which ports"),
        (("--ahead",), "say what changes"),
        (("--mirror", "m"), "say what is copied to which port"),
        (("--mirror", "m", "--from", "1"), "say what is copied to which port"),
        (("--from", "1", "--to", "2"), "name the session"),
        (("--egress-only",), "name the session"),
        (("--mirror", "m", "--vlans", "1", "--to", "2", "--egress-only"), "a direction is one of the ports"),
        (
            ("--mirror", "m", "--from", "1", "--to", "2", "--egress-only", "--ingress-only"),
            "take one of --ingress-only and --egress-only",
        ),
        (("--mirror", "m", "--from", "1", "--to", "2", "--no-mirror", "m"), "cannot both begin and end"),
        (("--mirror", "a b", "--from", "1", "--to", "2"), "mirror"),
    ],
    ids=lambda value: " ".join(value)[:50] if isinstance(value, tuple) else "",
)
def test_words_that_make_no_sense_are_a_wrong_command_line(
    words: tuple[str, ...], text: str, run: Run, lan: LabThread
) -> None:
    done = run("switch", "set", "lan", *words)
    assert done.status == 2
    assert text in " ".join(done.err.replace("│", " ").split())
    assert config(lan) == SwitchConfig()


def test_what_the_switch_cannot_be_is_refused_and_leaves_it_as_it_was(run: Run, lan: LabThread) -> None:
    assert run("switch", "set", "lan", "--mirror", "tap", "--from", "1", "--to", "3").status == 0
    before = config(lan)
    done = run("switch", "set", "lan", "--mirror", "back", "--from", "3", "--to", "1", "hub=on")
    assert (done.status, done.out) == (1, "")
    assert "mirror back: port 3 gets the copies of mirror tap" in done.err
    assert config(lan) == before


def test_ports_and_sessions_are_completed(run: Run, lan: LabThread) -> None:
    run("switch", "set", "lan", "--mirror", "tap", "--from", "1", "--to", "3")
    context = typer.Context(typer.main.get_command(app))
    context.params["name"] = "lan"
    assert port_numbers(context, "") == ["1", "2", "3", "4"]
    assert port_numbers(context, "1-2,4") == ["1-2,4"]
    assert port_numbers(context, "1-2,") == ["1-2,1", "1-2,2", "1-2,3", "1-2,4"]
    assert mirror_names(context, "t") == ["tap"]
    context.params["name"] = "other"
    assert (port_numbers(context, ""), mirror_names(context, "")) == ([], [])
