"""Names and numbers in the paths of the API."""

from __future__ import annotations

from functools import partial
from typing import Annotated

from fastapi import Path
from pydantic import AfterValidator, Field

from umlab._name import MAX_NAME, check_name

#: What a name looks like, in the document; the check itself is the core's.
_NAME_SCHEMA = {"pattern": "^[A-Za-z0-9][A-Za-z0-9._-]*$", "minLength": 1, "maxLength": MAX_NAME}

LabName = Annotated[
    str,
    AfterValidator(partial(check_name, "lab")),
    Path(description="The lab's name.", examples=["demo"], json_schema_extra=dict(_NAME_SCHEMA)),
]
SwitchName = Annotated[
    str,
    AfterValidator(partial(check_name, "switch")),
    Path(description="A switch's name.", examples=["lan"], json_schema_extra=dict(_NAME_SCHEMA)),
]
GuestName = Annotated[
    str,
    AfterValidator(partial(check_name, "guest")),
    Path(description="A guest's umid.", examples=["left"], json_schema_extra=dict(_NAME_SCHEMA)),
]
DeviceName = Annotated[
    str,
    AfterValidator(partial(check_name, "device")),
    Path(description="A device's name.", examples=["eth0"], json_schema_extra=dict(_NAME_SCHEMA)),
]
HookName = Annotated[
    str,
    AfterValidator(partial(check_name, "hook")),
    Path(description="A hook's name.", examples=["mail"], json_schema_extra=dict(_NAME_SCHEMA)),
]
Number = Annotated[int, Field(ge=1, le=(1 << 31) - 1)]
PortNo = Annotated[Number, Path(description="A port's number.", examples=[1])]
