"""The command line of ``uml_switch`` and the words in which it reports."""

from __future__ import annotations

import subprocess
import sys

import pytest

from umlab.compat import uml_switch
from umlab.compat._switch_log import EventLog
from umlab.compat._switch_options import DEFAULT_CONTROL, DEFAULT_DATA, Options, UsageError, parse_options
from umlab.compat._switch_process import OptionalTap, attached_line, explain
from umlab.daemon.switch import ServiceEvent, SessionClosed, SessionOpened, SessionRefused
from umlab.errors import (
    BadMagic,
    OversizeMessage,
    SocketInUse,
    TransportError,
    TruncatedMessage,
    UmlabError,
    UnsupportedType,
    UnsupportedVersion,
)
from umlab.switch.events import (
    EventsLost,
    FdbFull,
    MacAged,
    MacLearned,
    PortAttached,
    StationMoved,
    UnknownUnicast,
)

MAC = b"\x02\0\0\0\0\x01"
OTHER = b"\x02\0\0\0\0\x02"


def parsed(*words: str) -> Options:
    return parse_options(["prog", *words])


def test_no_options_mean_the_default_socket() -> None:
    assert parsed() == Options("prog")
    assert parsed().control == DEFAULT_CONTROL
    assert parsed().control_is_default


@pytest.mark.parametrize(
    ("words", "control", "data", "compat"),
    [
        ("-unix A", "A", None, False),
        ("-unix A B", "A", "B", False),
        ("-unix A -hub", "A", None, False),
        ("-unix A B -hub", "A", "B", False),
        ("-unix A -unix C", "C", None, False),
        ("-compat-v0", DEFAULT_CONTROL, DEFAULT_DATA, True),
        ("-compat-v0 -unix A B", "A", "B", True),
        ("-compat-v0 -unix A -hub", "A", "-hub", True),
        ("-unix A -compat-v0", "A", DEFAULT_DATA, True),
        ("-unix A B -compat-v0", "A", "B", True),
        ("-unix -hub", "-hub", None, False),
    ],
)
def test_unix_takes_the_words_that_belong_to_it(
    words: str, control: str, data: str | None, compat: bool
) -> None:
    options = parsed(*words.split())
    assert (options.control, options.data, options.compat) == (control, data, compat)


def test_last_unix_forgets_the_data_socket_of_the_one_before() -> None:
    assert parsed("-unix", "A", "B", "-unix", "C").data is None


def test_empty_word_is_no_data_socket() -> None:
    with pytest.raises(UsageError):
        parsed("-unix", "A", "")


@pytest.mark.parametrize(
    "words", ["-x", "word", "-unix", "-tap", "-compat-v0 -unix A", "-unix A B C", "-hub -x", "-daemon no"]
)
def test_word_that_is_not_understood_is_a_usage_error(words: str) -> None:
    with pytest.raises(UsageError):
        parsed(*words.split())


def test_hub_tap_and_daemon_are_read(capfd: pytest.CaptureFixture[str]) -> None:
    options = parsed("-hub", "-tap", "tap0", "-daemon")
    assert (options.hub, options.tap, options.daemon) == (True, "tap0", True)
    assert capfd.readouterr().out == "prog will be a hub instead of a switch\n"


def test_usage_goes_to_standard_error_with_status_1(capfd: pytest.CaptureFixture[str]) -> None:
    assert uml_switch.main(["/bin/prog", "-x"]) == 1
    output = capfd.readouterr()
    assert output.out == ""
    assert output.err.startswith("Usage : /bin/prog [ -unix control-socket ]")
    assert output.err.count("\n") == 2


def test_usage_error_does_not_load_the_switch() -> None:
    code = (
        "import sys; from umlab.compat.uml_switch import main; main(['prog', '-x']);"
        "sys.exit('asyncio' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], stderr=subprocess.DEVNULL).returncode == 0


@pytest.mark.parametrize(
    ("event", "line"),
    [
        (SessionOpened(0, 5, "daemon", "v3", None), "New connection"),
        (SessionClosed(0, 5, "daemon", "guest"), "Disconnect"),
        (MacLearned(0, MAC, 5), " Addr: 02:00:00:00:00:01 New port 5"),
        (StationMoved(0, MAC, 6, 5), " Addr: 02:00:00:00:00:01 New port 6 old port 5"),
        (UnknownUnicast(0, MAC, OTHER, 5), "unknown Addr: 02:00:00:00:00:01 from port 5"),
    ],
)
def test_event_is_reported_in_the_words_of_the_original(event: ServiceEvent, line: str) -> None:
    assert reported(event) == ([line], [])


@pytest.mark.parametrize("event", [MacAged(0, MAC, 5), PortAttached(0, 5)])
def test_event_that_the_original_does_not_report_is_not_reported(event: ServiceEvent) -> None:
    assert reported(event) == ([], [])


@pytest.mark.parametrize("event", [FdbFull(0, 65_536), EventsLost(0, 17)])
def test_loss_is_reported_on_standard_error(event: ServiceEvent) -> None:
    out, (line,) = reported(event)
    assert out == []
    assert line.startswith(("65536 ", "17 "))


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (UnsupportedType(7), "Bad request type : 7"),
        (UnsupportedType(0xFFFF_FFFF), "Bad request type : -1"),
        (BadMagic(0x2054_4547), "Bad request type : 542393671"),
        (TruncatedMessage(4, 0), "EOF from new port"),
        (TruncatedMessage(124, 60), "Bad request: message is cut: 60 of 124 bytes"),
        (OversizeMessage(251, 250), "Bad request"),
        (TransportError("no such socket"), "Bad request: no such socket"),
    ],
)
def test_refusal_on_standard_output(error: UmlabError, line: str) -> None:
    assert reported(SessionRefused(0, "daemon", error, None)) == ([line], [])


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (UnsupportedVersion(2), "Version 2 is not supported"),
        (UnsupportedVersion(4), "Request for a version 4 port, which this uml_switch doesn't support"),
        (BadMagic(0), "Request for a version 0 port, which takes the option -compat-v0"),
    ],
)
def test_refusal_on_standard_error(error: UmlabError, line: str) -> None:
    assert reported(SessionRefused(0, "daemon", error, None)) == ([], [line])


def test_events_wait_until_the_first_line_is_out() -> None:
    out: list[str] = []
    log = EventLog(out.append, out.append)
    log.report(SessionOpened(0, 5, "tap", "tap0", None))
    assert out == []
    log.release()
    log.report(SessionClosed(0, 5, "tap", "link"))
    assert out == ["New connection", "Disconnect"]


def reported(event: ServiceEvent) -> tuple[list[str], list[str]]:
    out: list[str] = []
    err: list[str] = []
    log = EventLog(out.append, err.append)
    log.release()
    log.report(event)
    return out, err


def test_socket_in_use_is_explained_as_control_or_data() -> None:
    options = Options("prog", "A", "B", compat=True)
    assert explain(SocketInUse("A"), options).startswith(
        "The control socket 'A' has another server attached to it\n"
    )
    assert explain(SocketInUse("B"), options).startswith(
        "The data socket 'B' has another server attached to it\n"
    )
    assert explain(TransportError("too long"), options) == "too long"


def test_attached_line_names_the_sockets_and_a_tap_that_is_there() -> None:
    tap = OptionalTap("tap0")
    assert attached_line(Options("prog", "A"), None) == "prog attached to unix socket 'A'"
    assert attached_line(Options("prog", "A", "B"), None) == "prog attached to unix socket 'A'"
    assert attached_line(Options("prog", "A", "B", compat=True), tap) == (
        "prog attached to unix sockets 'A' and 'B' tap device 'tap0'"
    )
    tap.error = TransportError("none")
    assert attached_line(Options("prog", "A"), tap) == "prog attached to unix socket 'A'"
