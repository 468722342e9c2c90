"""Routes of the lab itself."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

from fastapi import APIRouter, Query, Response

from umlab.api.error import error_responses
from umlab.api.path import LabName
from umlab.daemon.lab import LabService
from umlab.daemon.view import Change, LabView
from umlab.errors import LabNotRunning


def lab_routes(service: LabService, on_stop: Callable[[str], None]) -> APIRouter:
    """Return the routes.

    Args:
        service: The lab.
        on_stop: Is given ``stop`` when the lab is to end, ``leave`` when only its daemon is; must return
            at once.
    """
    router = APIRouter(prefix="/v1/labs", tags=["lab"])

    def check(lab: str) -> None:
        if lab != service.name:
            raise LabNotRunning(lab)

    @router.get("", responses=error_responses())
    async def list_labs() -> list[LabView]:
        """List the labs of this daemon: one."""
        return [service.lab()]

    @router.get("/{lab}", responses=error_responses("LabNotRunning", "LabError"))
    async def show_lab(lab: LabName) -> LabView:
        """Show the lab."""
        check(lab)
        return service.lab()

    @router.delete(
        "/{lab}", status_code=202, responses=error_responses("LabNotRunning", "LabError", "BodyTooLarge")
    )
    async def stop_lab(
        lab: LabName,
        response: Response,
        keep: Annotated[
            bool, Query(description="End the daemon only: guests and ports wait for the next one.")
        ] = False,
    ) -> Change:
        """Stop everything: the guests, each by its own shutdown first, the switches, the daemon.

        The answer comes before the work, which is done when nobody listens on the socket any more.
        """
        check(lab)
        response.headers["connection"] = "close"
        on_stop("leave" if keep else "stop")
        return Change(True)

    return router
