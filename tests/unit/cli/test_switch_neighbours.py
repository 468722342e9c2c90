"""``umlab switch show`` with neighbours, and ``set`` with ``lldp``."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from support.cli_run import Run
from support.lab_thread import LabThread
from umlab.switch.control.lldp import Neighbour

NAMED = Neighbour(
    "02:00:00:00:00:01",
    "eth0",
    120,
    system_name="left",
    system_description="Linux",
    port_description="to lan",
    capabilities=("bridge", "router"),
    management_addresses=("10.0.0.1", "fe80::1", "10.0.0.2"),
    port_vid=1,
    vlan_names={10: "blue"},
)
NAMELESS = Neighbour(r"\x1b", "7", 120)


def test_neighbours_have_a_table_of_their_own(run: Run, runtime: Path) -> None:
    with LabThread(runtime, "lan", ("lan",)) as daemon:
        daemon.call(lambda lab: lab.add_port("lan", 1))
        assert "NEIGHBOUR" not in run("switch", "show", "lan").out
        daemon.call(
            lambda lab: lab.port_views["lan"].update(
                {1: dataclasses.replace(lab.port_views["lan"][1], neighbours=(NAMED, NAMELESS))}
            )
        )
        shown = run("switch", "show", "lan")
        (record,) = run("switch", "show", "lan", "--json").records
    lines = [line.split() for line in shown.out.splitlines()]
    row = ["1", "left", "02:00:00:00:00:01", "eth0", "to", "lan", "bridge", "router", "10.0.0.1", "fe80::1"]
    assert row in lines
    assert ["1", "-", r"\x1b", "7", "-", "-", "-"] in lines
    (neighbour, _) = record["ports"][0]["neighbours"]
    assert neighbour["system_description"] == "Linux"
    assert neighbour["vlan_names"] == {"10": "blue"}


def test_setting_is_told_and_shown(run: Run, runtime: Path) -> None:
    with LabThread(runtime, "lan", ("lan",)):
        assert "lldp=off" in run("switch", "show", "lan").out
        done = run("switch", "set", "lan", "lldp=on")
        assert (done.status, done.out) == (0, "lldp: off -> on\nlan: changed\n")
        assert "lldp=on" in run("switch", "show", "lan").out
        assert run("switch", "set", "lan", "lldp=on").out == "lan: it was so already\n"
        assert run("switch", "set", "lan", "lldp=yes").status == 2


def test_neighbour_that_talks_too_much_leaves_the_others_legible(run: Run, runtime: Path) -> None:
    loud = Neighbour("c" * 255, "p" * 255, 120, system_name="n" * 255, port_description="d" * 255)
    with LabThread(runtime, "lan", ("lan",)) as daemon:
        daemon.call(lambda lab: lab.add_port("lan", 1))
        daemon.call(
            lambda lab: lab.port_views["lan"].update(
                {1: dataclasses.replace(lab.port_views["lan"][1], neighbours=(loud, NAMELESS))}
            )
        )
        shown = run("switch", "show", "lan")
        (record,) = run("switch", "show", "lan", "--json").records
    (line,) = (line for line in shown.out.splitlines() if "nnn" in line)
    assert f"{'n' * 57}...  {'c' * 57}...  {'p' * 57}...  {'d' * 57}...  -" in line
    assert record["ports"][0]["neighbours"][0]["system_name"] == "n" * 255
