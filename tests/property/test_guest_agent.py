"""Whatever a guest's agent says is a line of the protocol or is refused, and a command's words arrive."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys

from hypothesis import example, given, settings
from hypothesis import strategies as st

from umlab.errors import LocalProtocolError, RemoteProtocolError
from umlab.guest.inside.agent_line import SESSIONS, Echo, End, Exit, Greeting, Heard, More, Reset, parse_line
from umlab.guest.inside.script import command_script

_PIECE = st.sampled_from(
    [
        b"umlab-agent",
        b"reset",
        b"open",
        b"\r",
        b"exit",
        b"more",
        b"heard",
        b"end",
        b"file",
        b"line",
        b" ",
        b"0",
        b"1",
        b"2",
        b"256",
        b"9",
    ]
)
_WORD = st.text(st.characters(codec="utf-8", exclude_characters="\0"))
#: Prints what it was given, as JSON.
_SHOW = "import json, os, sys; print(json.dumps([sys.argv[1:], os.getcwd(), dict(os.environ)]))"


@given(st.binary(max_size=40) | st.lists(_PIECE, max_size=6).map(b"".join) | st.lists(_PIECE).map(b" ".join))
@example(b"1 exit 255\n")
@example("1 exit ٣".encode())
def test_line_is_of_the_protocol_or_refused(line: bytes) -> None:
    with contextlib.suppress(RemoteProtocolError):
        match parse_line(line):
            case Greeting(has_files, boot, pid):
                how = "file" if has_files else "line"
                assert line.startswith(f"umlab-agent 2 {how} {boot} ".encode())
                assert int(line.split()[-1]) == pid
            case More(session):
                assert line == b"%d more" % session
                assert 1 <= session <= SESSIONS
            case Heard(session):
                assert line == b"%d heard" % session
                assert 1 <= session <= SESSIONS
            case Exit(session, status):
                assert (line.split()[0], int(line.split()[2])) == (b"%d" % session, status)
                assert 1 <= session <= SESSIONS
                assert 0 <= status <= 255
            case End(session):
                assert line == b"%d end" % session
                assert 1 <= session <= SESSIONS
            case Reset(number, _):
                assert int(line.split()[2]) == number
            case Echo():
                assert not line[:1].isdigit()
                assert len(line.split(b" ")[0].rstrip(b"\r")) <= 6


@given(
    st.sampled_from(["begin 0-f", "open 1 2", "signal 8 USR1 77", "size 1 24 80", "cut 1 2", "reset 1"]),
    st.integers(0, 16),
    st.sampled_from(["", "\r"]),
)
def test_beginning_of_what_the_host_says_is_an_echo(said: str, size: int, end: str) -> None:
    assert parse_line(f"{said[:size]}{end}".encode()) == Echo()


@given(
    st.lists(_WORD, max_size=4),
    st.dictionaries(st.from_regex(r"[A-Z_][A-Z0-9_]{0,5}", fullmatch=True), _WORD, max_size=3),
)
@example(["-c", "$(echo x)", "`x`", "'", '"', "\\", "\n", "a\nb", "", "*", "~", "ä€"], {"A": "'; exit 9 #"})
@settings(max_examples=15, deadline=None)
def test_words_and_variables_arrive_as_they_are(words: list[str], variables: dict[str, str]) -> None:
    # What a shell, or Python, reads for itself is none of the command's.
    variables = {f"V{name}": value for name, value in variables.items()}
    argv = [sys.executable, "-I", "-S", "-c", _SHOW, *words]
    script = command_script(argv, environment=variables, directory="/usr")
    done = subprocess.run(
        ["sh"], input=script.encode(), stdout=subprocess.PIPE, check=True, env={"LC_ALL": "C.UTF-8"}
    )
    arguments, directory, environment = json.loads(done.stdout)
    assert arguments == words
    assert directory == "/usr"
    assert variables.items() <= environment.items()


@given(
    st.lists(st.text()),
    st.dictionaries(st.text(max_size=3), st.text(max_size=3)),
    st.none() | st.text(max_size=3),
)
def test_unusable_command_is_refused(
    argv: list[str], variables: dict[str, str], directory: str | None
) -> None:
    try:
        script = command_script(argv, environment=variables, directory=directory)
    except LocalProtocolError:
        return
    assert argv[0]
    assert "\0" not in script
