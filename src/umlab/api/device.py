"""Routes of a guest's devices: what is plugged in, while it runs."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query

from umlab.api.body import DEVICE_BODY, NEW_DEVICE_BODY, RESET_BODY
from umlab.api.error import error_responses
from umlab.api.guest import MCONSOLE_ERRORS, IdempotencyKey
from umlab.api.idempotency import AnswerMemory
from umlab.api.path import DeviceName, GuestName
from umlab.daemon.lab import LabService
from umlab.daemon.view import Change, DeviceView

#: A change runs a command in the guest, or names one of the lab's switches.
_CHANGE = (*MCONSOLE_ERRORS, "BodyTooLarge")
_ORDER = (*_CHANGE, "NoSuchSwitch")
_UNPLUG = (*_CHANGE, "CommandTimeout", "GuestFailed")

Down = Annotated[
    bool, Query(description="Let the guest's agent set a NIC down before, which the kernel wants.")
]


def device_routes(service: LabService, answers: AnswerMemory) -> APIRouter:
    """Return the routes."""
    router = APIRouter(prefix="/v1/guests/{guest}/devices", tags=["guests"])

    @router.get("", responses=error_responses(*MCONSOLE_ERRORS))
    async def list_devices(guest: GuestName) -> list[DeviceView]:
        """List the devices that the guest is known to have."""
        return await service.devices.views(guest)

    @router.post("", responses=error_responses(*_ORDER), openapi_extra=NEW_DEVICE_BODY.documented())
    async def add_device(
        guest: GuestName,
        body: Annotated[Any, Depends(NEW_DEVICE_BODY)],
        idempotency_key: IdempotencyKey = None,
    ) -> DeviceView:
        """Plug a NIC, a disk or a console under the first name of its kind that is free."""
        request = ("add", guest, body)
        view: DeviceView = await answers.run(
            idempotency_key, request, lambda: service.devices.add(guest, body)
        )
        return view

    @router.get("/{device}", responses=error_responses(*MCONSOLE_ERRORS, "NoSuchDevice"))
    async def show_device(guest: GuestName, device: DeviceName) -> DeviceView:
        """Show a device."""
        return await service.devices.view(guest, device)

    @router.put("/{device}", responses=error_responses(*_ORDER), openapi_extra=DEVICE_BODY.documented())
    async def put_device(
        guest: GuestName, device: DeviceName, body: Annotated[Any, Depends(DEVICE_BODY)]
    ) -> Change:
        """Plug a device, or set how much memory there is."""
        return Change(await service.devices.put(guest, device, body))

    @router.delete("/{device}", responses=error_responses(*_UNPLUG))
    async def remove_device(guest: GuestName, device: DeviceName, down: Down = False) -> Change:
        """Unplug a device, if it is there; `mem` becomes as much as at the start."""
        return Change(await service.devices.remove(guest, device, down=down))

    @router.post(
        "/{device}/reset",
        responses=error_responses(*_UNPLUG, "NoSuchDevice"),
        openapi_extra=RESET_BODY.documented(),
    )
    async def reset_device(
        guest: GuestName, device: DeviceName, body: Annotated[Any, Depends(RESET_BODY)]
    ) -> Change:
        """Unplug a NIC and plug it again as it was: for one that is connected to nothing any more."""
        await service.devices.reset(guest, device, down=body.down)
        return Change(True)

    return router
