"""Errors as the API answers them: one class name, one HTTP status, no traceback."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from fastapi import Response
from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError
from pydantic_core import to_json
from starlette.exceptions import HTTPException

from umlab.errors import GuestBusy, UmlabError

#: Every class that an answer may name, with its HTTP status: those of ``umlab.errors``, then our own.
STATUS = {
    "UmlabError": 500,
    "ProtocolError": 502,
    "LocalProtocolError": 422,
    "RemoteProtocolError": 502,
    "TruncatedMessage": 502,
    "BadMagic": 502,
    "UnsupportedVersion": 502,
    "UnsupportedType": 502,
    "OversizeMessage": 502,
    "StateError": 409,
    "TransportError": 422,
    "SocketInUse": 409,
    "SwitchError": 422,
    "NoSuchSwitch": 404,
    "NoSuchPort": 404,
    "CaptureError": 422,
    "MconsoleError": 502,
    "MconsoleTimeout": 504,
    "MconsoleUnreachable": 502,
    "MconsoleProtocolError": 502,
    "LabError": 422,
    "LabFileError": 422,
    "PlanError": 422,
    "LabNotRunning": 404,
    "LabInUse": 409,
    "LimitReached": 429,
    "GuestBusy": 429,
    "AlreadyExists": 409,
    "NoSuchGuest": 404,
    "NoSuchConsole": 404,
    "NoSuchDevice": 404,
    "NoSuchHook": 404,
    "GuestFailed": 502,
    "CommandTimeout": 504,
    "MalformedRequest": 400,
    "Forbidden": 403,
    "NotFound": 404,
    "MethodNotAllowed": 405,
    "RequestTimeout": 408,
    "BodyTooLarge": 413,
    "InvalidRequest": 422,
    "InternalError": 500,
}

#: What is added to the HTTP status of an error for the code of a close.
CLOSE_BASE = 4000

#: What may happen to any request, whatever its route.
EVERYWHERE = (
    "MalformedRequest",
    "Forbidden",
    "RequestTimeout",
    "InvalidRequest",
    "LimitReached",
    "InternalError",
)

_EXAMPLES: dict[str, dict[str, Any]] = {
    "NoSuchSwitch": {"message": "no switch lan", "fields": {"name": "lan"}},
    "NoSuchPort": {"message": "no port 7", "fields": {"port_no": 7}},
    "NoSuchGuest": {"message": "no guest left", "fields": {"name": "left"}},
    "AlreadyExists": {
        "message": "guest left exists already and is described otherwise; stop that one first",
        "fields": {"kind": "guest", "name": "left"},
    },
    "InvalidRequest": {
        "message": "query.limit: Input should be greater than or equal to 0",
        "fields": {
            "problems": [{"where": "query.limit", "what": "Input should be greater than or equal to 0"}]
        },
    },
}

#: Problems of one request that are told, and characters of where each is.
_MAX_PROBLEMS = 16
_MAX_WHERE = 200


class RequestError(Exception):
    """A request that the API itself refuses.

    Args:
        name: One of the last classes of :data:`STATUS`.
        message: One sentence for people.
        fields: Facts for programs.
        headers: What the answer has beside its body.
    """

    def __init__(
        self,
        name: str,
        message: str,
        fields: dict[str, Any] | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(name, message)
        self.name = name
        self.message = message
        self.fields = fields or {}
        self.headers = headers or {}


def error_name(error: Exception) -> str:
    """Return the class by which the API names an exception; what is not raised on purpose is a bug."""
    if isinstance(error, RequestError):
        return error.name
    if isinstance(error, UmlabError):
        return next(each.__name__ for each in type(error).__mro__ if each.__name__ in STATUS)
    return "InternalError"


def error_body(error: Exception) -> dict[str, Any]:
    """Return the JSON-ready body that tells of an exception; a bug shows nothing of itself."""
    name = error_name(error)
    if isinstance(error, RequestError):
        message, fields = error.message, error.fields
    elif isinstance(error, UmlabError):
        message = str(error)
        fields = {key: value for key, value in vars(error).items() if not key.startswith("_")}
    else:
        message, fields = "the daemon has a bug; its log tells more", {}
    return {"error": {"class": name, "message": message, "fields": fields}}


def error_bytes(error: Exception) -> bytes:
    """Return the body as JSON."""
    # Fields of foreign types become texts, and bytes that are no UTF-8 are shown all the same.
    return to_json(error_body(error), fallback=str, bytes_mode="utf8", inf_nan_mode="null")


def error_response(error: Exception) -> Response:
    """Return the answer to a request that ended with an exception."""
    headers = error.headers if isinstance(error, RequestError) else {}
    if isinstance(error, GuestBusy):
        headers = {"retry-after": f"{math.ceil(error.retry_after)}"}
    status = STATUS[error_name(error)]
    return Response(error_bytes(error), status, headers, media_type="application/json")


def raw_error_response(error: RequestError) -> bytes:
    """Return a whole HTTP answer, after which the connection is closed, for where no request is read."""
    body = error_bytes(error)
    head = (
        f"HTTP/1.1 {STATUS[error.name]} {error.name}\r\ncontent-type: application/json\r\n"
        f"content-length: {len(body)}\r\nconnection: close\r\n\r\n"
    )
    return head.encode() + body


def invalid_request(error: ValidationError | RequestValidationError, where: str = "") -> RequestError:
    """Return the refusal of a request whose parts are not as described.

    Args:
        error: What validation found.
        where: The part of the request, such as ``body``, where ``error`` does not begin with it.
    """
    whats: dict[str, str] = {}
    for each in error.errors():
        location = [where] if where else []
        location += [str(step) for step in each["loc"]]
        if location[0] != "body":
            # Behind the parameter's name comes only how it is declared here.
            del location[2:]
        whats.setdefault(".".join(location)[:_MAX_WHERE], each["msg"])
        if len(whats) == _MAX_PROBLEMS:
            break
    problems = [{"where": place, "what": what} for place, what in whats.items()]
    first = problems[0]
    return RequestError("InvalidRequest", f"{first['where']}: {first['what']}", {"problems": problems})


def from_http_exception(error: HTTPException, methods: list[str]) -> RequestError:
    """Return our own error for one of the framework's.

    Args:
        error: What the framework raised.
        methods: What can be done at the path, if it is one of ours.
    """
    if error.status_code == 404:
        return RequestError("NotFound", "nothing is here")
    if error.status_code == 405:
        text = f"this cannot be done here, only {', '.join(methods)}"
        return RequestError("MethodNotAllowed", text, {"methods": methods}, {"allow": ", ".join(methods)})
    return RequestError("MalformedRequest", "the request cannot be read")


def error_responses(*names: str) -> dict[int | str, dict[str, Any]]:
    """Return the ``responses`` of a route in the OpenAPI document.

    Args:
        names: The classes that it may answer beside those that may happen anywhere.
    """
    by_status: dict[int | str, list[str]] = {}
    for name in dict.fromkeys((*names, *EVERYWHERE)):
        by_status.setdefault(STATUS[name], []).append(name)
    return {status: _documented(by_status[status]) for status in sorted(by_status, key=int)}


def _documented(names: Iterable[str]) -> dict[str, Any]:
    examples = {}
    for name in names:
        known = _EXAMPLES.get(name, {"message": "one sentence for people", "fields": {}})
        examples[name] = {"value": {"error": {"class": name, **known}}}
    return {
        "description": ", ".join(f"`{name}`" for name in names),
        "content": {
            "application/json": {"schema": {"$ref": "#/components/schemas/Error"}, "examples": examples}
        },
    }
