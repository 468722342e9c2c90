"""Settings of ports and mirror sessions: what is written is read, and anything else is refused."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter

from support.port_settings import CONFIGS, PORT_NOS, PORTS, VIDS, mirrors
from umlab.daemon.order import LabOrder, order_from_json, order_to_json
from umlab.daemon.port_setting import (
    config_from_form,
    config_to_form,
    mirror_from_form,
    mirror_to_form,
    port_from_form,
    port_to_form,
    ports_text,
    read_ports,
)
from umlab.daemon.spec import SwitchSpec
from umlab.switch.model import MirrorSession, PortConfig, SwitchConfig
from umlab.switch.vlan import VidSet

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9) | st.just("10,20-29"),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=8,
)
PORT_KEYS = st.sampled_from(
    ["access", "trunk", "native", "pvid", "tagged", "untagged", "tpid", "reserved", "x"]
)
PORT_VALUES = st.sampled_from([1, 10, 0, 4095, "10", "1-5", "stag", "ctag", "bridge", "", True]) | JSON
MIRROR_KEYS = st.sampled_from(["name", "destination", "ports", "vlans", "ingress", "egress"])
MIRROR_VALUES = st.sampled_from([1, "m", "10", [1, 2], [], True, False]) | JSON


@given(PORTS)
def test_port_is_read_back_from_json(port: PortConfig) -> None:
    form = json.loads(json.dumps(port_to_form(port)))
    assert port_from_form(form) == port
    assert (form == {}) == (port == PortConfig())


@given(mirrors())
def test_mirror_session_is_read_back_from_json(session: MirrorSession) -> None:
    assert mirror_from_form(json.loads(json.dumps(mirror_to_form(session)))) == session


@given(CONFIGS)
def test_configuration_is_read_back_by_every_way(config: SwitchConfig) -> None:
    assert config_from_form(json.loads(json.dumps(config_to_form(config)))) == config
    adapter = TypeAdapter(SwitchSpec)
    spec = SwitchSpec("lan", config, ())
    assert adapter.validate_json(adapter.dump_json(spec), strict=True) == spec
    assert json.loads(adapter.dump_json(spec))["config"] == config_to_form(config)
    order = LabOrder("lan", (spec,))
    assert order_from_json(order_to_json(order).decode()) == order


def check(value: Any, read: Callable[[Any], Any], write: Callable[[Any], Any]) -> None:
    """Read a value, and write it again unless it is refused in one short line."""
    refusal = "?"
    try:
        found = read(value)
    except ValueError as error:
        refusal = str(error)
    else:
        assert read(write(found)) == found
    assert 0 < len(refusal) < 300
    assert "\n" not in refusal


@given(JSON | st.dictionaries(PORT_KEYS, PORT_VALUES, max_size=4))
def test_anything_is_a_port_or_refused_in_one_short_line(value: Any) -> None:
    check(value, port_from_form, port_to_form)


@given(JSON | st.dictionaries(MIRROR_KEYS, MIRROR_VALUES, max_size=6))
def test_anything_is_a_mirror_session_or_refused_in_one_short_line(value: Any) -> None:
    check(value, mirror_from_form, mirror_to_form)


@given(st.frozensets(VIDS))
def test_vids_are_read_back_from_their_text(vids: frozenset[int]) -> None:
    found = VidSet.of(vids)
    assert VidSet.parse(str(found)) == found
    assert list(found) == sorted(vids)
    assert len(found) == len(vids)


@given(st.text(max_size=20) | st.text("0123456789-, ", max_size=20))
def test_any_text_is_some_vids_and_some_ports_or_refused(text: str) -> None:
    with contextlib.suppress(ValueError):
        assert VidSet.parse(str(VidSet.parse(text))) == VidSet.parse(text)
    with contextlib.suppress(ValueError):
        numbers = read_ports(text)
        assert numbers == sorted(set(numbers))
        assert read_ports(ports_text(numbers)) == numbers


@given(st.frozensets(PORT_NOS, min_size=1))
def test_port_numbers_are_read_back_from_their_text(numbers: frozenset[int]) -> None:
    assert read_ports(ports_text(numbers)) == sorted(numbers)
