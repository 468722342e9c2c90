"""What may come next in a line."""

from __future__ import annotations

from pathlib import Path

import pytest
from prompt_toolkit.completion import CompleteEvent
from prompt_toolkit.document import Document

from umlab.cli.console_complete import ConsoleCompleter, Known, candidates

KNOWN = Known(
    {"web1": "lan/web1", "web2": "lan/web2", "bad\x1b": "x"},
    {"ubda": "/srv/left.img", "eth7": "daemon"},
    {"1": "init", "42": "sh"},
)


async def nothing() -> None:
    raise AssertionError("no processes are asked for")


def words(text: str) -> list[str]:
    return list(candidates(text, KNOWN)[1])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("ver", ["version"]),
        ("  s", ["sysrq", "stack", "stop", "switch"]),
        ("@", ["web1", "web2", "all"]),
        ("@web1,w", ["web1", "web2"]),
        ("@all s", ["sysrq", "stack", "stop"]),
        ("@all switch ", []),
        ("switch ", ["web1", "web2"]),
        ("proc load", ["loadavg"]),
        ("@all proc  load", ["loadavg"]),
        ("config eth", ["eth0", "eth1", "eth7"]),
        ("config ubd", ["ubda", "ubdb", "ubdc", "ubdd"]),
        ("remove ubd", ["ubda"]),
        ("remove e", ["eth7"]),
        ("help sw", ["switch"]),
        ("log ", ["-f"]),
        ("stack ", ["1", "42"]),
        ("stack 4", ["42"]),
        ("version ", []),
        ("nonsense x", []),
    ],
)
def test_words_that_fit(text: str, expected: list[str]) -> None:
    assert words(text) == expected


def test_keys_and_devices_say_what_they_are() -> None:
    typed, keys = candidates("sysrq ", KNOWN)
    assert typed == ""
    assert keys["m"] == "show memory"
    assert keys["b"].endswith("(deadly)")
    assert candidates("config ubda", KNOWN)[1] == {"ubda": "/srv/left.img"}


def test_menu_replaces_what_is_typed() -> None:
    completer = ConsoleCompleter(lambda: KNOWN, nothing)
    (found,) = completer.get_completions(Document("@all proc load"), CompleteEvent())
    assert (found.text, found.start_position) == ("loadavg", -4)


def test_files_are_completed_for_the_log(short_dir: Path) -> None:
    (short_dir / "notes.txt").touch()
    completer = ConsoleCompleter(lambda: KNOWN, nothing)
    for front in ("log -f ", "@web1  log  -f "):
        (found,) = completer.get_completions(Document(f"{front}{short_dir}/no"), CompleteEvent())
        assert found.text == "tes.txt"


async def test_processes_are_looked_for_when_they_are_to_be_named() -> None:
    known = [Known({}, {})]

    async def look() -> None:
        known[0] = KNOWN

    completer = ConsoleCompleter(lambda: known[0], look)

    async def complete(text: str) -> list[str]:
        found = completer.get_completions_async(Document(text), CompleteEvent())
        return [each.text async for each in found]

    assert await complete("sta") == ["stack"]
    assert known == [Known({}, {})]
    assert await complete("stack ") == ["1", "42"]


def test_usual_devices_are_shown_where_a_guests_own_are_not_known() -> None:
    assert "ubdb" in candidates("remove ", Known({}, {}))[1]


def test_name_that_would_mean_others_is_not_offered_behind_the_mark() -> None:
    known = Known({name: "/tmp/x" for name in ("all", "*", "web[12]", "a b", "a,b", "a?")}, {})
    assert candidates("@", known)[1] == {"all": "every guest"}
    assert list(candidates("switch ", known)[1]) == list(known.guests)
