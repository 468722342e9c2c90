"""What a filter may be, and what is said of one that is none."""

from __future__ import annotations

import ctypes
import threading

import pytest

from umlab.capture import filter as capture_filter
from umlab.capture.filter import MAX_EXPRESSION, compile_filter, why_no_library
from umlab.errors import CaptureError
from umlab.switch.bpf import Program, run

ARP = bytes.fromhex("ffffffffffff 020000000001 0806").ljust(60, b"\0")
IPV4 = bytes.fromhex("ffffffffffff 020000000001 0800").ljust(60, b"\0")
TAGGED = bytes.fromhex("ffffffffffff 020000000001 8100 000a 0806").ljust(60, b"\0")
#: ``tcpdump -ddd arp``.
DDD = "4\n40 0 0 12\n21 0 1 2054\n6 0 0 262144\n6 0 0 0\n"


def accepted(program: Program | None, *frames: bytes) -> list[bool]:
    assert program is not None
    return [bool(run(program, frame)) for frame in frames]


@pytest.mark.parametrize("text", ["arp", " arp\n", DDD, f"\n{DDD}\n"])
def test_expression_and_program_mean_the_same(text: str) -> None:
    assert accepted(compile_filter(text), ARP, IPV4, TAGGED) == [True, False, False]


def test_tags_are_found_in_the_frame() -> None:
    assert accepted(compile_filter("vlan 10 and arp"), ARP, TAGGED) == [False, True]


@pytest.mark.parametrize("text", ["", " \n"])
def test_no_filter_is_no_program(text: str) -> None:
    assert compile_filter(text) is None


def test_whole_frames_are_kept() -> None:
    program = compile_filter("len > 0")
    assert program is not None
    assert run(program, bytes(65_535)) >= 65_535


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("arp and", "'arp and' does not compile: "),
        ("host 1.2.3.4.5", "does not compile"),
        ("\ud800", "does not compile"),
        ("x" * (MAX_EXPRESSION + 1), f"{MAX_EXPRESSION + 1} characters"),
        ("arp\0or ip", "NUL"),
        ("2\n6 0 0 1", "line 1"),
        ("1\n5 0 0 0", "instruction 0"),
        ("1\n", "line 1"),
        ("7", "line 1"),
    ],
)
def test_what_is_no_filter_is_refused(text: str, reason: str) -> None:
    with pytest.raises(CaptureError, match=reason):
        compile_filter(text)


def test_a_filter_that_accepts_nothing_is_refused_by_libpcap() -> None:
    with pytest.raises(CaptureError, match="rejects all packets"):
        compile_filter("ip and arp")


def test_threads_may_compile_at_once() -> None:
    found: list[list[bool]] = []

    def compile_many() -> None:
        found.extend(accepted(compile_filter("arp"), ARP, IPV4) for _ in range(50))

    threads = [threading.Thread(target=compile_many) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [[True, False]] * 200


def test_without_libpcap_programs_remain(monkeypatch: pytest.MonkeyPatch) -> None:
    capture_filter._library.cache_clear()
    assert why_no_library() == ""
    capture_filter._library.cache_clear()

    def missing(name: str) -> ctypes.CDLL:
        raise OSError(f"{name}: cannot open shared object file")

    monkeypatch.setattr(ctypes, "CDLL", missing)
    assert "cannot open shared object file" in why_no_library()
    with pytest.raises(CaptureError, match="apt-get install libpcap"):
        compile_filter("arp")
    assert accepted(compile_filter(DDD), ARP) == [True]
