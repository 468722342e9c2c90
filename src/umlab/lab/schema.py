"""What a lab file may say.  docs/reference/lab-file.md explains it to its writers.

Every field is checked by itself, by the rules of what is made from it, so that a file's errors come
out together, each at its own key.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Discriminator, Field, Tag, ValidationInfo

from umlab.daemon.access import find_group, find_user, read_mode
from umlab.daemon.disk import disk_path
from umlab.daemon.place import state_base
from umlab.daemon.spec import DEFAULT_KINDS, DEFAULT_RECORDER, SwitchSpec, attached_nic, resolve_listen
from umlab.errors import LabError, TransportError
from umlab.guest.cmdline import BessNic, DiskRoot, GuestSpec, TinyRoot
from umlab.guest.disk.image import image_path
from umlab.guest.kernel.store import kernel_program
from umlab.lab.port import Mirrors, Ports
from umlab.lab.text import read_count, read_size, read_text, read_time, read_truth
from umlab.switch.model import MAX_AGEING_NS, SECOND_NS, SwitchConfig
from umlab.transports.contract import PRIVATE

_SWITCH = SwitchConfig()
_GUEST = GuestSpec("guest")
_CLOSED = ConfigDict(extra="forbid")


@dataclass(frozen=True, slots=True)
class Scope:
    """What the text of a segment or guest is read with.

    Attributes:
        name: The segment's or guest's name.
        folder: Where relative paths begin.
        runtime: The lab's directory for sockets.
        listening: Where each segment listens; ``None`` where that is not known, for it is wrong itself.
        state: The lab's directory for disks; the one of the lab that ``runtime`` is named after unless given.
    """

    name: str
    folder: str
    runtime: Path
    listening: Mapping[str, tuple[str, ...] | None] = field(default_factory=dict)
    state: Path | None = None


def _scope(info: ValidationInfo) -> Scope:
    assert isinstance(info.context, Scope)
    return info.context


def _to_absolute(path: str, info: ValidationInfo) -> str:
    return os.path.abspath(os.path.join(_scope(info).folder, path))


_Text = Annotated[str, BeforeValidator(read_text)]
_Truth = Annotated[bool, BeforeValidator(read_truth)]
_Count = Annotated[int, BeforeValidator(read_count)]
_Group = BeforeValidator(lambda value: find_group(read_text(value)))
_Path = Annotated[_Text, AfterValidator(_to_absolute)]


def _to_kernel(word: str, info: ValidationInfo) -> str:
    try:
        return kernel_program(word, _scope(info).folder)
    except LabError as error:
        raise ValueError(str(error)) from None


def _check_ageing(value: int) -> int:
    if not 0 < value <= MAX_AGEING_NS:
        raise ValueError(f"must be longer than 0 and at most {MAX_AGEING_NS // SECOND_NS}s")
    return value


def _check_frame(value: int) -> int:
    return SwitchConfig(max_frame=value).max_frame


def _check_capacity(value: int) -> int:
    return SwitchConfig(fdb_capacity=value).fdb_capacity


def _read_recorder(value: Any) -> int:
    return 0 if value == "off" else read_size(value)


def _check_recorder(size: int) -> int:
    return SwitchSpec("", _SWITCH, (), recorder=size).recorder


def _resolve_listen(spec: str, info: ValidationInfo) -> str:
    scope = _scope(info)
    try:
        return resolve_listen(spec, scope.name, scope.runtime, scope.folder)
    except TransportError as error:
        raise ValueError(str(error)) from None


@dataclass(frozen=True, slots=True)
class Segment:
    """One switch, as a file describes it; times in nanoseconds."""

    __pydantic_config__: ClassVar[ConfigDict] = _CLOSED

    hub: _Truth = _SWITCH.hub
    ageing_time: Annotated[int, BeforeValidator(read_time), AfterValidator(_check_ageing)] = (
        _SWITCH.ageing_time_ns
    )
    max_frame: Annotated[_Count, AfterValidator(_check_frame)] = _SWITCH.max_frame
    fdb_capacity: Annotated[_Count, AfterValidator(_check_capacity)] = _SWITCH.fdb_capacity
    ports: Ports = field(default_factory=dict)
    mirrors: Mirrors = ()
    recorder: Annotated[int, BeforeValidator(_read_recorder), AfterValidator(_check_recorder)] = (
        DEFAULT_RECORDER
    )
    listen: Annotated[
        tuple[Annotated[_Text, AfterValidator(_resolve_listen)], ...], Field(validate_default=True)
    ] = DEFAULT_KINDS
    mode: Annotated[int | None, BeforeValidator(lambda value: read_mode(read_text(value)))] = PRIVATE.mode
    group: Annotated[int | None, _Group] = None
    allow_users: tuple[Annotated[int, BeforeValidator(lambda value: find_user(read_text(value)))], ...] = ()
    allow_groups: tuple[Annotated[int, _Group], ...] = ()
    lldp: _Truth = False


def _by_guest(field_name: str, make: Callable[[Any], Any]) -> AfterValidator:
    """Have :class:`GuestSpec` look at a value, in the field that it is made for and nothing else."""

    def check(value: Any, info: ValidationInfo) -> Any:
        name = _scope(info).name
        try:
            GuestSpec(name, **{field_name: make(value)})
        except LabError as error:
            raise ValueError(str(error).removeprefix(f"guest {name}: {field_name}: ")) from None
        return value

    return AfterValidator(check)


def _check_segment(name: str, info: ValidationInfo) -> str:
    if name not in _scope(info).listening:
        raise ValueError(f"there is no segment {name[:64]!r}")
    return name


def _check_attached(transport: str, info: ValidationInfo) -> str:
    scope = _scope(info)
    segment = info.data.get("segment")
    listening = scope.listening[segment] if segment is not None else None
    if segment is None or listening is None:
        return transport
    nic = attached_nic(transport, segment, listening)
    if nic is None:
        raise ValueError(f"the segment {segment} does not listen for it; add {transport} to its listen")
    try:
        GuestSpec(scope.name, nics=(nic,))
    except LabError as error:
        raise ValueError(f"the segment {segment} listens where no guest attaches: {error}") from None
    return transport


def _check_mtu(mtu: int, info: ValidationInfo) -> int:
    if info.data.get("transport") == "daemon":
        raise ValueError("transport: daemon has no such setting; take transport: bess or fd")
    return mtu


def _from_short_nic(value: Any) -> Any:
    return {"segment": value} if isinstance(value, str) else value


@dataclass(frozen=True, slots=True)
class Nic:
    """One NIC, as a file describes it."""

    __pydantic_config__: ClassVar[ConfigDict] = _CLOSED

    segment: Annotated[_Text, AfterValidator(_check_segment)]
    transport: Annotated[
        Literal["daemon", "bess", "fd"],
        BeforeValidator(read_text),
        AfterValidator(_check_attached),
        Field(validate_default=True),
    ] = "daemon"
    mac: Annotated[
        str | None, BeforeValidator(read_text), _by_guest("nics", lambda mac: (BessNic("/", mac),))
    ] = None
    mtu: Annotated[
        int | None,
        BeforeValidator(read_count),
        _by_guest("nics", lambda mtu: (BessNic("/", mtu=mtu),)),
        AfterValidator(_check_mtu),
    ] = None


def _to_image(text: str, info: ValidationInfo) -> str:
    """Return the file of an image: of a name in the store, of everything else by its path."""
    if "/" in text:
        return _to_absolute(text, info)
    try:
        return str(image_path(text))
    except LabError as error:
        raise ValueError(str(error)) from None


def _from_unset(value: Any) -> Any:
    """Let the empty text pass that a key has which is not there."""
    return value if value == "" else read_text(value)


def _check_disk(disk: str, info: ValidationInfo) -> str:
    if "image" not in info.data:
        # That is wrong already, and this is not used.
        return "/"
    if info.data["image"] is None:
        if not disk:
            raise ValueError("must be given, or image")
        return _to_absolute(disk, info)
    if disk:
        raise ValueError("an image has a COW file of its own; give image, or disk")
    scope = _scope(info)
    try:
        return str(disk_path(scope.state or state_base() / scope.runtime.name, scope.name))
    except LabError as error:
        raise ValueError(str(error)) from None


def _check_backing(backing: str, info: ValidationInfo) -> str | None:
    image: str | None = info.data.get("image")
    if backing and image is not None:
        raise ValueError("an image is its own backing file; give image, or disk and backing")
    return _to_absolute(backing, info) if backing else image


@dataclass(frozen=True, slots=True)
class Disk:
    """A root file system in an image, as a file describes it.

    With ``image`` the others are the guest's COW file in the lab's state directory, and the image.
    """

    __pydantic_config__: ClassVar[ConfigDict] = _CLOSED

    image: Annotated[
        str | None, BeforeValidator(read_text), AfterValidator(_to_image), _by_guest("root", DiskRoot)
    ] = None
    disk: Annotated[
        str,
        BeforeValidator(_from_unset),
        AfterValidator(_check_disk),
        _by_guest("root", DiskRoot),
        Field(validate_default=True),
    ] = ""
    backing: Annotated[
        str | None,
        BeforeValidator(_from_unset),
        AfterValidator(_check_backing),
        _by_guest("root", lambda path: DiskRoot("/", path)),
        Field(validate_default=True),
    ] = ""


def _from_root(value: Any) -> Any:
    if isinstance(value, dict):
        return value
    if value == "tiny":
        return None
    if value == "host":
        return value
    raise ValueError("must be tiny, host, {image: NAME}, {disk: FILE} or {disk: FILE, backing: FILE}")


def _root_kind(value: Any) -> str:
    return "[host]" if value == "host" else "[disk]"


#: A kind of root that is described; told apart before, so that an error is that of one kind.
_Root = Annotated[
    Annotated[Disk, Tag("[disk]")] | Annotated[Literal["host"], Tag("[host]")], Discriminator(_root_kind)
]


@dataclass(frozen=True, slots=True)
class Guest:
    """One guest, as a file describes it; memory in bytes, ``root`` is ``None`` for the tiny one."""

    __pydantic_config__: ClassVar[ConfigDict] = _CLOSED

    kernel: Annotated[_Text, AfterValidator(_to_kernel), _by_guest("kernel", str)] = _GUEST.kernel
    memory: Annotated[int, BeforeValidator(read_size), _by_guest("memory", int)] = _GUEST.memory
    root: Annotated[_Root | None, BeforeValidator(_from_root)] = None
    modules: tuple[Annotated[_Text, _by_guest("root", lambda name: TinyRoot((name,)))], ...] = ()
    nics: tuple[Annotated[Nic, BeforeValidator(_from_short_nic)], ...] = ()
    extra: tuple[Annotated[_Text, _by_guest("extra", lambda word: (word,))], ...] = _GUEST.extra
    writable: tuple[Annotated[_Path, _by_guest("writable", lambda path: (path,))], ...] = _GUEST.writable
    landlock: _Truth = _GUEST.landlock
