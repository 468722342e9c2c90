"""What is captured: switches, or some of their ports, as they are named on the command line."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from umlab.cli.target import missing_switch, switch_place
from umlab.client.sync import Client
from umlab.daemon.view import PortView
from umlab.errors import NoSuchGuest, NoSuchSwitch, SwitchError
from umlab.switch.model import MAX_PORT_NO

_RANGE = re.compile(r"([0-9]{1,9})-([0-9]{1,9})")


@dataclass(frozen=True, slots=True)
class CaptureTarget:
    """A switch, or some of its ports.

    Attributes:
        lab: The lab.
        switch: The switch.
        ports: Numbers; ``None`` for all.
    """

    lab: str
    switch: str
    ports: tuple[int, ...] | None

    @property
    def label(self) -> str:
        """Its name as a part of a file's name."""
        return self.switch if self.switch == self.lab else f"{self.lab}-{self.switch}"


def capture_targets(names: Iterable[str]) -> list[CaptureTarget]:
    """Return what names such as ``lan``, ``ring/core:1-3`` and ``lan:left,7`` stand for, each switch once.

    Raises:
        NoSuchSwitch: A running lab has no such switch.
        NoSuchGuest: No such guest is plugged in.
        SwitchError: A range has no port that is there.
        LabNotRunning: No daemon answers.
        ValueError: No ports are written like this.
    """
    wanted: dict[tuple[str, str], list[str] | None] = {}
    for name in names:
        switch, sign, ports = name.partition(":")
        place = switch_place(switch)
        known = wanted.setdefault(place, [])
        # All of its ports are more than some of them.
        if not sign:
            wanted[place] = None
        elif known is not None:
            known += ports.split(",")
    return [CaptureTarget(*place, _port_numbers(*place, words)) for place, words in wanted.items()]


def _port_numbers(lab: str, switch: str, words: Sequence[str] | None) -> tuple[int, ...] | None:
    with Client(lab) as client:
        try:
            views = client.ports(switch)
        except NoSuchSwitch as error:
            raise missing_switch(client, error) from None
    if words is None:
        return None
    numbers = {number for word in words for number in _numbers(word, views)}
    if not numbers:
        raise SwitchError(f"nothing is plugged in at {lab}/{switch}:{','.join(words)}")
    return tuple(sorted(numbers))


def _numbers(word: str, views: Sequence[PortView]) -> Iterable[int]:
    if word.isascii() and word.isdecimal():
        return [_number(word)]
    if match := _RANGE.fullmatch(word):
        first, last = _number(match[1]), _number(match[2])
        if last < first:
            raise ValueError(f"the range {word} runs backwards")
        # Of a range those that are there: who writes 1-100 may have ten of them.
        return [view.port_no for view in views if first <= view.port_no <= last]
    found = [view.port_no for view in views if word and word in (view.guest, view.umid)]
    if not found:
        if not word:
            raise ValueError("write ports as numbers, ranges and guests, such as lan:1-3,left")
        raise NoSuchGuest(word)
    return found


def _number(text: str) -> int:
    number = int(text)
    if not 1 <= number <= MAX_PORT_NO:
        raise ValueError(f"{text}: a port's number is between 1 and {MAX_PORT_NO}")
    return number
