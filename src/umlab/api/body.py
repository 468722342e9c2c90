"""Bodies of requests: the core's own dataclasses, strictly checked."""

from __future__ import annotations

import dataclasses
import typing
from typing import Any

from fastapi import Request
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, create_model, with_config

from umlab.api.error import invalid_request
from umlab.capture.order import CaptureRequest
from umlab.daemon.device_order import DeviceOrder, SwitchNic
from umlab.daemon.exec_order import ExecOrder
from umlab.daemon.hook import Hook
from umlab.daemon.spec import SwitchSpec
from umlab.guest.cmdline import BessNic, DaemonNic, DiskRoot, FdNic, GuestSpec, HostRoot, TinyRoot
from umlab.guest.device import Disk
from umlab.switch.model import MAX_PORT_NO, MirrorSession, PortConfig, SwitchConfig
from umlab.transports.contract import Access

#: Unknown keys are refused: that is also what tells the kinds of a NIC and of a root apart.
_CLOSED = ConfigDict(extra="forbid")
_PARTS: tuple[type, ...] = (
    SwitchConfig,
    Access,
    TinyRoot,
    HostRoot,
    DiskRoot,
    DaemonNic,
    BessNic,
    FdNic,
    CaptureRequest,
    DeviceOrder,
    ExecOrder,
    SwitchNic,
    Disk,
)

for _part in _PARTS:
    with_config(_CLOSED)(_part)


class JsonBody:
    """A dependency of a route: its body, read as JSON and checked.

    Args:
        model: What the body must be.
        examples: Bodies for the document, by what each shows.
    """

    def __init__(self, model: type, examples: dict[str, Any]) -> None:
        self.name = model.__name__
        self.adapter: TypeAdapter[Any] = TypeAdapter(model)
        self._examples = examples

    async def __call__(self, request: Request) -> Any:
        """Return the value.  Raises RequestError or LabError."""
        return self.parse(await request.body())

    def parse(self, data: bytes) -> Any:
        """Return the value.

        Raises:
            LabError: A device cannot be like this.
            RequestError: It is not of the model.
        """
        try:
            return self.adapter.validate_json(data, strict=True)
        except ValidationError as error:
            raise invalid_request(error, "body") from None

    def documented(self) -> dict[str, Any]:
        """Return the route's addition to the OpenAPI document."""
        content = {
            "schema": {"$ref": f"#/components/schemas/{self.name}"},
            "examples": {what: {"value": value} for what, value in self._examples.items()},
        }
        return {"requestBody": {"required": True, "content": {"application/json": content}}}


def given_fields(body: Any) -> dict[str, Any]:
    """Return the fields of a dataclass by name, the values as they are."""
    return {field.name: getattr(body, field.name) for field in dataclasses.fields(body)}


def _body_without(model: Any, named: str, name: str) -> type:
    """Return a dataclass with the fields of another but one: the one that stands in the path."""
    hints = typing.get_type_hints(model)
    fields = [
        (field.name, hints[field.name], dataclasses.field(default=field.default))
        for field in dataclasses.fields(model)
        if field.name != named
    ]
    made = dataclasses.make_dataclass(name, fields, frozen=True)
    made.__doc__ = model.__doc__
    return with_config(_CLOSED)(made)


def _patch_of(model: Any, name: str, instead: dict[str, Any]) -> type[BaseModel]:
    """Return a model with the fields of a dataclass and other ones ``instead``; each may be left out."""
    hints = typing.get_type_hints(model) | instead
    fields: dict[str, Any] = {
        # The default only makes it optional: what is not given is not looked at.
        field: (hints[field], Field(default_factory=lambda: None))
        for field in dict.fromkeys((*(each.name for each in dataclasses.fields(model)), *instead))
    }
    return create_model(name, __config__=_CLOSED, __doc__=model.__doc__, **fields)


_CONFIG = {"hub": False, "ageing_time_ns": 300_000_000_000, "max_frame": 9018}

SWITCH_BODY = JsonBody(
    _body_without(SwitchSpec, "name", "SwitchBody"),
    {
        "a switch for both kinds of guests": {"config": _CONFIG, "listen": ["daemon:/run/user/1000/lan.ctl"]},
        "a switch for a group": {
            "config": _CONFIG,
            "listen": ["bess:/srv/lan.bess"],
            "access": {"mode": 0o660, "gid": 1001, "gids": [1001]},
        },
    },
)
_PORT_NO = typing.Annotated[int, Field(ge=1, le=MAX_PORT_NO)]
SWITCH_PATCH = JsonBody(
    _patch_of(
        SwitchConfig,
        "SwitchPatch",
        {
            "ports": typing.Annotated[
                dict[_PORT_NO, PortConfig | None],
                Field(description="What ports are told to be, by number; null for as at first."),
            ],
            "mirrors": typing.Annotated[
                dict[str, MirrorSession | None],
                Field(description="Mirror sessions, by name; null for none."),
            ],
            "lldp": typing.Annotated[
                bool, Field(description="Whether the switch tells its neighbours of itself.")
            ],
            "ahead": typing.Annotated[
                bool, Field(description="Take numbers where nothing is plugged in as well.")
            ],
        },
    ),
    {
        "a hub from now on": {"hub": True},
        "an access port and a trunk": {
            "ports": {"1": {"access": 10}, "2": {"trunk": "10,20-29", "native": 1}, "3": None}
        },
        "copies of two ports for a third": {
            "mirrors": {"tap": {"name": "tap", "destination": 3, "ports": [1, 2]}}
        },
    },
)
GUEST_BODY = JsonBody(
    _body_without(GuestSpec, "umid", "GuestBody"),
    {
        "the tiny root": {
            "memory": 128 << 20,
            "root": {"modules": ["8021q"]},
            "nics": [{"control_path": "/run/user/1000/lan.ctl", "mac": "02:00:00:00:00:01"}],
        },
        "a disk": {"root": {"path": "/srv/left.cow", "backing": "/srv/debian.img"}, "writable": ["/srv"]},
    },
)


@with_config(_CLOSED)
@dataclasses.dataclass(frozen=True, slots=True)
class StackBody:
    """Whose kernel stack is asked for.

    Attributes:
        pid: Process id in the guest.
    """

    pid: typing.Annotated[int, Field(ge=1, le=1 << 22)]


@with_config(_CLOSED)
@dataclasses.dataclass(frozen=True, slots=True)
class SysrqBody:
    """Which magic sysrq is sent.

    Attributes:
        letter: One letter or digit, such as ``m``.
    """

    letter: typing.Annotated[str, Field(pattern=r"^[0-9a-z]$")]


@with_config(_CLOSED)
@dataclasses.dataclass(frozen=True, slots=True)
class MconsoleBody:
    """What a guest's kernel is asked, as it is.

    Attributes:
        command: The command, such as ``proc meminfo``; at most 511 bytes.
        timeout: Seconds in which the whole answer must arrive, 5 unless given, 30 for `proc`, `sysrq` and
            `stack`.
    """

    command: typing.Annotated[str, Field(min_length=1, max_length=511, pattern=r"^[^\x00]+$")]
    timeout: typing.Annotated[float, Field(gt=0, le=300)] | None = None


@with_config(_CLOSED)
@dataclasses.dataclass(frozen=True, slots=True)
class ExecBody:
    """A command that runs to its end, as the guest's root, without input.

    Attributes:
        argv: A program and its arguments, or
        script: a script for the guest's ``/bin/sh`` instead.
        environment: Variables that it has beside the guest's own.
        directory: Where it runs, absolute; ``/root`` unless given, ``/`` where there is none.
        timeout: Seconds after which it is killed, those of waiting for the guest included.
        base64: Whether the words of ``argv``, the script, the variables' values and the directory are base64,
            which carries bytes that are no UTF-8.
    """

    argv: tuple[str, ...] = ()
    script: str | None = None
    environment: dict[str, str] = dataclasses.field(default_factory=dict)
    directory: str | None = None
    timeout: typing.Annotated[float, Field(gt=0, le=3600)] = 60.0
    base64: bool = False


@with_config(_CLOSED)
@dataclasses.dataclass(frozen=True, slots=True)
class ResetBody:
    """How a NIC is plugged anew.

    Attributes:
        down: Whether the guest's agent sets it down before, which the kernel wants.
    """

    down: bool = False


_DEVICES = {
    "a NIC": {"nic": {"switch": "lan", "transport": "bess", "mtu": 9000}},
    "a disk with a COW file": {"disk": {"file": "/srv/left.cow", "backing": "/srv/data.img"}},
}
DEVICE_BODY = JsonBody(
    DeviceOrder,
    {
        **_DEVICES,
        "as the kernel takes it": {"setting": "daemon,,unix,/run/user/1000/lan.ctl"},
        "memory": {"memory": "96M"},
        "a console": {"console": "pts"},
    },
)
NEW_DEVICE_BODY = JsonBody(DeviceOrder, _DEVICES)
RESET_BODY = JsonBody(ResetBody, {"one that is up": {"down": True}})
STACK_BODY = JsonBody(StackBody, {"init": {"pid": 1}})
SYSRQ_BODY = JsonBody(SysrqBody, {"memory": {"letter": "m"}})
MCONSOLE_BODY = JsonBody(MconsoleBody, {"memory": {"command": "proc meminfo"}})

HOOK_BODY = JsonBody(
    _body_without(Hook, "name", "HookBody"),
    {
        "a message for a panic": {"on": ["guest_panicked"], "run": ["notify-send", "a guest has panicked"]},
        "some guests only": {"on": ["guest_silent"], "guests": "web*", "run": ["/srv/collect", "--all"]},
    },
)

#: The first message of a capture's WebSocket.
CAPTURE_ORDER = JsonBody(
    CaptureRequest,
    {
        "what comes": {"switch": "lan", "filter": "arp"},
        "files": {"switch": "lan", "ports": [1, 2], "file": "/srv/lan.pcapng", "rotate_size": 1 << 30},
        "what has been": {"switch": "lan", "last": 30},
    },
)

EXEC_BODY = JsonBody(
    ExecBody,
    {
        "a program": {"argv": ["uname", "-a"]},
        "a script": {"script": "cd /etc; ls | wc -l", "environment": {"LANG": "C"}, "timeout": 5},
    },
)
#: The first message of a command's WebSocket.
EXEC_ORDER = JsonBody(
    ExecOrder,
    {
        "a filter": {"argv": ["sort", "-u"], "input": "pipe"},
        "a shell": {
            "argv": ["sh"],
            "input": "tty",
            "window": [24, 80],
            "environment": {"TERM": "xterm-256color"},
        },
    },
)

#: Every body, for the document.
BODIES = (
    *(SWITCH_BODY, SWITCH_PATCH, GUEST_BODY, DEVICE_BODY),
    *(RESET_BODY, STACK_BODY, SYSRQ_BODY, MCONSOLE_BODY, HOOK_BODY, CAPTURE_ORDER),
    *(EXEC_BODY, EXEC_ORDER),
)
