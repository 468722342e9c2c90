"""Events and counters as plain records: what the API sends, ``--json`` prints and lines for people show."""

from __future__ import annotations

import dataclasses
import enum
import re
from typing import TYPE_CHECKING, Any

from umlab.switch.counters import SIZE_BUCKETS
from umlab.wire.ethernet import format_mac

if TYPE_CHECKING:
    from umlab.daemon.switch import SwitchService

_SHORTEST = (0, *(size + 1 for size in SIZE_BUCKETS))
#: The name of each bucket of sizes: its shortest and its longest frame.
SIZE_NAMES = (
    *(f"{first}_{last}" for first, last in zip(_SHORTEST, SIZE_BUCKETS, strict=False)),
    f"{_SHORTEST[-1]}_up",
)
_MAC_FIELDS = frozenset({"mac", "source", "destination"})


def kind_of(event: type) -> str:
    """Return the kind that a class of events stands for: its name in snake case."""
    return re.sub(r"(?<!^)(?=[A-Z])", "_", event.__name__).lower()


def event_record(event: Any) -> dict[str, Any]:
    """Return an event dataclass as a JSON-ready dict, its kind under ``event``."""
    record: dict[str, Any] = {"event": kind_of(type(event))}
    for field in dataclasses.fields(event):
        record[field.name] = _plain(field.name, getattr(event, field.name))
    return record


def counters_record(counters: Any) -> dict[str, Any]:
    """Return a counters dataclass as a JSON-ready dict.

    Each reason to drop becomes ``drop_<reason>``, each bucket of sizes ``rx_size_<bucket>``.
    """
    record: dict[str, Any] = {}
    for field in dataclasses.fields(counters):
        value = getattr(counters, field.name)
        if isinstance(value, dict):
            record |= {f"drop_{reason.value}": count for reason, count in sorted(value.items(), key=str)}
        elif isinstance(value, list):
            name = field.name.removesuffix("s")
            record |= {f"{name}_{bucket}": count for bucket, count in zip(SIZE_NAMES, value, strict=True)}
        else:
            record[field.name] = value
    return record


def port_records(service: SwitchService) -> list[dict[str, Any]]:
    """Return every port of a switch with its peer and counters, in port order."""
    counters = service.snapshot().ports
    return [
        {
            "port_no": port.port_no,
            "kind": port.kind,
            "detail": port.detail,
            "pid": port.peer.pid if port.peer else None,
            "uid": port.peer.uid if port.peer else None,
            "umid": port.umid,
            "counters": counters_record(counters[port.port_no]),
        }
        for port in service.ports()
        if port.port_no in counters
    ]


def _plain(name: str, value: Any) -> Any:
    if isinstance(value, bytes):
        return format_mac(value) if name in _MAC_FIELDS else value.hex()
    if isinstance(value, Exception):
        return str(value)
    if isinstance(value, enum.Enum):
        return value.value
    if isinstance(value, tuple):
        return list(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {
            field.name: _plain(field.name, getattr(value, field.name)) for field in dataclasses.fields(value)
        }
    return value
