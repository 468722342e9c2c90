"""Routes of guests: what they are, their output, devices and management console."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Header, Query, Response
from pydantic import Field
from pydantic.json_schema import SkipJsonSchema
from starlette.responses import StreamingResponse

from umlab.api.body import DEVICE_BODY, GUEST_BODY, MCONSOLE_BODY, STACK_BODY, SYSRQ_BODY, given_fields
from umlab.api.error import error_responses
from umlab.api.idempotency import AnswerMemory
from umlab.api.path import DeviceName, GuestName
from umlab.daemon.lab import LabService
from umlab.daemon.view import Change, ConsoleView, DeviceView, GuestView, GuestVitals
from umlab.errors import NoSuchGuest
from umlab.guest.cmdline import GuestSpec

#: Bytes of a piece of output, unless asked for otherwise, and at most.
DEFAULT_PIECE = 64 * 1024
MAX_PIECE = 1 << 20

_LOOKUP = error_responses("NoSuchGuest", "LabError")
_MCONSOLE = (
    *("NoSuchGuest", "LabError", "StateError", "LocalProtocolError", "RemoteProtocolError"),
    *("MconsoleError", "MconsoleTimeout", "MconsoleUnreachable"),
)
_CHANGE = error_responses(*_MCONSOLE, "BodyTooLarge")
_ASK = error_responses(*_MCONSOLE, "GuestBusy", "BodyTooLarge")

IdempotencyKey = Annotated[
    Annotated[str, Field(pattern="^[!-~]{1,64}$")] | SkipJsonSchema[None],
    Header(
        description="The caller's name for this request: sent again with the same body, it is answered "
        "with the first one's outcome and not done again."
    ),
]


@dataclass(frozen=True, slots=True)
class Answer:
    """What a guest's kernel answered.

    Attributes:
        output: Its text, untrusted.
    """

    output: str


def guest_routes(service: LabService, answers: AnswerMemory) -> APIRouter:
    """Return the routes."""
    router = APIRouter(prefix="/v1/guests", tags=["guests"])

    @router.get("", responses=error_responses())
    async def list_guests() -> list[GuestView]:
        """List the guests, by name; ended ones until they are removed."""
        return service.guests()

    @router.get("/{guest}", responses=_LOOKUP)
    async def show_guest(guest: GuestName) -> GuestView:
        """Show a guest."""
        return service.guest(guest)

    @router.put(
        "/{guest}",
        responses=error_responses(
            "AlreadyExists",
            "StateError",
            "GuestFailed",
            "LabError",
            "NoSuchSwitch",
            "SwitchError",
            "TransportError",
            "BodyTooLarge",
        ),
        openapi_extra=GUEST_BODY.documented(),
    )
    async def put_guest(guest: GuestName, body: Annotated[Any, Depends(GUEST_BODY)]) -> Change:
        """Have a guest of this description run: start one, or change nothing if it runs."""
        return Change(await service.put_guest(GuestSpec(umid=guest, **given_fields(body))))

    @router.delete("/{guest}", responses=error_responses("GuestFailed", "LabError", "BodyTooLarge"))
    async def remove_guest(guest: GuestName) -> Change:
        """Stop a guest, if it is there: its own shutdown first, by force after 25 seconds at most."""
        return Change(await service.remove_guest(guest))

    @router.get(
        "/{guest}/log",
        response_class=Response,
        responses={**_LOOKUP, 200: _log_response()},
    )
    async def read_log(
        guest: GuestName,
        start: Annotated[
            int,
            Query(
                description="Offset of the first byte; negative: from the end.",
                ge=-(1 << 53),
                le=1 << 53,
            ),
        ] = 0,
        limit: Annotated[
            int, Query(description="Most bytes; with `follow`, at a time.", ge=1, le=MAX_PIECE)
        ] = DEFAULT_PIECE,
        follow: Annotated[bool, Query(description="Go on with what comes until the guest ends.")] = False,
    ) -> Response:
        """Read console output: raw bytes, untrusted.

        Output that is kept no more is left out: `Umlab-Start` says where the answer begins.
        """
        piece = service.consoles.log(guest, start, limit)
        if follow:
            headers = {"Umlab-Start": str(piece.start)}
            stream = _follow(service, guest, piece.start, limit)
            return StreamingResponse(stream, headers=headers, media_type="application/octet-stream")
        headers = {"Umlab-Start": str(piece.start), "Umlab-End": str(piece.end)}
        return Response(piece.data, headers=headers, media_type="application/octet-stream")

    @router.get("/{guest}/consoles", responses=_LOOKUP)
    async def list_consoles(guest: GuestName) -> list[ConsoleView]:
        """List the consoles; those of kind `terminal` are WebSockets below this path."""
        return service.consoles.views(guest)

    @router.get("/{guest}/devices", responses=error_responses(*_MCONSOLE))
    async def list_devices(guest: GuestName) -> list[DeviceView]:
        """List the devices that the guest's kernel has."""
        return await service.devices.views(guest)

    @router.get("/{guest}/devices/{device}", responses=error_responses(*_MCONSOLE))
    async def show_device(guest: GuestName, device: DeviceName) -> DeviceView:
        """Show a device."""
        return await service.devices.view(guest, device)

    @router.put(
        "/{guest}/devices/{device}",
        responses=_CHANGE,
        openapi_extra=DEVICE_BODY.documented(),
    )
    async def put_device(
        guest: GuestName, device: DeviceName, body: Annotated[Any, Depends(DEVICE_BODY)]
    ) -> Change:
        """Plug a device."""
        return Change(await service.devices.put(guest, device, body.setting))

    @router.delete("/{guest}/devices/{device}", responses=_CHANGE)
    async def remove_device(guest: GuestName, device: DeviceName) -> Change:
        """Unplug a device, if it is there."""
        return Change(await service.devices.remove(guest, device))

    @router.get("/{guest}/vitals", responses=_LOOKUP)
    async def show_vitals(guest: GuestName) -> GuestVitals:
        """Show how a guest is, as its kernel tells; an answer is good for two seconds."""
        return await service.kernels.vitals(guest)

    @router.post("/{guest}/stack", responses=_ASK, openapi_extra=STACK_BODY.documented())
    async def stack(
        guest: GuestName,
        body: Annotated[Any, Depends(STACK_BODY)],
        idempotency_key: IdempotencyKey = None,
    ) -> Answer:
        """Ask for the kernel stack of a process in the guest."""
        request = ("stack", guest, body)
        return Answer(
            await answers.run(idempotency_key, request, lambda: service.kernels.stack(guest, body.pid))
        )

    @router.post("/{guest}/sysrq", responses=_ASK, openapi_extra=SYSRQ_BODY.documented())
    async def sysrq(
        guest: GuestName,
        body: Annotated[Any, Depends(SYSRQ_BODY)],
        idempotency_key: IdempotencyKey = None,
    ) -> Answer:
        """Send a magic sysrq to the guest's kernel."""
        request = ("sysrq", guest, body)
        return Answer(
            await answers.run(idempotency_key, request, lambda: service.kernels.sysrq(guest, body.letter))
        )

    @router.post("/{guest}/mconsole", responses=_ASK, openapi_extra=MCONSOLE_BODY.documented())
    async def mconsole(
        guest: GuestName,
        body: Annotated[Any, Depends(MCONSOLE_BODY)],
        idempotency_key: IdempotencyKey = None,
    ) -> Answer:
        """Send a command to the guest's management console, as it is."""
        request = ("mconsole", guest, body)
        ask = service.kernels.run
        return Answer(
            await answers.run(idempotency_key, request, lambda: ask(guest, body.command, body.timeout))
        )

    return router


async def _follow(service: LabService, guest: str, start: int, limit: int) -> AsyncIterator[bytes]:
    try:
        while True:
            ended = service.guest(guest).state == "ended"
            piece = service.consoles.log(guest, start, limit)
            if piece.data:
                start = piece.end
                yield piece.data
            elif ended:
                return
            else:
                await service.consoles.wait_log(guest, start)
    except NoSuchGuest:
        # It was removed: its output ends here.
        return


def _log_response() -> dict[str, Any]:
    def offset(description: str) -> dict[str, Any]:
        return {"description": description, "schema": {"type": "integer", "minimum": 0}}

    return {
        "description": "Raw bytes.",
        "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
        "headers": {
            "Umlab-Start": offset("Offset of the first byte."),
            "Umlab-End": offset("Offset behind the last byte: where to go on.  Not with `follow`."),
        },
    }
