"""From a response to the value that it stands for, or the exception."""

from __future__ import annotations

import json
from functools import cache
from typing import TYPE_CHECKING, Any

from umlab import errors
from umlab.errors import ApiError, UmlabError

if TYPE_CHECKING:
    from pydantic import TypeAdapter


def value(kind: Any, body: bytes) -> Any:
    """Return a JSON text as a value of a type of `umlab.daemon.view`; unknown fields are passed over.

    Raises:
        ValueError: It is none.
    """
    # pydantic's own error is a ValueError.
    return _adapter(kind).validate_json(body)


@cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    # Late: what shows help or completes a word needs no values.
    from pydantic import TypeAdapter

    return TypeAdapter(kind)


def refusal(lab: str, status: int, body: bytes) -> UmlabError:
    """Return the exception that a response stands for whose status is not 2xx.

    It is the class of `umlab.errors` that the daemon names, with its facts as attributes; an
    `ApiError` with the daemon's words where there is none of that name.
    """
    message = f"the daemon answered with status {status}"
    try:
        error = json.loads(body)["error"]
        name, fields = str(error["class"]), dict(error["fields"])
        message = str(error["message"]) or message
    except (ValueError, KeyError, TypeError, RecursionError):
        return ApiError(lab, message)
    known = getattr(errors, name, None)
    if not (isinstance(known, type) and issubclass(known, UmlabError)):
        return ApiError(lab, message)
    try:
        # Every class either takes its attributes or just its text.
        return known(**fields) if fields else known(message)
    except TypeError:
        return ApiError(lab, message)
