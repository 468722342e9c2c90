"""Routes of guests: what they are, and their kernels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Header
from pydantic import Field
from pydantic.json_schema import SkipJsonSchema

from umlab.api.body import GUEST_BODY, MCONSOLE_BODY, STACK_BODY, SYSRQ_BODY, given_fields
from umlab.api.error import error_responses
from umlab.api.idempotency import AnswerMemory
from umlab.api.path import GuestName
from umlab.daemon.lab import LabService
from umlab.daemon.view import Change, GuestView, GuestVitals, ProcessView
from umlab.guest.cmdline import GuestSpec

_LOOKUP = error_responses("NoSuchGuest", "LabError")
#: What asking a guest's kernel may end with.
MCONSOLE_ERRORS = (
    *("NoSuchGuest", "LabError", "StateError", "LocalProtocolError", "RemoteProtocolError"),
    *("MconsoleError", "MconsoleTimeout", "MconsoleUnreachable", "GuestBusy"),
)
_ASK = error_responses(*MCONSOLE_ERRORS, "BodyTooLarge")

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

    @router.get("/{guest}/vitals", responses=_LOOKUP)
    async def show_vitals(guest: GuestName) -> GuestVitals:
        """Show how a guest is, as its kernel tells; an answer is good for two seconds."""
        return await service.kernels.vitals(guest)

    @router.get(
        "/{guest}/processes",
        responses=error_responses(
            *("NoSuchGuest", "LabError", "StateError", "CommandTimeout", "GuestFailed", "RemoteProtocolError")
        ),
    )
    async def list_processes(guest: GuestName) -> list[ProcessView]:
        """List the processes of the guest, as its agent tells."""
        return await service.processes.views(guest)

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
