"""What a lab file may say of a segment's ports and mirror sessions; see :mod:`umlab.daemon.port_setting`."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, BeforeValidator, ConfigDict

from umlab.daemon.port_setting import Form, mirror_from_form, port_bits, port_from_form, read_ports
from umlab.lab.document import SHOWN
from umlab.lab.text import read_count, read_text, read_truth
from umlab.switch.model import MirrorSession, PortConfig, SwitchConfig
from umlab.switch.vlan import VidSet, check_vid

_CLOSED = ConfigDict(extra="forbid")


def _check_vids(text: str) -> str:
    return str(VidSet.parse(text))


def _check_port_no(number: int) -> int:
    port_bits(str(number))
    return number


_Vid = Annotated[int | None, BeforeValidator(read_count), AfterValidator(check_vid)]
_Vids = Annotated[str | None, BeforeValidator(read_text), AfterValidator(_check_vids)]
_PortNo = Annotated[int, BeforeValidator(read_count), AfterValidator(_check_port_no)]
_Truth = Annotated[bool, BeforeValidator(read_truth)]


@dataclass(frozen=True, slots=True)
class Port:
    """What ports are told to be, as a file describes it."""

    __pydantic_config__: ClassVar[ConfigDict] = _CLOSED

    access: _Vid = None
    trunk: _Vids = None
    native: _Vid = None
    pvid: _Vid = None
    tagged: _Vids = None
    untagged: _Vids = None
    tpid: Annotated[Literal["ctag", "stag"] | None, BeforeValidator(read_text)] = None
    reserved: Annotated[Literal["transparent", "bridge", "peer"] | None, BeforeValidator(read_text)] = None


@dataclass(frozen=True, slots=True)
class Mirror:
    """A mirror session, as a file describes it."""

    __pydantic_config__: ClassVar[ConfigDict] = _CLOSED

    name: Annotated[str, BeforeValidator(read_text)]
    destination: _PortNo
    ports: tuple[_PortNo, ...] = ()
    vlans: _Vids = None
    ingress: _Truth = True
    egress: _Truth = True


def _given(part: Port | Mirror) -> Form:
    """Return the form of what is given."""
    values: dict[str, Any] = {each.name: getattr(part, each.name) for each in dataclasses.fields(part)}
    return {key: value for key, value in values.items() if value is not None}


def _check_ports(ports: dict[str, Port]) -> dict[str, Port]:
    told = 0
    for text in ports:
        bits = port_bits(text)
        if twice := told & bits:
            number = (twice & -twice).bit_length() - 1
            raise ValueError(f"port {number} is told twice, the second time in {text[:SHOWN]}")
        told |= bits
    return ports


def _check_text(text: str) -> str:
    port_bits(text)
    return text


def _check_port(port: Port) -> Port:
    port_from_form(_given(port))
    return port


def _check_mirror(mirror: Mirror) -> Mirror:
    mirror_from_form(_given(mirror))
    return mirror


def _check_mirrors(mirrors: tuple[Mirror, ...]) -> tuple[Mirror, ...]:
    SwitchConfig(mirrors=mirror_sessions(mirrors))
    return mirrors


#: What stands below ``ports``: by numbers and ranges with commas between them.
Ports = Annotated[
    dict[Annotated[str, AfterValidator(_check_text)], Annotated[Port, AfterValidator(_check_port)]],
    AfterValidator(_check_ports),
]
#: What stands below ``mirrors``.
Mirrors = Annotated[
    tuple[Annotated[Mirror, AfterValidator(_check_mirror)], ...], AfterValidator(_check_mirrors)
]


def port_configs(ports: dict[str, Port]) -> dict[int, PortConfig]:
    """Return what each port is told to be."""
    return {
        number: port
        for text, each in ports.items()
        if (port := port_from_form(_given(each))) != PortConfig()
        for number in read_ports(text)
    }


def mirror_sessions(mirrors: tuple[Mirror, ...]) -> tuple[MirrorSession, ...]:
    """Return the mirror sessions."""
    return tuple(mirror_from_form(_given(each)) for each in mirrors)
