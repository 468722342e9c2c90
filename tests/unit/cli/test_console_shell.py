"""The shell, with keys from a pipe and a screen that nobody sees."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from prompt_toolkit.application import create_app_session
from prompt_toolkit.input import create_pipe_input
from prompt_toolkit.output import DummyOutput

from umlab.cli.console_run import Manner
from umlab.cli.console_shell import run_shell
from umlab.testing import SimulatedGuest, SimulatedGuests

#: Types keys into a shell that speaks to ``web1``.
Typing = Callable[..., int]


@pytest.fixture
def web(short_dir: Path) -> Iterator[SimulatedGuest]:
    with SimulatedGuests(short_dir) as guests:
        yield guests.add("web1")


@pytest.fixture
def type_(web: SimulatedGuest, short_dir: Path, monkeypatch: pytest.MonkeyPatch) -> Typing:
    monkeypatch.setenv("XDG_STATE_HOME", str(short_dir / "s"))

    def typing(keys: str, *, asks: bool = True) -> int:
        with create_pipe_input() as pipe, create_app_session(input=pipe, output=DummyOutput()):
            pipe.send_text(keys)
            return asyncio.run(run_shell([str(web.path)], (), Manner(), asks=asks))

    return typing


def said(web: SimulatedGuest) -> list[bytes]:
    """Return what the guest was told, but for what the toolbar asks."""
    return [text for text in web.requests if text != b"version" and not text.startswith(b"proc ")]


@pytest.mark.parametrize(
    ("answer", "sent"),
    [("y\r", [b"cad"]), ("YES\r", [b"cad"]), ("n\r", []), ("\r", []), ("\x03", []), ("\x04", [])],
)
def test_deadly_command_is_sent_only_after_a_yes(
    answer: str, sent: list[bytes], web: SimulatedGuest, type_: Typing
) -> None:
    assert type_(f"cad\r{answer}stop\rquit\r") == 0
    assert said(web) == [*sent, b"stop"]


def test_nobody_is_asked_who_said_yes_before(web: SimulatedGuest, type_: Typing) -> None:
    type_("@all cad\r\x04", asks=False)
    assert said(web) == [b"cad"]


def test_lines_are_kept_for_the_next_session(web: SimulatedGuest, type_: Typing, short_dir: Path) -> None:
    type_("stop\rexit\r")
    type_("\x1b[A\x1b[A\rexit\r")
    assert said(web) == [b"stop", b"stop"]
    kept = short_dir / "s/umlab/.console_history"
    assert kept.stat().st_mode & 0o777 == 0o600
    assert kept.parent.stat().st_mode & 0o777 == 0o700


def test_history_that_cannot_be_kept_is_told(
    web: SimulatedGuest, type_: Typing, short_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (short_dir / "s").touch()
    assert type_("stop\rexit\r") == 0
    assert said(web) == [b"stop"]
    assert "umlab: the history is not kept: Not a directory" in capsys.readouterr().err


def test_pasted_lines_are_run_until_one_fails(web: SimulatedGuest, type_: Typing) -> None:
    type_("\x1b[200~stop\n\ngo\ngo\nlog never\n\x1b[201~\rquit\r")
    assert said(web) == [b"stop", b"go", b"go"]


def test_dropped_line_is_not_run(web: SimulatedGuest, type_: Typing) -> None:
    type_("stop\x03go\r\x04")
    assert said(web) == [b"go"]
