"""Whatever is sent to the API is understood as described, or refused as such."""

from __future__ import annotations

import contextlib
import json
from typing import Any

from hypothesis import example, given
from hypothesis import strategies as st

from umlab.api.body import BODIES, GUEST_BODY, SWITCH_PATCH, given_fields
from umlab.api.capture import is_stop
from umlab.api.console import parse_resize
from umlab.api.error import RequestError, error_bytes
from umlab.api.exec import parse_control
from umlab.daemon.exec_order import ExecOrder
from umlab.errors import LabError, LocalProtocolError
from umlab.guest.cmdline import GuestSpec

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)
#: Bodies that come close: the right keys, with anything behind them.
KEYS = st.sampled_from(
    [
        *("umid", "memory", "root", "nics", "path", "modules", "mac", "setting", "pid", "config"),
        *("switch", "ports", "filter", "last", "file", "rotate_size", "rotate_time", "files", "stop"),
    ]
)
CLOSE = st.dictionaries(KEYS, JSON | st.dictionaries(KEYS, JSON) | st.lists(st.dictionaries(KEYS, JSON)))


@given(st.binary() | (JSON | CLOSE).map(lambda value: json.dumps(value).encode()))
@example(b'{"disk": {"file": "/left.cow", "backing": "/data:img"}}')
def test_a_body_is_understood_or_refused(data: bytes) -> None:
    for body in BODIES:
        try:
            # A part that cannot be as it is written says so itself.
            with contextlib.suppress(LabError):
                body.parse(data)
        except RequestError as error:
            refusal = json.loads(error_bytes(error))["error"]
            assert refusal["class"] == "InvalidRequest"
            assert refusal["message"].startswith("body")
    with contextlib.suppress(RequestError, LabError):
        GuestSpec(umid="left", **given_fields(GUEST_BODY.parse(data)))


@given(st.dictionaries(st.sampled_from(["hub", "max_frame"]), st.booleans() | st.integers(14, 65535)))
def test_a_patch_has_what_was_given(value: Any) -> None:
    with contextlib.suppress(RequestError):
        assert SWITCH_PATCH.parse(json.dumps(value).encode()).model_dump(exclude_unset=True) == value


@given(st.text() | JSON.map(json.dumps))
def test_control_is_understood_or_refused(text: str) -> None:
    with contextlib.suppress(RequestError):
        rows, columns = parse_resize(text)
        assert 1 <= rows <= 9999
        assert 1 <= columns <= 9999


@given(st.integers(1, 9999), st.integers(1, 9999))
def test_every_size_is_understood(rows: int, columns: int) -> None:
    assert parse_resize(json.dumps({"resize": [rows, columns]})) == (rows, columns)


@given(st.text() | JSON.map(json.dumps) | st.text().map(lambda name: json.dumps({"signal": name})))
def test_control_of_a_command_is_understood_or_refused(text: str) -> None:
    with contextlib.suppress(RequestError):
        assert parse_control(text) is not None or json.loads(text) == {"end_input": True}


@given(
    st.builds(
        ExecOrder,
        st.lists(st.text(), max_size=3).map(tuple),
        st.none() | st.text(),
        st.dictionaries(st.text(max_size=3), st.text(), max_size=2),
        st.none() | st.text(),
        st.just("tty"),
        st.tuples(st.integers(), st.integers()),
    )
)
def test_order_is_a_script_or_refused(order: ExecOrder) -> None:
    with contextlib.suppress(LocalProtocolError):
        request = order.request()
        assert request.script_bytes()
        assert all(1 <= size <= 9999 for size in request.window)


@given(st.text() | (JSON | CLOSE).map(json.dumps))
def test_a_capture_is_stopped_by_one_message_alone(text: str) -> None:
    assert not is_stop(text) or json.loads(text) == {"stop": True}
