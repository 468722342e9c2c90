"""Properties of the engines: whatever happens to one, it does what the pure core would do.

Unlike the differential tests, which go through fixed scenarios, these look for a short one that fails; and
they send bytes that nobody who knows the protocol would.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from support.engines import ENGINES
from support.link_input import check_messages, check_stream
from support.scenario import Profile, make_scenario
from support.scenario_run import compare
from umlab.switch.model import MAX_STREAM_LENGTH, SECOND_NS, Encapsulation, SwitchConfig

PROFILE = Profile(
    SwitchConfig(ageing_time_ns=5 * SECOND_NS, fdb_capacity=4, max_frame=2048, egress_queue_depth=2),
    most_frames=20,
    max_frames=(14, 1518, 2048, 9018),
    stops=True,
)


@pytest.mark.parametrize("kind", sorted(ENGINES))
@pytest.mark.parametrize("vlans", [False, True], ids=["plain", "vlans"])
def test_engine_is_equal_to_the_core(kind: str, vlans: bool, count_scenario: Callable[[str], None]) -> None:
    profile = replace(PROFILE, vlans=vlans)

    @settings(max_examples=40)
    @given(st.randoms(use_true_random=False), st.integers(1, 40), st.booleans())
    def check(rng: random.Random, length: int, held: bool) -> None:
        compare(ENGINES[kind], profile.config, make_scenario(rng, profile, length), held=held)
        count_scenario(kind)

    check()


#: Pieces of streams, most of which make frames.
PIECES = st.one_of(
    st.binary(max_size=8),
    st.integers(0, 400).map(lambda size: size.to_bytes(4, "big") + bytes(size)),
    st.binary(max_size=80).map(lambda data: len(data).to_bytes(4, "big") + data),
    st.sampled_from([MAX_STREAM_LENGTH, MAX_STREAM_LENGTH + 1]).map(lambda size: size.to_bytes(4, "big")),
    st.just(bytes(4) * 500),
    st.just((14).to_bytes(4, "big") + bytes(14)).map(lambda one: one * 300),
)


@pytest.mark.parametrize("kind", sorted(ENGINES))
def test_stream_of_whatever_bytes_is_cut_into_its_frames(kind: str) -> None:
    @settings(max_examples=60)
    @given(st.lists(PIECES, max_size=12), st.lists(st.integers(1, 200), max_size=20))
    def check(pieces: list[bytes], cuts: list[int]) -> None:
        stream = b"".join(pieces)
        places = [0]
        for cut in cuts:
            places.append(places[-1] + cut)
        places.append(len(stream))
        check_stream(ENGINES[kind], [stream[one:other] for one, other in itertools.pairwise(places)])

    check()


@st.composite
def encapsulations(draw: st.DrawFn) -> Encapsulation:
    header = draw(st.binary(max_size=20))
    return Encapsulation(header, b"", draw(st.integers(0, 32 - len(header))), ip_header=draw(st.booleans()))


@pytest.mark.parametrize("kind", sorted(ENGINES))
def test_messages_of_whatever_bytes_are_frames_behind_their_header_or_none(kind: str) -> None:
    @settings(max_examples=60)
    @given(encapsulations(), st.data())
    def check(given_: Encapsulation, data: st.DataObject) -> None:
        front = given_.rx_header + bytes(given_.rx_skip)
        fronts = st.one_of(
            st.just(front),
            st.integers(0, 15).map(lambda words: bytes([words]).ljust(4 * words, b"\0")[: 4 * words] + front),
            st.binary(max_size=100),
        )
        whole = st.builds(bytes.__add__, fronts, st.integers(0, 400).map(bytes))
        message = st.one_of(whole, st.builds(lambda each, size: each[:size], whole, st.integers(0, 100)))
        check_messages(ENGINES[kind], given_, data.draw(st.lists(message, max_size=80)))

    check()
