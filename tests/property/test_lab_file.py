"""Any file is a lab or a list of errors in its lines; a lab that is written down is read back."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from support.port_settings import PORTS, mirrors
from umlab.daemon.port_setting import (
    mirror_from_form,
    mirror_to_form,
    port_from_form,
    port_to_form,
    read_ports,
)
from umlab.daemon.spec import DEFAULT_KINDS, SwitchSpec, default_listen
from umlab.errors import LabFileError, LabFileErrors
from umlab.guest.cmdline import BessNic, DaemonNic, DiskRoot, FdNic, GuestSpec, Nic, TinyRoot
from umlab.guest.kernel.config import parse_config
from umlab.lab.file import LabFile, load
from umlab.switch.model import MAX_FDB_CAPACITY, MirrorSession, SwitchConfig
from umlab.transports.contract import Access

RUNTIME = Path("/run/lab")
NAMES = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,23}", fullmatch=True)
#: Of users and groups.
IDS = st.integers(0, (1 << 32) - 2)
RECORDERS = {"off": 0, "128K": 128 << 10, "16M": 16 << 20}
#: Numbers of ports that are told the same, none of them twice.
PORT_TEXTS = st.lists(st.sampled_from(["1", "2-5,20", "7,9", "100-165", "65535"]), unique=True, max_size=3)
SIGNS = [*"-:?,[]{}#&*!|>'\"%@`~= \n\t", "\n  ", "\n    ", "- ", ": ", "---\n", "*a", "&a ", "<<", "null"]
KEYS = [
    "ports",
    "1-9",
    "access",
    "mirrors",
    "segments",
    "guests",
    "lan",
    "nics",
    "root",
    "disk",
    "listen",
    "bess",
    "hub",
    "true",
    "128M",
    "300s",
]
PARTS = ["\nsegments:\n  lan:\n", "\nguests:\n  g:\n    ", "mac: 02:00:00:00:00:01", "\r\n"]
ODD = ["\ufeff", "\x85", "\ud7ff"]
WORDS = st.sampled_from([*SIGNS, *KEYS, *PARTS, *ODD])


@pytest.fixture(scope="module")
def file() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="uml") as folder:
        yield Path(folder) / "lab.yaml"


def check(file: Path, data: bytes) -> None:
    file.write_bytes(data)
    errors: tuple[LabFileError, ...] = ()
    try:
        assert isinstance(load(file, runtime=RUNTIME), LabFile)
    except LabFileError as error:
        errors = (error,)
    except LabFileErrors as error:
        errors = error.errors
    lines = len(data.replace(b"\r\n", b"\n").replace(b"\r", b"\n").splitlines())
    assert all(1 <= error.line <= max(1, lines) for error in errors)
    assert [error.line for error in errors] == sorted(error.line for error in errors)
    assert all(str(error).isprintable() for error in errors)


@given(st.binary(max_size=200))
def test_any_bytes_are_a_lab_or_errors_in_their_lines(file: Path, data: bytes) -> None:
    check(file, data)


@given(st.lists(WORDS, max_size=40).map("".join))
@example("#\n" * 9)
@example("segments:\n  a:\n    ")
@example("--- !x\n")
@example("%YAML 9.9\n--- a")
@example("%YAML 1.x\n--- a")
def test_any_words_of_a_lab_are_a_lab_or_errors_in_their_lines(file: Path, text: str) -> None:
    check(file, text.encode())


def path(draw: st.DrawFn) -> str:
    return (
        "/" + draw(st.from_regex(r"[A-Za-z0-9._-]{1,20}", fullmatch=True)).replace("..", "x").strip(".") + "x"
    )


def mirror_keys(session: MirrorSession) -> dict[str, Any]:
    """Return the keys of a mirror session; an empty text is no value."""
    return {key: value for key, value in mirror_to_form(session).items() if value != ""}


@st.composite
def segments(draw: st.DrawFn) -> dict[str, Any]:
    """Draw the keys of a segment that listens for everybody."""
    given_keys: dict[str, Any] = {
        "hub": draw(st.booleans()),
        "ageing_time": f"{draw(st.integers(1, 1_000_000_000))}ms",
        "max_frame": draw(st.integers(14, 65_535)),
        "fdb_capacity": draw(st.integers(0, MAX_FDB_CAPACITY)),
        "listen": ["daemon", "bess"],
        "mode": f"{draw(st.integers(0, 0o777)):04o}",
        "group": draw(IDS),
        "allow_users": draw(st.lists(IDS, max_size=3)),
        "allow_groups": draw(st.lists(IDS, max_size=3)),
        "lldp": draw(st.booleans()),
        "ports": {text: form for text in draw(PORT_TEXTS) if (form := port_to_form(draw(PORTS)))},
        "mirrors": draw(st.just([]) | st.tuples(mirrors().map(mirror_keys)).map(list)),
        "recorder": draw(st.sampled_from([*RECORDERS])),
    }
    return {key: value for key, value in given_keys.items() if draw(st.booleans())}


@st.composite
def nics(draw: st.DrawFn, names: list[str]) -> dict[str, Any]:
    """Draw the keys of a NIC on one of the segments."""
    nic: dict[str, Any] = {"segment": draw(st.sampled_from(names))}
    if draw(st.booleans()):
        nic["transport"] = draw(st.sampled_from(["daemon", "bess", "fd"]))
    if draw(st.booleans()):
        nic["mac"] = "02:" + ":".join(f"{byte:02x}" for byte in draw(st.binary(min_size=5, max_size=5)))
    if nic.get("transport", "daemon") != "daemon" and draw(st.booleans()):
        nic["mtu"] = draw(st.integers(576, 65_534))
    return nic


@st.composite
def guests(draw: st.DrawFn, names: list[str]) -> dict[str, Any]:
    """Draw the keys of a guest."""
    keys: dict[str, Any] = {
        "kernel": path(draw),
        "memory": f"{draw(st.integers(32, 4096))}M",
        "extra": draw(st.lists(st.from_regex(r"z[a-z]{0,9}(=[!-~]{0,9})?", fullmatch=True), max_size=3)),
        "writable": [path(draw) for _ in range(draw(st.integers(0, 2)))],
        "landlock": draw(st.booleans()),
    }
    if names:
        keys["nics"] = draw(st.lists(nics(names), max_size=3))
    if draw(st.booleans()):
        keys["root"] = {"disk": path(draw)} | ({"backing": path(draw)} if draw(st.booleans()) else {})
    else:
        keys["modules"] = draw(st.lists(st.from_regex(r"[a-z0-9_-]{1,9}", fullmatch=True), max_size=3))
    return {key: value for key, value in keys.items() if draw(st.booleans())}


def expected_switch(name: str, keys: dict[str, Any]) -> SwitchSpec:
    fields = {key: keys[key] for key in ("hub", "max_frame", "fdb_capacity") if key in keys}
    if "ageing_time" in keys:
        fields["ageing_time_ns"] = int(keys["ageing_time"].removesuffix("ms")) * 1_000_000
    ports = {
        number: port_from_form(form)
        for text, form in keys.get("ports", {}).items()
        for number in read_ports(text)
    }
    sessions = tuple(mirror_from_form(each) for each in keys.get("mirrors", []))
    users, groups = (tuple(sorted(set(keys.get(key, [])))) for key in ("allow_users", "allow_groups"))
    return SwitchSpec(
        name,
        SwitchConfig(**fields, ports=ports, mirrors=sessions),
        tuple(default_listen(kind, name, RUNTIME) for kind in keys.get("listen", DEFAULT_KINDS)),
        Access(int(keys.get("mode", "0600"), 8), keys.get("group"), users, groups),
        RECORDERS[keys.get("recorder", "16M")],
        lldp=keys.get("lldp", False),
    )


def expected_nic(keys: dict[str, Any]) -> Nic:
    segment, mac, mtu = keys["segment"], keys.get("mac"), keys.get("mtu")
    match keys.get("transport"):
        case "fd":
            return FdNic(segment, mac, mtu)
        case "bess":
            return BessNic(f"/run/lab/{segment}.bess", mac, mtu)
        case _:
            return DaemonNic(f"/run/lab/{segment}.ctl", mac)


def expected_guest(name: str, keys: dict[str, Any]) -> GuestSpec:
    spec = GuestSpec(name, kernel=keys.get("kernel", "/usr/bin/linux"), landlock=keys.get("landlock", True))
    spec = replace(spec, extra=tuple(keys.get("extra", ())), writable=tuple(keys.get("writable", ())))
    if "memory" in keys:
        spec = replace(spec, memory=int(keys["memory"].removesuffix("M")) << 20)
    root = keys.get("root")
    made = [expected_nic(nic) for nic in keys.get("nics", ())]
    tiny = TinyRoot(tuple(keys.get("modules", ())))
    return replace(spec, nics=tuple(made), root=DiskRoot(root["disk"], root.get("backing")) if root else tiny)


def written(keys: dict[str, Any], indent: str = "") -> str:
    """Return keys in block style; JSON's scalars and lists are YAML's."""
    lines = ""
    for key, value in keys.items():
        if isinstance(value, dict) and value:
            lines += f"{indent}{json.dumps(key)}:\n{written(value, indent + '  ')}"
        else:
            lines += f"{indent}{json.dumps(key)}: {json.dumps(value)}\n"
    return lines


@given(st.data())
def test_lab_that_is_written_down_is_read_back(file: Path, data: st.DataObject) -> None:
    switches = data.draw(st.dictionaries(NAMES, segments(), max_size=3))
    machines = data.draw(st.dictionaries(NAMES, guests(sorted(switches)), max_size=3))
    text = written({"segments": switches, "guests": machines})
    file.write_text(text)
    lab = load(file, runtime=RUNTIME)
    assert lab.segments == {name: expected_switch(name, keys) for name, keys in switches.items()}
    assert lab.guests == {name: expected_guest(name, keys) for name, keys in machines.items()}
    # A key that nobody knows is found in its line, wherever it is.
    at = data.draw(st.integers(0, text.count("\n")))
    lines = text.splitlines()
    indent = lines[at][: len(lines[at]) - len(lines[at].lstrip())] if at < len(lines) else ""
    file.write_text("\n".join([*lines[:at], f"{indent}unknown: x", *lines[at:]]))
    with pytest.raises((LabFileError, LabFileErrors)) as refusal:
        load(file, runtime=RUNTIME)
    assert f"{file}:{at + 1}: " in str(refusal.value)


OPTIONS = st.dictionaries(
    st.from_regex(r"CONFIG_[A-Za-z0-9_]{1,9}", fullmatch=True),
    st.text(st.characters(codec="utf-8", exclude_characters="\n"), max_size=9),
)


@given(OPTIONS, st.lists(st.sampled_from(["", "# CONFIG_NOT is not set", "#", " CONFIG_X=y", "CONFIG_=y"])))
def test_options_of_a_kernel_are_read_back(options: dict[str, str], noise: list[str]) -> None:
    lines = [*noise, *(f"{name}={value}" for name, value in options.items()), *noise]
    assert parse_config("\n".join(lines).encode()) == options


@given(st.binary())
def test_any_bytes_are_options(data: bytes) -> None:
    assert all(name.startswith("CONFIG_") for name in parse_config(data))
