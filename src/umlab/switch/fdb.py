"""The filtering database: which port a station was last seen on."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

_Key = tuple[int, bytes]


@dataclass(frozen=True, slots=True)
class FdbEntry:
    """One learnt address.

    Attributes:
        mac: 6 bytes.
        port_no: The port it was last seen on.
        last_seen_ns: When that was, on the engine's clock.
        vid: The VLAN that it was seen in, 0 on transparent ports; each VLAN learns by itself.
    """

    mac: bytes
    port_no: int
    last_seen_ns: int
    vid: int = 0


@dataclass(slots=True)
class FdbRecord:
    """A learnt address as the FDB holds it; change it through the FDB only.

    Attributes:
        mac: 6 bytes.
        port_no: The port it was last seen on.
        last_seen_ns: When that was.
        vid: The VLAN that it was seen in, 0 on transparent ports.
        unknown_at_ns: When a flood of this station's frames to an unknown address was last reported.
    """

    mac: bytes
    port_no: int
    last_seen_ns: int
    vid: int = 0
    unknown_at_ns: int | None = None

    @property
    def key(self) -> _Key:
        """What it is found by."""
        return (self.vid, self.mac)


class Fdb:
    """A bounded table of stations, in the order in which they were last seen.

    An entry is dead when ``now_ns - last_seen_ns > ageing_time_ns``.  Call ``expire`` with the present
    before any other call that goes by the entries: after it, what is found is alive.  Times given to
    one table never go back, which is what keeps its order.

    Args:
        capacity: Most entries at once.
        ageing_time_ns: How long an entry lives unseen.

    Source: IEEE 802.1Q-2018 8.8.
    """

    __slots__ = ("_ageing_time_ns", "_by_port", "_capacity", "_quiet_until_ns", "_records")

    def __init__(self, capacity: int, ageing_time_ns: int) -> None:
        self._capacity = capacity
        self._ageing_time_ns = ageing_time_ns
        # OrderedDict, not dict: taking the first of a plain dict walks over every hole left before it.
        self._records: OrderedDict[_Key, FdbRecord] = OrderedDict()
        self._by_port: dict[int, set[_Key]] = {}
        # No entry can be dead up to here; lets the common `expire` be one comparison.
        self._quiet_until_ns = -1

    def __len__(self) -> int:
        return len(self._records)

    def configure(self, capacity: int, ageing_time_ns: int) -> None:
        """Be told something else; a smaller table forgets what was seen longest ago."""
        self._capacity = capacity
        self._ageing_time_ns = ageing_time_ns
        # Entries may be dead by now that were alive.
        self._quiet_until_ns = -1
        while len(self._records) > capacity:
            _, record = self._records.popitem(last=False)
            self._leave_port(record)

    def sort(self) -> None:
        """Restore the order after entries were added that were seen in the past."""
        self._records = OrderedDict(sorted(self._records.items(), key=lambda item: item[1].last_seen_ns))
        self._quiet_until_ns = -1

    def find(self, mac: bytes, vid: int = 0) -> FdbRecord | None:
        """Return an address's record in a VLAN."""
        return self._records.get((vid, mac))

    def add(self, mac: bytes, port_no: int, now_ns: int, vid: int = 0) -> FdbRecord | None:
        """Learn an address that is not in the table; ``None`` when the table is full."""
        if len(self._records) >= self._capacity:
            return None
        record = FdbRecord(mac, port_no, now_ns, vid)
        self._records[record.key] = record
        self._by_port.setdefault(port_no, set()).add(record.key)
        return record

    def touch(self, record: FdbRecord, now_ns: int) -> None:
        """Note that a station was seen just now."""
        record.last_seen_ns = now_ns
        self._records.move_to_end(record.key)

    def move(self, record: FdbRecord, port_no: int) -> None:
        """Note that a station is on another port."""
        self._leave_port(record)
        record.port_no = port_no
        self._by_port.setdefault(port_no, set()).add(record.key)

    def expire(self, now_ns: int) -> Sequence[FdbRecord]:
        """Remove every dead entry and return them, oldest first; takes time for those only."""
        if now_ns <= self._quiet_until_ns:
            return ()
        records = self._records
        dead = []
        oldest_ns = now_ns
        while records:
            record = next(iter(records.values()))
            if now_ns - record.last_seen_ns <= self._ageing_time_ns:
                oldest_ns = record.last_seen_ns
                break
            del records[record.key]
            self._leave_port(record)
            dead.append(record)
        self._quiet_until_ns = oldest_ns + self._ageing_time_ns
        return dead

    def remove_port(self, port_no: int) -> None:
        """Forget every address learnt on a port; takes time for those only."""
        for key in self._by_port.pop(port_no, ()):
            del self._records[key]

    def keep(self, belongs: Callable[[FdbRecord], bool]) -> None:
        """Forget every address that does not belong where it was seen."""
        for record in [each for each in self._records.values() if not belongs(each)]:
            del self._records[record.key]
            self._leave_port(record)

    def next_expiry_ns(self) -> int | None:
        """Return the first instant at which an entry is dead, ``None`` when the table is empty."""
        if not self._records:
            return None
        return next(iter(self._records.values())).last_seen_ns + self._ageing_time_ns + 1

    def entries(self, now_ns: int) -> list[FdbEntry]:
        """Return a copy of the entries that are alive, oldest first; changes nothing."""
        return [
            FdbEntry(record.mac, record.port_no, record.last_seen_ns, record.vid)
            for record in self._records.values()
            if now_ns - record.last_seen_ns <= self._ageing_time_ns
        ]

    def _leave_port(self, record: FdbRecord) -> None:
        keys = self._by_port[record.port_no]
        keys.remove(record.key)
        if not keys:
            del self._by_port[record.port_no]
