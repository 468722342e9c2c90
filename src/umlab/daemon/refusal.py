"""What is told of refused requests: each reason once, and then ever more rarely how often it came again."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

from umlab.errors import UmlabError
from umlab.transports.contract import Peer

_SECOND_NS = 1_000_000_000
#: Nanoseconds until the same reason from the same user is told again; then ten times as long, up to the last.
_FIRST_PAUSE_NS, _LAST_PAUSE_NS = 60 * _SECOND_NS, 3600 * _SECOND_NS
#: New reasons that are told at once; then it is one in so many nanoseconds, for whoever invents reasons.
_BURST, _REFILL_NS = 10, 60 * _SECOND_NS
#: Reasons that are remembered, the latest ones.
_MAX_REASONS = 256


@dataclass(slots=True)
class _Told:
    """A reason that was told; ``count`` is how often it came since."""

    again_ns: int
    pause_ns: int
    count: int = 0


class RefusalBook:
    """What was told of the refusals of one switch."""

    def __init__(self) -> None:
        self._told: OrderedDict[tuple[str, int | None, str], _Told] = OrderedDict()
        self._credit_ns = _BURST * _REFILL_NS
        self._seen_ns: int | None = None
        self._untold = 0

    def note(self, now_ns: int, kind: str, reason: UmlabError, peer: Peer | None) -> str | None:
        """Take note of a refusal and return what is to be told of it, or nothing."""
        if self._seen_ns is not None:
            self._credit_ns = min(self._credit_ns + now_ns - self._seen_ns, _BURST * _REFILL_NS)
        self._seen_ns = now_ns
        key = kind, None if peer is None else peer.uid, str(reason)
        told = self._told.get(key)
        if told is None:
            return self._note_new(now_ns, key)
        self._told.move_to_end(key)
        told.count += 1
        if now_ns < told.again_ns:
            return None
        text = f"{reason} ({told.count} times more)"
        told.pause_ns = min(told.pause_ns * 10, _LAST_PAUSE_NS)
        told.again_ns, told.count = now_ns + told.pause_ns, 0
        return text

    def _note_new(self, now_ns: int, key: tuple[str, int | None, str]) -> str | None:
        if self._credit_ns < _REFILL_NS:
            self._untold += 1
            return None
        self._credit_ns -= _REFILL_NS
        self._told[key] = _Told(now_ns + _FIRST_PAUSE_NS, _FIRST_PAUSE_NS)
        if len(self._told) > _MAX_REASONS:
            self._told.popitem(last=False)
        text = key[2]
        if self._untold:
            text += f" ({self._untold} others were not told)"
            self._untold = 0
        return text
