"""A simulated kernel answers anything that it is sent, as the protocol says."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from umlab.testing.kernel import Effect, Outcome, SimulatedKernel
from umlab.wire.mconsole import parse_reply, serialize_request

VERBS = [
    *(
        b"version",
        b"help",
        b"stop",
        b"go",
        b"log ",
        b"proc ",
        b"sysrq ",
        b"stack ",
        b"halt",
        b"reboot",
        b"cad",
    ),
    *(b"config ", b"config eth", b"config vec", b"config ubd", b"config con", b"config ssl", b"config mem"),
    *(b"remove ", b"remove eth", b"remove ubd", b"remove con", b"remove mem", b""),
]
TEXTS = st.binary(max_size=60).filter(lambda text: b"\0" not in text)
SETTINGS = st.text("0123456789abd:=,./-+", max_size=30).map(str.encode)
REQUESTS = st.builds(
    lambda verb, rest: serialize_request(verb + rest), st.sampled_from(VERBS), st.one_of(TEXTS, SETTINGS)
)


def _check(outcome: Outcome) -> None:
    fragments = [parse_reply(datagram) for datagram in outcome.datagrams]
    assert all(len(datagram) <= 524 for datagram in outcome.datagrams)
    # Dying, it does not come to the end.
    if outcome.effect not in (Effect.PANIC, Effect.CRASH):
        assert not fragments[-1].more


@given(st.lists(st.one_of(REQUESTS, st.binary(max_size=600)), max_size=10))
def test_anything_is_answered(datagrams: list[bytes]) -> None:
    kernel = SimulatedKernel("6.1.176", "(none)", 1 << 27)
    for datagram in datagrams:
        _check(kernel.receive(datagram))


@given(TEXTS)
def test_request_without_a_header_runs_what_came_before(text: bytes) -> None:
    kernel = SimulatedKernel("6.1.176", "(none)", 1 << 27)
    whole = serialize_request(text)
    assert kernel.receive(whole).request == text
    assert kernel.receive(b"").request == text
    assert kernel.receive(whole[:6]).request == text
