"""Ports and mirror sessions of a lab file."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from umlab.errors import LabFileError, LabFileErrors
from umlab.lab.file import load
from umlab.switch.model import MirrorSession, PortConfig, ReservedPolicy, SwitchConfig
from umlab.switch.vlan import STAG, PortVlan, VidSet

ACCESS = PortConfig(PortVlan.access(10))


def config(folder: Path, keys: str) -> SwitchConfig:
    """Return what a segment with some keys is told to be."""
    (folder / "lab.yaml").write_text(f"segments:\n  lan:\n{keys}")
    return load(folder / "lab.yaml", runtime=Path("/run/lab")).segments["lan"].config


def test_ports_are_told_what_stands_behind_their_numbers(tmp_path: Path) -> None:
    keys = """
    ports:
      1-2,20: {access: 10}
      24: {trunk: "10,20-29", native: 1, reserved: bridge}
      25:
        pvid: 1
        tagged: 10
        untagged: 1,5
        tpid: stag
      26: {reserved: peer}
      27: {reserved: transparent}
"""
    assert config(tmp_path, keys).ports == {
        **dict.fromkeys((1, 2, 20), ACCESS),
        24: PortConfig(PortVlan.trunk(VidSet.parse("10,20-29"), 1), ReservedPolicy.BRIDGE),
        25: PortConfig(PortVlan(1, VidSet.of([10]), VidSet.of([1, 5]), STAG)),
        26: PortConfig(None, ReservedPolicy.PEER),
    }


def test_mirror_sessions_are_listed(tmp_path: Path) -> None:
    keys = """
    mirrors:
      - {name: tap, destination: 9, ports: [1, 2], egress: false}
      - name: blue
        destination: 10
        vlans: 10,20-29
"""
    assert config(tmp_path, keys).mirrors == (
        MirrorSession("tap", 9, frozenset({1, 2}), egress=False),
        MirrorSession("blue", 10, vids=VidSet.parse("10,20-29")),
    )


@pytest.mark.parametrize(
    ("part", "told"),
    [
        ("ports: {1-12: {access: 0}}", "ports.1-12.access: VID 0 is not between 1 and 4094"),
        ("ports: {1: {trunk: '1,4095'}}", "ports.1.trunk: VID 4095 is not between 1 and 4094"),
        ("ports: {1: {trunk: '20-10'}}", "ports.1.trunk: the range 20-10 runs backwards"),
        ("ports: {1: {acces: 10}}", "ports.1.acces: there is no such key; did you mean access?"),
        ("ports: {x: {access: 10}}", "ports.x: 'x' is no port or range of ports, such as 3 or 1-12"),
        ("ports: {0-3: {access: 10}}", "ports.0-3: ports are between 1 and 65535, unlike 0-3"),
        ("ports: {1: {access: 1, trunk: 2}}", "ports.1: access, trunk do not go together"),
        (
            "ports: {1: {tagged: 1-9, untagged: 9}}",
            "ports.1: VLAN 9 cannot leave both with a tag",
        ),
        ("ports: {1: {pvid: 1, tagged: 9}}", "ports.1: the port's own VLAN 1 is neither"),
        ("ports: {1: {tpid: stag}}", "ports.1: tpid: a transparent port looks at no tags"),
        ("ports: {1: }", "ports.1: must have keys below it"),
        ("ports: [1]", "ports: must have keys below it"),
        ("ports: {1-9: {access: 1}, 9: {access: 2}}", "ports: port 9 is told twice, the second time in 9"),
        ("mirrors: {tap: 1}", "mirrors: must be a list"),
        ("mirrors: [{destination: 1, vlans: 1}]", "mirrors[0].name: must be given"),
        (
            "mirrors: [{name: a b, destination: 1, vlans: 1}]",
            "mirrors[0]: the mirror name 'a b' is not",
        ),
        ("mirrors: [{name: a, destination: 1, ports: [1]}]", "port 1 cannot be copied to itself"),
        ("mirrors: [{name: a, destination: 1}]", "mirrors[0]: mirror a: no port and no VLAN to copy from"),
        (
            "mirrors: [{name: a, destination: 1, vlans: 1}, {name: a, destination: 2, vlans: 1}]",
            "mirrors: two mirror sessions have one name",
        ),
        (
            "mirrors: [{name: a, destination: 1, ports: [2]}, {name: b, destination: 2, ports: [1]}]",
            "mirrors: mirror b: port 1 gets the copies of mirror a",
        ),
        ("recorder: 1K", "recorder: recorder must be 0, or between"),
        ("recorder: 16", "recorder: '16' is not a number with a unit"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_what_is_wrong_is_told_at_its_key(part: str, told: str, tmp_path: Path) -> None:
    with pytest.raises(LabFileError, match=r"lab\.yaml:3: segments\.lan\.") as refusal:
        config(tmp_path, f"    {part}\n")
    assert told in str(refusal.value)


def test_flight_recorder_has_a_size_or_is_off(tmp_path: Path) -> None:
    for text, size in (("off", 0), ("64M", 64 << 20)):
        (tmp_path / "lab.yaml").write_text(f"segments: {{lan: {{recorder: {text}}}}}\n")
        assert load(tmp_path / "lab.yaml", runtime=Path("/run/lab")).segments["lan"].recorder == size


def test_worst_of_ranges_take_no_time(tmp_path: Path) -> None:
    many = ",".join(["1-65535"] * 4000)
    keys = "".join(f"      1-65535,{number}: {{access: 1}}\n" for number in range(1, 3000))
    began = time.process_time()
    with pytest.raises(LabFileError, match="port 1 is told twice"):
        config(tmp_path, f"    ports:\n{keys}")
    with pytest.raises((LabFileError, LabFileErrors)):
        config(tmp_path, f"    ports:\n      ? {many}\n      : {{access: 0}}\n")
    assert time.process_time() - began < 10
