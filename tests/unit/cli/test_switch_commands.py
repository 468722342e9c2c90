"""``umlab switch ls|show|set|stop|args``: what they print, and what they do."""

from __future__ import annotations

import dataclasses
import socket
from pathlib import Path

import pytest

from support.cli_run import Run
from support.fake_lab import FakeLab
from support.lab_thread import LabThread
from umlab.client import Client
from umlab.daemon.record import SIZE_NAMES
from umlab.daemon.switch_change import SwitchChange
from umlab.daemon.view import FdbEntryView, PortView
from umlab.switch.model import MirrorSession, PortConfig, ReservedPolicy
from umlab.switch.vlan import PortVlan, VidSet


def test_no_lab_is_no_error(run: Run) -> None:
    done = run("switch", "ls")
    assert (done.status, done.out) == (0, "no switch runs\n")
    assert run("switch", "ls", "--json").out == ""


def test_switches_of_all_labs_are_listed(run: Run, runtime: Path) -> None:
    with LabThread(runtime, "lan", ("lan",)) as lan, LabThread(runtime, "ring", ("a", "b")):
        lan.call(lambda lab: lab.add_port("lan", 1))
        lan.call(lambda lab: lab.add_port("lan", 2))
        shown = run("switch", "ls")
        records = run("switch", "ls", "--json").records
    assert [line.split() for line in shown.out.splitlines()] == [
        ["NAME", "LAB", "ENGINE", "PORTS", "GUESTS", "FDB", "STATE"],
        # Both ports belong to one process.
        ["lan", "lan", "py", "2", "1", "2", "up"],
        ["a", "ring", "py", "0", "0", "0", "up"],
        ["b", "ring", "py", "0", "0", "0", "up"],
    ]
    assert records[0] == {
        **{"name": "lan", "lab": "lan", "engine": "py", "ports": 2, "guests": 1, "fdb_entries": 2},
        "state": "up",
    }


@pytest.mark.parametrize(
    "setting", [("--hub",), ("--ageing-time", "60"), ("--max-frame", "1514"), ("--recorder", "off")]
)
def test_file_and_a_setting_of_one_switch_exclude_each_other(run: Run, setting: tuple[str, ...]) -> None:
    done = run("switch", "run", "lan", "--file", "/dev/null", *setting)
    assert done.status == 2
    assert "a file says itself what its segments are" in " ".join(done.err.split())


@pytest.mark.parametrize(
    ("size", "said"),
    [
        ("5", "write a number and its unit, one of K, M, G"),
        ("1K", "recorder must be 0, or"),
    ],
)
def test_wrong_size_of_a_recorder_is_a_wrong_command_line(size: str, said: str, run: Run) -> None:
    done = run("switch", "run", "lan", "--recorder", size)
    assert done.status == 2
    assert said in " ".join(done.err.replace("│", " ").split())


def test_hung_lab_is_listed_and_holds_nobody_up(run: Run, runtime: Path) -> None:
    (runtime / "umlab/hung").mkdir(parents=True)
    with socket.socket(socket.AF_UNIX) as listener, LabThread(runtime, "lan", ("lan",)):
        listener.bind(str(runtime / "umlab/hung/api.sock"))
        listener.listen(8)
        shown = run("switch", "ls")
    states = {line.split()[1]: line.split()[-1] for line in shown.out.splitlines()[1:]}
    assert states == {"hung": "hung", "lan": "up"}


def test_switch_is_shown_with_everything(run: Run, runtime: Path) -> None:
    with LabThread(runtime, "lan", ("lan",)) as daemon:
        daemon.call(lambda lab: lab.add_port("lan", 1, "left"))
        counters = {"drop_tail": 4, "drop_runt": 1, "drop_refused": 0}
        tap = PortView(2, "tap", "tap0", "up", None, None, None, None, None, (), 0, 3, counters)
        macs = tuple(f"02:00:00:00:01:{number:02x}" for number in range(16))
        other = PortView(3, "bess", "", "down", 0, 9, "news", None, "old", macs, 40, 0, {})
        daemon.call(lambda lab: lab.port_views["lan"].update({2: tap, 3: other}))
        shown = run("switch", "show", "lan", "--fdb")
        (record,) = run("switch", "show", "lan", "--fdb", "--json").records
        without = run("switch", "show", "lan")
    lines = [line.split() for line in shown.out.splitlines()]
    assert "hub=off ageing_time=300s max_frame=9018" in shown.out
    assert ["daemon", "/run/lan.ctl", "eth0=daemon,,unix,/run/lan.ctl"] in lines
    drops = ["2", "tail", "2"]
    row = ["1", "daemon", "v3", "up", "-", "4711", "1000", "left", "02:00:00:00:00:01", "7", "5", *drops, "0"]
    assert row in lines
    drops = ["5", "runt", "1,", "tail", "4"]
    assert ["2", "tap", "tap0", "up", "-", "-", "-", "-", "-", "0", "0", *drops, "3"] in lines
    row = ["3", "bess", "down", "-", "?", "news", "(old)", *macs[:2], "+38", "0", "0", "0", "-", "0"]
    assert row in lines
    entry = ["02:00:00:00:00:01", "-", "1", "1.5", "s"]
    assert entry in lines
    assert entry not in [line.split() for line in without.out.splitlines()]
    assert record["lab"] == "lan"
    assert record["switch"]["config"]["ageing_time_ns"] == 300 * 10**9
    assert [port["port_no"] for port in record["ports"]] == [1, 2, 3]
    # All that the FDB has, and not what the port shows of it.
    assert [port["macs"] for port in record["ports"]] == [["02:00:00:00:00:01"], [], []]
    assert record["ports"][1] == dataclasses.asdict(tap) | {"macs": [], "neighbours": []}
    assert record["fdb"] == [{"mac": "02:00:00:00:00:01", "port_no": 1, "age": 1.5, "vid": 0}]


@pytest.mark.parametrize("command", ["show", "args"])
def test_switch_of_a_lab_with_several_is_addressed(command: str, run: Run, runtime: Path) -> None:
    with LabThread(runtime, "ring", ("a", "b")):
        assert run("switch", command, "ring/b").status == 0
        done = run("switch", command, "ring")
        assert done.status == 1
        assert done.err == "umlab: no switch ring in lab ring; write ring/a or ring/b\n"
        done = run("switch", command, "b")
        assert done.status == 3
        assert done.err == "umlab: b does not run; start it with: umlab switch run b --background\n"


def test_switch_is_changed(run: Run, runtime: Path) -> None:
    with LabThread(runtime, "lan", ("lan",)) as daemon:
        done = run("switch", "set", "lan", "hub=on", "ageing_time=1.5min", "max_frame=1518")
        assert (done.status, done.out.splitlines()) == (
            0,
            ["hub: off -> on", "ageing_time: 300s -> 90s", "max_frame: 9018 -> 1518", "lan: changed"],
        )
        config = daemon.call(lambda lab: lab.specs["lan"].config)
        assert (config.hub, config.ageing_time_ns, config.max_frame) == (True, 90 * 10**9, 1518)
        assert run("switch", "set", "lan", "hub=on").out == "lan: it was so already\n"
        done = run("switch", "set", "lan", "hub=off", "--json")
        difference = [{"setting": "hub", "before": True, "after": False}]
        assert done.records == [{"lab": "lan", "switch": "lan", "changed": True, "difference": difference}]


def test_value_that_the_switch_refuses_is_named(run: Run, runtime: Path) -> None:
    with LabThread(runtime, "lan", ("lan",)):
        done = run("switch", "set", "lan", "max_frame=70000")
    assert done.status == 1
    assert "max_frame must be between" in done.err
    assert done.err.count("\n") == 1


@pytest.mark.parametrize("words", [(), ("hub",), ("ageing_time=100",), ("colour=red",)])
def test_wrong_setting_is_a_wrong_command_line(words: tuple[str, ...], run: Run) -> None:
    assert run("switch", "set", "lan", *words).status == 2


def test_arguments_are_printed_with_what_a_kernel_has(run: Run, runtime: Path) -> None:
    kernel = runtime / "linux"
    kernel.write_text("#!/bin/sh\necho CONFIG_UML=y\necho CONFIG_UML_NET=y\n")
    kernel.chmod(0o755)
    with LabThread(runtime, "lan", ("lan",)):
        shown = run("switch", "args", "lan", "--kernel", str(kernel))
        (record,) = run("switch", "args", "lan", "--kernel", str(kernel), "--json").records
        missing = run("switch", "args", "lan", "--kernel", str(runtime / "nothing"))
    assert shown.out.splitlines()[1].split() == [
        *("uml", "daemon", "no:", "CONFIG_UML_NET_DAEMON", "eth0=daemon,,unix,/run/lan.ctl"),
    ]
    assert record == {
        "program": "uml",
        "transport": "daemon",
        "missing": ["CONFIG_UML_NET_DAEMON"],
        "argument": "eth0=daemon,,unix,/run/lan.ctl",
    }
    assert missing.status == 1
    assert "cannot run the kernel" in missing.err


def test_stop_of_what_does_not_run(run: Run) -> None:
    for words in (("lan",), ("lan", "--daemon-only")):
        done = run("switch", "stop", *words)
        assert done.status == 3
        assert done.err.startswith("umlab: lan does not run")


def test_stop_of_one_switch_is_a_wrong_command_line(run: Run, runtime: Path) -> None:
    with LabThread(runtime, "ring", ("a", "b")):
        done = run("switch", "stop", "ring/b")
    assert done.status == 2
    assert "write ring" in done.err


def test_stop_names_the_guests_elsewhere_that_it_leaves_spinning(
    run: Run, runtime: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Client, "stop", lambda client, keep: None)
    with LabThread(runtime, "lan", ("lan",)) as daemon:

        def plug(lab: FakeLab) -> None:
            ports = lab.port_views["lan"]
            for port_no, umid in ((1, None), (2, "own"), (3, "other")):
                lab.add_port("lan", port_no, umid)
                ports[port_no] = dataclasses.replace(ports[port_no], kind="bess", pid=4710 + port_no)
            ports[3] = dataclasses.replace(ports[3], guest=None)
            lab.add_port("lan", 4)

        daemon.call(plug)
        done = run("switch", "stop", "lan")
        assert done.out == (
            "lan: stopped\n  other (pid 4713): spins on its closed bess connection; "
            "set the interface down in the guest: ip link set vecN down\n"
        )
        (record,) = run("switch", "stop", "lan", "--json").records
        assert record["spinning"] == [{"umid": "other", "pid": 4713}]
        (record,) = run("switch", "stop", "lan", "--daemon-only", "--json").records
        assert record == {"lab": "lan", "stopped": "daemon", "spinning": []}


def test_wrong_file_leaves_no_directory(run: Run, runtime: Path) -> None:
    assert run("switch", "run", "lan", "--file", str(runtime / "none.yaml")).status == 1
    assert run("switch", "run", "lan", "--listen", "none").status == 1
    assert list(runtime.iterdir()) == []


def test_lab_without_switches_has_none_to_show(run: Run, runtime: Path) -> None:
    with LabThread(runtime, "lan"):
        assert run("switch", "ls").out == "no switch runs\n"
        done = run("switch", "show", "lan")
    assert (done.status, done.err) == (3, "umlab: no switch lan\n")


def test_vlans_mirrors_and_ports_ahead_are_shown(run: Run, runtime: Path) -> None:
    session = MirrorSession("tap", 9, frozenset({1}), VidSet.parse("10,20-29"), egress=False)
    change = SwitchChange(
        ports={
            1: PortConfig(PortVlan.access(10)),
            2: PortConfig(PortVlan.trunk(VidSet.parse("10,20-29"), 1), ReservedPolicy.BRIDGE),
            3: PortConfig(None, ReservedPolicy.PEER),
            **dict.fromkeys((6, 7, 9), PortConfig(PortVlan(1, VidSet.of([10]), VidSet.of([1, 5])))),
        },
        mirrors={"tap": session},
        ahead=True,
    )
    with LabThread(runtime, "lan", ("lan",)) as daemon:
        for port_no in (1, 2, 3, 4):
            daemon.call(lambda lab, port_no=port_no: lab.add_port("lan", port_no))  # type: ignore[misc]
        spec = daemon.call(lambda lab: lab.specs["lan"])
        changed = dataclasses.replace(spec, config=change.of(spec.config), recorder=0)
        daemon.call(lambda lab: lab.specs.update(lan=changed))
        daemon.call(
            lambda lab: lab.addresses["lan"].append(FdbEntryView("02:00:00:00:00:01", 1, 1.5, vid=10))
        )
        shown = run("switch", "show", "lan", "--fdb")
        (record,) = run("switch", "show", "lan", "--json").records
    lines = [" ".join(line.split()) for line in shown.out.splitlines()]
    vlans = {line.split()[0]: line for line in lines if line[:1].isdigit()}
    assert "1 daemon v3 up access 10 4711" in vlans["1"]
    assert "2 daemon v3 up trunk 10,20-29 native 1, reserved bridge 4711" in vlans["2"]
    assert "3 daemon v3 up reserved peer 4711" in vlans["3"]
    assert "4 daemon v3 up - 4711" in vlans["4"]
    assert vlans["6-7,9"] == "6-7,9 - empty hybrid pvid 1 tagged 10 untagged 1,5 - - - - - - - - -"
    assert "tap 1 ingress only 10,20-29 9" in lines
    assert "02:00:00:00:00:01 10 1 1.5 s" in lines
    config = record["switch"]["config"]
    assert config["ports"]["2"] == {"trunk": "10,20-29", "native": 1, "reserved": "bridge"}
    assert config["ports"]["7"] == {"pvid": 1, "tagged": "10", "untagged": "1,5"}
    assert config["mirrors"] == [
        {"name": "tap", "destination": 9, "ports": [1], "vlans": "10,20-29", "ingress": True, "egress": False}
    ]


def test_counters_by_size_direction_and_reason_and_rates_are_shown(run: Run, runtime: Path) -> None:
    counters = {
        **{"rx_frames": 3, "rx_bytes": 1700, "tx_frames": 1, "tx_bytes": 60, "drop_vlan": 4, "drop_tail": 2},
        **{f"{way}_size_{name}": 0 for way in ("rx", "tx") for name in SIZE_NAMES},
        **{"rx_size_65_127": 2, "rx_size_1519_up": 1, "tx_size_0_64": 1},
    }
    with LabThread(runtime, "lan", ("lan",)) as daemon:
        daemon.call(lambda lab: lab.add_port("lan", 1))
        daemon.call(
            lambda lab: lab.port_views["lan"].update(
                {1: dataclasses.replace(lab.port_views["lan"][1], counters=counters)}
            )
        )
        shown = run("switch", "show", "lan", "--counters", "--rates")
        (record,) = run("switch", "show", "lan", "--rates", "--json").records
    lines = [line.split() for line in shown.out.splitlines()]
    assert ["1", "in", "3", "1700", "0", "2", "0", "0", "0", "0", "1", "vlan", "4"] in lines
    assert ["1", "out", "1", "60", "1", "0", "0", "0", "0", "0", "0", "tail", "2"] in lines
    assert ["1", "0", "0", "0", "0", "0"] in lines
    assert record["rates"] == [
        {"port_no": 1, "rx_frames": 0, "rx_bits": 0, "tx_frames": 0, "tx_bits": 0, "drops": 0}
    ]
