"""Routes of what guests' consoles have printed: bytes, and when."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Annotated, Any

from fastapi import APIRouter, Query, Response
from pydantic.json_schema import SkipJsonSchema
from starlette.responses import StreamingResponse

from umlab.api.error import error_responses
from umlab.api.path import GuestName
from umlab.daemon.lab import LabService
from umlab.daemon.view import LogTime
from umlab.errors import NoSuchGuest

#: Bytes of a piece of output, unless asked for otherwise, and at most.
DEFAULT_PIECE = 64 * 1024
MAX_PIECE = 1 << 20
#: Times in one answer, likewise.
DEFAULT_TIMES = 1000
MAX_TIMES = 10_000

_LOOKUP = error_responses("NoSuchGuest", "NoSuchConsole", "LabError")
_MAX_OFFSET = 1 << 53
_MAX_TIME = 1e10

ConsoleName = Annotated[
    str, Query(description="Which console: `con0`, where the kernel logs, or `con1`.", max_length=16)
]


def log_routes(service: LabService) -> APIRouter:
    """Return the routes."""
    router = APIRouter(prefix="/v1/guests/{guest}/log", tags=["guests"])

    @router.get("", response_class=Response, responses={**_LOOKUP, 200: _log_response()})
    async def read_log(
        guest: GuestName,
        console: ConsoleName = "con0",
        start: Annotated[
            int,
            Query(
                description="Offset of the first byte; negative: from the end.",
                ge=-_MAX_OFFSET,
                le=_MAX_OFFSET,
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
        piece = service.consoles.log(guest, console, start, limit)
        if follow:
            headers = {"Umlab-Start": str(piece.start)}
            stream = _follow(service, guest, console, piece.start, limit)
            return StreamingResponse(stream, headers=headers, media_type="application/octet-stream")
        headers = {"Umlab-Start": str(piece.start), "Umlab-End": str(piece.end)}
        return Response(piece.data, headers=headers, media_type="application/octet-stream")

    @router.get("/times", responses=_LOOKUP)
    async def list_times(
        guest: GuestName,
        console: ConsoleName = "con0",
        start: Annotated[
            int, Query(description="Begin with what stands at this offset.", ge=0, le=_MAX_OFFSET)
        ] = 0,
        since: Annotated[
            Annotated[float, Query(ge=0, le=_MAX_TIME)] | SkipJsonSchema[None],
            Query(description="Begin with what is not older, in seconds since 1970, instead."),
        ] = None,
        limit: Annotated[int, Query(description="Most entries.", ge=1, le=MAX_TIMES)] = DEFAULT_TIMES,
    ) -> list[LogTime]:
        """Tell when console output was printed: each entry holds from its offset on, until the next one."""
        return service.consoles.log_times(guest, console, start, since, limit)

    return router


async def _follow(
    service: LabService, guest: str, console: str, start: int, limit: int
) -> AsyncIterator[bytes]:
    try:
        while True:
            ended = service.guest(guest).state == "ended"
            piece = service.consoles.log(guest, console, start, limit)
            if piece.data:
                start = piece.end
                yield piece.data
            elif ended:
                return
            else:
                await service.consoles.wait_log(guest, console, start)
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
