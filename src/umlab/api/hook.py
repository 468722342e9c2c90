"""Routes of hooks: commands that are run when something happens to a guest."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends

from umlab.api.body import HOOK_BODY, given_fields
from umlab.api.error import error_responses
from umlab.api.path import HookName
from umlab.daemon.hook import Hook
from umlab.daemon.lab import LabService
from umlab.daemon.view import Change, HookView


def hook_routes(service: LabService) -> APIRouter:
    """Return the routes."""
    router = APIRouter(prefix="/v1/hooks", tags=["lab"])

    @router.get("", responses=error_responses())
    async def list_hooks() -> list[HookView]:
        """List the hooks, by name."""
        return service.hooks.views()

    @router.get("/{hook}", responses=error_responses("NoSuchHook", "LabError"))
    async def show_hook(hook: HookName) -> HookView:
        """Show a hook."""
        return service.hooks.view(hook)

    @router.put(
        "/{hook}",
        responses=error_responses("LabError", "LimitReached", "BodyTooLarge"),
        openapi_extra=HOOK_BODY.documented(),
    )
    async def put_hook(hook: HookName, body: Annotated[Any, Depends(HOOK_BODY)]) -> Change:
        """Have a hook of this description, in place of one that was described otherwise."""
        return Change(await service.hooks.put(Hook(name=hook, **given_fields(body))))

    @router.delete("/{hook}", responses=error_responses("LabError", "BodyTooLarge"))
    async def remove_hook(hook: HookName) -> Change:
        """Have a hook no more, if it is there, and end its runs."""
        return Change(await service.hooks.remove(hook))

    return router
