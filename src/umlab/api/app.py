"""The application: every route of the API, put together for one lab."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Literal

from fastapi import APIRouter, FastAPI, Header, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from pydantic.json_schema import SkipJsonSchema
from starlette.exceptions import HTTPException
from starlette.routing import BaseRoute

from umlab.api.capture import capture_routes
from umlab.api.console import console_routes
from umlab.api.device import device_routes
from umlab.api.error import (
    RequestError,
    error_response,
    error_responses,
    from_http_exception,
    invalid_request,
)
from umlab.api.event_stream import EVENT_RESPONSE, EventFeed, EventId, EventStream
from umlab.api.exec import exec_routes
from umlab.api.gate import Gate, RequestCounts
from umlab.api.guest import guest_routes
from umlab.api.hook import hook_routes
from umlab.api.idempotency import AnswerMemory
from umlab.api.lab import lab_routes
from umlab.api.limit import Limit
from umlab.api.log import log_routes
from umlab.api.metric import CONTENT_TYPE, LabCollector
from umlab.api.openapi import openapi_document
from umlab.api.switch import switch_routes
from umlab.daemon.lab import LabService
from umlab.errors import UmlabError

#: Listeners to events, viewers of terminals, and captures, at a time.
MAX_LISTENERS = 100
MAX_TERMINALS = 64
MAX_CAPTURES = 32
#: Commands in all guests together that run, or wait for their turn.
MAX_COMMANDS = 64


def create_app(service: LabService, on_stop: Callable[[str], None]) -> FastAPI:
    """Return the application.

    Args:
        service: The lab that it serves.
        on_stop: Is given how a caller asks the lab to end, ``stop`` or ``leave``; must return at once.
    """
    counts = RequestCounts()
    listeners = Limit("listeners to events", MAX_LISTENERS)
    terminals = Limit("viewers of terminals", MAX_TERMINALS)
    app = FastAPI(openapi_url=None, docs_url=None, redoc_url=None, redirect_slashes=False)
    app.add_middleware(Gate, counts=counts)
    # For connections, which refuse before there is a request.
    app.state.count = counts.count
    answers = AnswerMemory()
    routers = (
        lab_routes(service, on_stop),
        switch_routes(service),
        guest_routes(service, answers),
        device_routes(service, answers),
        log_routes(service),
        console_routes(service, terminals),
        exec_routes(service, Limit("commands", MAX_COMMANDS)),
        hook_routes(service),
        capture_routes(service, Limit("captures", MAX_CAPTURES)),
        _event_route(EventFeed(service.events, listeners)),
        _metrics_route(LabCollector(service, counts, listeners, terminals)),
    )
    for router in routers:
        app.include_router(router)
    _answer_errors(app, counts, [route for router in routers for route in router.routes])

    @app.get("/v1/openapi.json", tags=["lab"], responses=error_responses())
    async def openapi() -> dict[str, Any]:
        """Show this document."""
        return app.openapi()

    def document() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = openapi_document(app)
        return app.openapi_schema

    app.openapi = document  # type: ignore[method-assign]
    return app


def _answer_errors(app: FastAPI, counts: RequestCounts, routes: list[BaseRoute]) -> None:
    """Have every error that is no bug answered with its class; bugs are left to the gate."""

    def answer(error: Exception) -> Response:
        counts.count(error)
        return error_response(error)

    @app.exception_handler(UmlabError)
    async def on_purpose(_: Request, error: Exception) -> Response:
        return answer(error)

    @app.exception_handler(RequestError)
    async def refused(_: Request, error: Exception) -> Response:
        return answer(error)

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> Response:
        return answer(invalid_request(error))

    @app.exception_handler(HTTPException)
    async def http(request: Request, error: HTTPException) -> Response:
        return answer(from_http_exception(error, _methods(routes, request.url.path)))


def _methods(routes: list[BaseRoute], path: str) -> list[str]:
    """Return what can be done at a path: each of its routes alone does not know of the others."""
    found: set[str] = set()
    for route in routes:
        if isinstance(route, APIRoute) and route.path_regex.match(path):
            found |= route.methods or set()
    return sorted(found)


def _event_route(feed: EventFeed) -> APIRouter:
    router = APIRouter(tags=["lab"])

    @router.get(
        "/v1/events",
        response_class=Response,
        responses={**error_responses(), 200: EVENT_RESPONSE},
    )
    async def events(
        begin: Annotated[
            Literal["now", "oldest"],
            Query(alias="from", description="Where a listener begins that brings no id."),
        ] = "now",
        last_event_id: Annotated[
            EventId | SkipJsonSchema[None],
            Query(description="Go on behind this event, as the header does."),
        ] = None,
        last_event_id_header: Annotated[
            EventId | SkipJsonSchema[None],
            Header(alias="Last-Event-ID", description="Go on behind this event."),
        ] = None,
    ) -> Response:
        """Listen to events: server-sent events, resumable; a comment every 15 seconds of silence."""
        # A browser that comes back sends the header with the address that it first had.
        number, earlier = feed.position(last_event_id_header or last_event_id, begin)
        feed.listeners.check()
        return EventStream(feed, number, earlier)

    return router


def _metrics_route(collector: LabCollector) -> APIRouter:
    router = APIRouter(tags=["lab"])

    @router.get(
        "/metrics",
        response_class=Response,
        responses={
            **error_responses(),
            200: {"description": "Everything.", "content": {"text/plain": {"schema": {"type": "string"}}}},
        },
    )
    async def metrics() -> Response:
        """Show the lab's numbers in Prometheus' text format."""
        return Response(await collector.exposition(), headers={"content-type": CONTENT_TYPE})

    return router
