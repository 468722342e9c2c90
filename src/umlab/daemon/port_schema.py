"""The form of ports and mirror sessions, as pydantic and with it the API's document know it.

Whoever makes pydantic look at a ``SwitchConfig`` imports this.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from umlab.daemon.port_setting import (
    TPIDS,
    Form,
    mirror_from_form,
    mirror_to_form,
    port_from_form,
    port_to_form,
)
from umlab.switch.model import MAX_PORT_NO, MirrorSession, PortConfig, ReservedPolicy
from umlab.switch.vlan import MAX_VID, MIN_VID

_VID_SCHEMA = {"type": "integer", "minimum": MIN_VID, "maximum": MAX_VID}
_VIDS_SCHEMA = {"type": "string", "examples": ["10,20-29"]}
_PORT_NO_SCHEMA = {"type": "integer", "minimum": 1, "maximum": MAX_PORT_NO}
_PORT_SCHEMA = {
    "title": "Port",
    "description": "What a port is told to be: access, or trunk with native, or pvid with tagged and "
    "untagged; none of these where it does not look at tags.",
    "type": "object",
    "additionalProperties": False,
    "properties": {
        "access": _VID_SCHEMA | {"description": "The one VLAN of a guest that knows nothing of it."},
        "trunk": _VIDS_SCHEMA | {"description": "VLANs whose frames have a tag here."},
        "native": _VID_SCHEMA | {"description": "The VLAN of a trunk's frames without a tag."},
        "pvid": _VID_SCHEMA | {"description": "The VLAN of what comes without a tag."},
        "tagged": _VIDS_SCHEMA | {"description": "VLANs whose frames leave with a tag."},
        "untagged": _VIDS_SCHEMA | {"description": "VLANs whose frames leave without a tag."},
        "tpid": {
            "enum": list(TPIDS),
            "description": "What counts as a tag: 802.1Q's, or a provider's of 802.1ad.",
        },
        "reserved": {
            "enum": [each.value for each in ReservedPolicy],
            "description": "What becomes of frames to 01-80-C2-00-00-0x that come from here.",
        },
    },
}
_MIRROR_SCHEMA = {
    "title": "Mirror",
    "description": "A mirror session: copies of frames for one more port.",
    "type": "object",
    "required": ["name", "destination"],
    "additionalProperties": False,
    "properties": {
        "name": {"type": "string", "description": "Its name."},
        "destination": _PORT_NO_SCHEMA | {"description": "The port that gets the copies."},
        "ports": {"type": "array", "items": _PORT_NO_SCHEMA, "description": "Whose frames are copied."},
        "vlans": _VIDS_SCHEMA | {"description": "VLANs whose frames are copied."},
        "ingress": {"type": "boolean", "description": "Copy what comes from the ports."},
        "egress": {"type": "boolean", "description": "Copy what goes to the ports."},
    },
}


def _give_form(kind: type, read: Callable[[Any], Any], write: Callable[[Any], Form], schema: Form) -> None:
    """Have pydantic, where it is used, take and give a class of the core in its form."""

    def core_schema(_: type, source: Any, handler: Any) -> Any:
        # Late: a command that only completes a word does without.
        from pydantic_core import core_schema

        writer = core_schema.plain_serializer_function_ser_schema(write)
        return core_schema.no_info_plain_validator_function(read, serialization=writer)

    hooks = {
        "__get_pydantic_core_schema__": core_schema,
        "__get_pydantic_json_schema__": lambda _, core, handler: schema,
    }
    for name, hook in hooks.items():
        setattr(kind, name, classmethod(hook))


_give_form(PortConfig, port_from_form, port_to_form, _PORT_SCHEMA)
_give_form(MirrorSession, mirror_from_form, mirror_to_form, _MIRROR_SCHEMA)
