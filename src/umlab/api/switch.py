"""Routes of switches: what they are, their ports, addresses and counters."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query
from pydantic import BaseModel
from pydantic.json_schema import SkipJsonSchema

from umlab.api.body import SWITCH_BODY, SWITCH_PATCH, given_fields
from umlab.api.error import RequestError, error_responses
from umlab.api.path import Number, PortNo, SwitchName
from umlab.capture.talkers import Talkers
from umlab.daemon.lab import LabService
from umlab.daemon.spec import SwitchSpec
from umlab.daemon.switch_change import SwitchChange
from umlab.daemon.view import Change, FdbEntryView, PortView, SwitchView

#: Seconds that talkers are looked for, and how many are returned.
MAX_LOOK, MAX_TALKERS = 3600, 1000

_LOOKUP = error_responses("NoSuchSwitch", "LabError")
_PORT_LOOKUP = error_responses("NoSuchSwitch", "NoSuchPort", "LabError")
_PORT_CHANGE = error_responses("NoSuchSwitch", "NoSuchPort", "LabError", "SwitchError", "BodyTooLarge")

#: What a body tells beside plain settings.
_CHANGE_PARTS = ("ports", "mirrors", "lldp", "ahead")


def switch_routes(service: LabService) -> APIRouter:
    """Return the routes."""
    router = APIRouter(prefix="/v1/switches", tags=["switches"])

    @router.get("", responses=error_responses())
    async def list_switches() -> list[SwitchView]:
        """List the switches, by name."""
        return service.switches()

    @router.get("/{switch}", responses=_LOOKUP)
    async def show_switch(switch: SwitchName) -> SwitchView:
        """Show a switch."""
        return service.switch(switch)

    @router.put(
        "/{switch}",
        responses=error_responses(
            *("AlreadyExists", "SocketInUse", "StateError", "TransportError", "SwitchError", "LabError"),
            "BodyTooLarge",
        ),
        openapi_extra=SWITCH_BODY.documented(),
    )
    async def put_switch(switch: SwitchName, body: Annotated[Any, Depends(SWITCH_BODY)]) -> Change:
        """Have a switch of this description: start one, or change nothing if it is there."""
        try:
            spec = SwitchSpec(name=switch, **given_fields(body))
        except ValueError as error:
            raise RequestError("InvalidRequest", f"body: {error}") from None
        return Change(await service.put_switch(spec))

    @router.patch(
        "/{switch}",
        responses=error_responses("NoSuchSwitch", "SwitchError", "StateError", "LabError", "BodyTooLarge"),
        openapi_extra=SWITCH_PATCH.documented(),
    )
    async def set_switch(switch: SwitchName, body: Annotated[BaseModel, Depends(SWITCH_PATCH)]) -> Change:
        """Reconfigure a running switch, all or nothing; what is not given stays, and no port goes down."""
        given = {name: getattr(body, name) for name in body.model_fields_set}
        parts = {name: given.pop(name) for name in _CHANGE_PARTS if name in given}
        try:
            return Change(await service.set_switch(switch, SwitchChange(settings=given, **parts)))
        except ValueError as error:
            raise RequestError("InvalidRequest", f"body: {error}") from None

    @router.delete("/{switch}", responses=error_responses("LabError", "SwitchError", "BodyTooLarge"))
    async def remove_switch(switch: SwitchName) -> Change:
        """End a switch, if it is there."""
        return Change(await service.remove_switch(switch))

    @router.get("/{switch}/ports", responses=_LOOKUP)
    async def list_ports(switch: SwitchName) -> list[PortView]:
        """List the ports, by number."""
        return service.ports(switch)

    @router.get("/{switch}/ports/{port_no}", responses=_PORT_LOOKUP)
    async def show_port(switch: SwitchName, port_no: PortNo) -> PortView:
        """Show a port."""
        return service.port(switch, port_no)

    @router.delete("/{switch}/ports/{port_no}", responses=_PORT_CHANGE)
    async def remove_port(switch: SwitchName, port_no: PortNo) -> Change:
        """Detach what is plugged in, if it is there."""
        return Change(await service.remove_port(switch, port_no))

    @router.get("/{switch}/fdb", responses=_LOOKUP)
    async def list_fdb(switch: SwitchName) -> list[FdbEntryView]:
        """List the learnt addresses, oldest first."""
        return service.fdb(switch)

    @router.delete("/{switch}/fdb", responses=_PORT_CHANGE)
    async def flush_fdb(
        switch: SwitchName,
        port_no: Annotated[
            Number | SkipJsonSchema[None], Query(description="Only what was learnt here.")
        ] = None,
    ) -> Change:
        """Forget learnt addresses."""
        return Change(service.flush_fdb(switch, port_no))

    @router.get("/{switch}/talkers", responses=error_responses("NoSuchSwitch", "LabError", "StateError"))
    async def show_talkers(
        switch: SwitchName,
        seconds: Annotated[float, Query(gt=0, le=MAX_LOOK, description="How far to look back.")] = 10,
        count: Annotated[int, Query(ge=1, le=MAX_TALKERS, description="How many of each at most.")] = 10,
    ) -> Talkers:
        """Show who has sent most lately, from the newest frames that the flight recorder holds."""
        return await service.talkers(switch, seconds, count)

    @router.get("/{switch}/counters", responses=_LOOKUP)
    async def show_counters(switch: SwitchName) -> dict[str, int]:
        """Show what the switch has counted beside its ports."""
        return service.switch(switch).counters

    return router
