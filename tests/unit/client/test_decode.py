"""From JSON to values and exceptions."""

from __future__ import annotations

import inspect
import json
from typing import Any

import pytest

from umlab import errors
from umlab.client.decode import refusal, value
from umlab.daemon.view import SwitchView
from umlab.errors import ApiError, LabError, UmlabError
from umlab.switch.model import SwitchConfig

#: A lab file is read where it lies, so that its errors never travel.
CLASSES = [
    each
    for each in vars(errors).values()
    if inspect.isclass(each) and issubclass(each, UmlabError) and each is not errors.LabFileErrors
]
SAMPLES: dict[str, Any] = {"str": "x", "int": 3, "float": 2.5, "int | None": None, "str | None": "y"}


def body(name: Any, message: Any, fields: Any) -> bytes:
    return json.dumps({"error": {"class": name, "message": message, "fields": fields}}).encode()


@pytest.mark.parametrize("kind", CLASSES, ids=lambda each: each.__name__)
def test_every_error_arrives_as_it_was(kind: type[UmlabError]) -> None:
    own = kind.__init__ if inspect.isfunction(kind.__init__) else None
    parameters = list(inspect.signature(own).parameters.values())[1:] if own else []
    fields = {each.name: SAMPLES[each.annotation] for each in parameters}
    sent = kind(*fields.values()) if fields else kind("it went wrong")
    arrived = refusal("lan", 400, body(kind.__name__, str(sent), fields))
    assert type(arrived) is kind
    assert str(arrived) == str(sent)
    assert {name: getattr(arrived, name) for name in fields} == fields


@pytest.mark.parametrize(
    "text",
    [
        body("Newer", "the moon is full", {}),
        body("NoSuchSwitch", "the moon is full", {"other": 1}),
        body("UmlabErr or", "the moon is full", {}),
        body("annotations", "the moon is full", {}),
    ],
)
def test_unknown_error_keeps_its_words(text: bytes) -> None:
    arrived = refusal("lan", 500, text)
    assert type(arrived) is ApiError
    assert str(arrived) == "lan: the moon is full"


@pytest.mark.parametrize("text", [b"", b"oops", b"[]", b'{"error":1}', b"[" * 100_000, b"\xff"])
def test_refusal_without_words_tells_its_status(text: bytes) -> None:
    assert str(refusal("lan", 502, text)) == "lan: the daemon answered with status 502"


def test_error_with_only_a_text_keeps_it() -> None:
    arrived = refusal("lan", 400, body("LabError", "no kernel", {}))
    assert type(arrived) is LabError
    assert str(arrived) == "no kernel"


SWITCH = {
    "name": "lan",
    "engine": "py",
    "config": {"hub": True},
    "listeners": [],
    "ports": 2,
    "fdb_entries": 0,
    "counters": {"learned": 1},
}


def test_value_of_a_newer_daemon_is_read() -> None:
    found = value(list[SwitchView], json.dumps([SWITCH | {"colour": "red"}]).encode())
    assert found == [SwitchView("lan", "py", SwitchConfig(hub=True), (), 2, 0, {"learned": 1})]


@pytest.mark.parametrize("text", [b"", b"{}", b"[1]", json.dumps([SWITCH | {"ports": "many"}]).encode()])
def test_wrong_value_is_a_value_error(text: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - whatever it says, it becomes an ApiError
        value(list[SwitchView], text)
