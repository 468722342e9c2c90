"""The OpenAPI document: what FastAPI finds, and what it cannot see."""

from __future__ import annotations

import re
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from umlab import __version__
from umlab.api.body import BODIES
from umlab.api.error import STATUS

_REFERENCE = "#/components/schemas/{model}"
_DESCRIPTION = """\
Everything that a lab's daemon can do, over the unix socket `api.sock` in the lab's runtime directory.

Every change may be repeated: the second time it answers `{"changed": false}`.  An error's body names its
class, one of a closed list; the HTTP status follows from the class.  Console output, names of devices and
whatever else a guest can write is untrusted.

A terminal is a WebSocket at `/v1/guests/{guest}/consoles/{console}`, which this format cannot describe:
binary frames are bytes both ways, a text frame `{"resize": [rows, columns]}` tells the size of the window.

So is a command in a guest with its streams, at `/v1/guests/{guest}/exec`: the first message is a text frame,
an `ExecOrder`.  Then the first byte of a binary frame says which stream the rest is of: 0 the input, 1 the
output, 2 the errors.  Text frames from the client are `{"end_input": true}`, `{"signal": name}` and
`{"resize": [rows, columns]}`; to it go `{"begun": true}` when the command has its place in the
guest, `{"taken": bytes}`, how much of the input the guest has, which a client may be 8 MiB ahead of, and at
the end `{"status": n}` or an error.
"""
_ERROR_SCHEMA = {
    "title": "Error",
    "description": "Why a request was not served.",
    "type": "object",
    "required": ["error"],
    "additionalProperties": False,
    "properties": {
        "error": {
            "type": "object",
            "required": ["class", "message", "fields"],
            "additionalProperties": False,
            "properties": {
                "class": {"type": "string", "enum": sorted(STATUS), "description": "What kind of error."},
                "message": {"type": "string", "description": "One sentence for people."},
                "fields": {"type": "object", "description": "Facts for programs, by class."},
            },
        }
    },
}
_TAGS = [
    {"name": "lab", "description": "The lab as a whole, its events and numbers."},
    {"name": "switches", "description": "Switches, their ports and addresses."},
    {"name": "guests", "description": "Guests, their output, devices and management consoles."},
]


def openapi_document(app: FastAPI) -> dict[str, Any]:
    """Return the document of an application."""
    document = get_openapi(
        title="umlab lab daemon",
        version=__version__,
        description=_DESCRIPTION,
        routes=app.routes,
        tags=_TAGS,
    )
    schemas: dict[str, Any] = document.setdefault("components", {}).setdefault("schemas", {})
    for body in BODIES:
        schema = body.adapter.json_schema(ref_template=_REFERENCE)
        schemas.update(schema.pop("$defs", {}))
        schemas[body.name] = schema
    schemas["Error"] = _ERROR_SCHEMA
    for schema in schemas.values():
        _describe(schema)
    return document


def _describe(schema: dict[str, Any]) -> None:
    """Move what a docstring says of each attribute to its property."""
    text, _, rest = schema.get("description", "").partition("Attributes:\n")
    if not rest:
        return
    schema["description"] = text.strip()
    for name, words in re.findall(r"^ *(\w+): ((?:.+\n?)(?:^ {8,}.+\n?)*)", rest, re.MULTILINE):
        if name in schema.get("properties", {}):
            schema["properties"][name].setdefault("description", " ".join(words.split()))
