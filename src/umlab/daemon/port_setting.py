"""Settings of ports and mirror sessions in their one JSON form, and port numbers as text.

A port is ``{"access": 10}``, ``{"trunk": "10,20-29", "native": 1}`` or ``{"pvid": 1, "tagged": "10",
"untagged": "1,5"}``, each with ``"tpid": "stag"`` where its tags are 802.1ad's; or ``{}`` where it does not
look at tags.  Beside that, ``"reserved": "bridge"`` or ``"peer"``.  A mirror session is ``{"name": "m",
"destination": 3, "ports": [1, 2], "vlans": "10", "ingress": true, "egress": true}``.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

from umlab._name import check_name
from umlab.errors import LabError
from umlab.switch.model import MAX_PORT_NO, MirrorSession, PortConfig, ReservedPolicy, SwitchConfig
from umlab.switch.vlan import CTAG, STAG, PortVlan, VidSet, check_vid

Form = dict[str, Any]
T = TypeVar("T")
U = TypeVar("U")

#: What counts as a tag, by the word for it.
TPIDS = {"ctag": CTAG, "stag": STAG}
#: Keys that say what a port does with tags: those of one set go together.
_KINDS = ({"access"}, {"trunk", "native"}, {"pvid", "tagged", "untagged"})
_PORT_KEYS = set().union(*_KINDS, {"tpid", "reserved"})
_MIRROR_KEYS = {"name", "destination", "ports", "vlans", "ingress", "egress"}
_RANGE = re.compile(r"([0-9]{1,5})(?:-([0-9]{1,5}))?")


def port_from_form(value: Any) -> PortConfig:
    """Return the port of a form.

    Raises:
        ValueError: It is none; says why.
    """
    form = _checked(value, "a port", _PORT_KEYS)
    words = [each.value for each in ReservedPolicy]
    reserved = form.get("reserved", words[0])
    if reserved not in words:
        raise ValueError(f"reserved: {_shown(reserved)} is none of {', '.join(words)}")
    return PortConfig(_vlan(form), ReservedPolicy(reserved))


def port_to_form(port: PortConfig) -> Form:
    """Return a port's shortest form."""
    form = {} if port.vlan is None else _vlan_form(port.vlan)
    if port.reserved is not ReservedPolicy.TRANSPARENT:
        form["reserved"] = port.reserved.value
    return form


def mirror_from_form(value: Any) -> MirrorSession:
    """Return the mirror session of a form.

    Raises:
        ValueError: It is none; says why.
    """
    form = _checked(value, "a mirror session", _MIRROR_KEYS)
    missing = [key for key in ("name", "destination") if key not in form]
    if missing:
        raise ValueError(f"a mirror session has a {' and a '.join(missing)}")
    if not isinstance(form["name"], str):
        raise ValueError(f"name: {_shown(form['name'])} is no text")
    try:
        name = check_name("mirror", form["name"])
    except LabError as error:
        raise ValueError(str(error)) from None
    ports = form.get("ports", [])
    if not isinstance(ports, list | tuple):
        raise ValueError(f"ports: {_shown(ports)} is no list of numbers")
    return MirrorSession(
        name,
        _number("destination", form["destination"]),
        frozenset(_number("ports", each) for each in ports),
        _vids(form, "vlans"),
        _truth(form, "ingress"),
        _truth(form, "egress"),
    )


def mirror_to_form(session: MirrorSession) -> Form:
    """Return a mirror session's form."""
    return {
        "name": session.name,
        "destination": session.destination,
        "ports": sorted(session.ports),
        "vlans": str(session.vids),
        "ingress": session.ingress,
        "egress": session.egress,
    }


def config_to_form(config: SwitchConfig) -> Form:
    """Return a whole configuration, ready for JSON."""
    form = {each.name: getattr(config, each.name) for each in dataclasses.fields(config)}
    form["ports"] = {str(number): port_to_form(port) for number, port in sorted(config.ports.items())}
    form["mirrors"] = [mirror_to_form(each) for each in config.mirrors]
    return form


def config_from_form(form: Mapping[str, Any]) -> SwitchConfig:
    """Return the configuration of a form that an earlier version may have written.

    Raises:
        ValueError, TypeError, AttributeError: It is none.
    """
    ports = {int(number): port_from_form(port) for number, port in form.get("ports", {}).items()}
    mirrors = tuple(map(mirror_from_form, form.get("mirrors", ())))
    return SwitchConfig(**{**form, "ports": ports, "mirrors": mirrors})


def read_ports(text: str) -> list[int]:
    """Read port numbers and ranges with commas between them, such as ``1-12,20``; each once, in order.

    Raises:
        ValueError: It is none, or empty.
    """
    return [number for number, bit in enumerate(reversed(f"{port_bits(text):b}")) if bit == "1"]


def port_bits(text: str) -> int:
    """Read what ``read_ports`` reads, with bit ``number`` set for each: quick for any text.

    Raises:
        ValueError: It is none, or empty.
    """
    bits = 0
    for part in text.split(","):
        match = _RANGE.fullmatch(part.strip())
        if match is None:
            raise ValueError(f"{part[:40]!r} is no port or range of ports, such as 3 or 1-12")
        first, last = int(match[1]), int(match[2] or match[1])
        if last < first:
            raise ValueError(f"the range {match[0]} runs backwards")
        if not 1 <= first <= last <= MAX_PORT_NO:
            raise ValueError(f"ports are between 1 and {MAX_PORT_NO}, unlike {match[0]}")
        bits |= (1 << last + 1) - (1 << first)
    return bits


def ports_text(numbers: Iterable[int]) -> str:
    """Return what ``read_ports`` reads, ranges as long as can be."""
    ranges: list[list[int]] = []
    for number in sorted(numbers):
        if ranges and ranges[-1][1] == number - 1:
            ranges[-1][1] = number
        else:
            ranges.append([number, number])
    return ",".join(f"{first}" if first == last else f"{first}-{last}" for first, last in ranges)


def _vlan(form: Form) -> PortVlan | None:
    given = form.keys() - {"tpid", "reserved"}
    if not any(given <= kind for kind in _KINDS):
        raise ValueError(
            f"{', '.join(sorted(given))} do not go together: it is access, or trunk with native, "
            "or pvid with tagged and untagged"
        )
    if not given and "tpid" in form:
        raise ValueError("tpid: a transparent port looks at no tags")
    tpid = TPIDS.get(str(form.get("tpid", "ctag")))
    if tpid is None:
        raise ValueError(f"tpid: {_shown(form['tpid'])} is none of {', '.join(TPIDS)}")
    if not given:
        return None
    if "access" in given:
        return PortVlan.access(_vid(form, "access"), tpid)
    if given == {"native"}:
        raise ValueError("native: it goes with trunk")
    if "trunk" in given:
        native = _vid(form, "native") if "native" in form else None
        return PortVlan.trunk(_vids(form, "trunk"), native, tpid)
    pvid = _vid(form, "pvid") if "pvid" in form else None
    return PortVlan(pvid, _vids(form, "tagged"), _vids(form, "untagged"), tpid)


def _vlan_form(vlan: PortVlan) -> Form:
    tpid = {} if vlan.tpid == CTAG else {"tpid": "stag"}
    own = {} if vlan.pvid is None else {"pvid": vlan.pvid}
    if vlan.pvid is not None and vlan == PortVlan.access(vlan.pvid, vlan.tpid):
        return {"access": vlan.pvid, **tpid}
    if vlan.tagged and vlan == PortVlan.trunk(vlan.tagged, vlan.pvid, vlan.tpid):
        native = {} if vlan.pvid is None else {"native": vlan.pvid}
        return {"trunk": str(vlan.tagged), **native, **tpid}
    sets = {"tagged": vlan.tagged, "untagged": vlan.untagged}
    return {**own, **{key: str(vids) for key, vids in sets.items() if vids}, **tpid}


def _checked(value: Any, what: str, keys: set[str]) -> Form:
    if not isinstance(value, dict):
        raise ValueError(f"{_shown(value)} is no form of {what}")
    unknown = sorted(map(str, value.keys() - keys))
    if unknown:
        raise ValueError(f"{what} has no {_shown(unknown[0])}; it has {', '.join(sorted(keys))}")
    return value


def _number(key: str, value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise ValueError(f"{key}: {_shown(value)} is no whole number")
    if not 0 <= value <= MAX_PORT_NO:
        raise ValueError(f"{key}: {_shown(value)} is too large or too small")
    return value


def _truth(form: Form, key: str) -> bool:
    value = form.get(key, True)
    if not isinstance(value, bool):
        raise ValueError(f"{key}: {_shown(value)} is neither true nor false")
    return value


def _vid(form: Form, key: str) -> int:
    return _named(key, check_vid, _number(key, form[key]))


def _vids(form: Form, key: str) -> VidSet:
    value = form.get(key, "")
    if not isinstance(value, str):
        raise ValueError(f"{key}: {_shown(value)} is no text such as 10,20-29")
    return _named(key, VidSet.parse, value)


def _named(key: str, read: Callable[[T], U], value: T) -> U:
    """Read a value; what is wrong with it is said of its key."""
    try:
        return read(value)
    except ValueError as error:
        raise ValueError(f"{key}: {error}") from None


def _shown(value: Any) -> str:
    return repr(value)[:80]
