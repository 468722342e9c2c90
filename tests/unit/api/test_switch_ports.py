"""Ports and mirror sessions over HTTP: one form, checked before anything changes."""

from __future__ import annotations

from typing import Any

import pytest

from support.api_lab import ApiLab

LAN = "/v1/switches/lan"
FORM: dict[str, Any] = {
    "1": {"access": 10},
    "2": {"trunk": "10,20-29", "native": 1, "tpid": "stag", "reserved": "bridge"},
    "7": {"pvid": 1, "tagged": "10", "untagged": "1,5"},
}
TAP = {"name": "tap", "destination": 2, "ports": [1], "vlans": "10", "ingress": True, "egress": False}


async def test_ports_and_sessions_are_set_and_shown_in_one_form(api: ApiLab) -> None:
    body = {"ports": FORM, "mirrors": {"tap": TAP}, "ahead": True}
    assert (await api.call("PATCH", LAN, body)).json == {"changed": True}
    assert (await api.call("PATCH", LAN, body)).json == {"changed": False}
    config = (await api.call("GET", LAN)).json["config"]
    assert (config["ports"], config["mirrors"]) == (FORM, [TAP])
    change = {"ports": {"2": None, "7": {}}, "mirrors": {"tap": None}, "max_frame": 1518}
    assert (await api.call("PATCH", LAN, change)).json == {"changed": True}
    config = (await api.call("GET", LAN)).json["config"]
    assert (config["ports"], config["mirrors"], config["max_frame"]) == ({"1": FORM["1"]}, [], 1518)


async def test_switch_is_made_with_ports(api: ApiLab) -> None:
    body = {"config": {"ports": FORM, "mirrors": [TAP]}, "listen": [], "recorder": 0}
    assert (await api.call("PUT", "/v1/switches/new", body)).json == {"changed": True}
    view = (await api.call("GET", "/v1/switches/new")).json
    assert (view["config"]["ports"], view["config"]["mirrors"], view["recorder"]) == (FORM, [TAP], 0)
    body["recorder"] = 7
    answer = await api.call("PUT", "/v1/switches/other", body)
    assert (answer.status, answer.error) == (422, "InvalidRequest")


@pytest.mark.parametrize(
    ("body", "text"),
    [
        ({"ports": {"2": {"access": 5}, "1": {"access": 0}}}, "access: VID 0 is not between 1 and 4094"),
        ({"ports": {"1": {"access": 4095}}}, "VID 4095 is not between"),
        ({"ports": {"1": {"access": "10"}}}, "access: '10' is no whole number"),
        ({"ports": {"1": {"access": True}}}, "access: True is no whole number"),
        ({"ports": {"1": {"access": 10**400}}}, "is too large or too small"),
        ({"ports": {"1": {"trunk": 10}}}, "trunk: 10 is no text"),
        ({"ports": {"1": {"trunk": "5-2"}}}, "trunk: the range 5-2 runs backwards"),
        ({"ports": {"1": {"tagged": "1-5", "untagged": "5"}}}, "VLAN 5 cannot leave both"),
        ({"ports": {"1": {"access": 1, "trunk": "2"}}}, "access, trunk do not go together"),
        ({"ports": {"1": {"native": 1}}}, "native: it goes with trunk"),
        ({"ports": {"1": {"acess": 1}}}, "a port has no 'acess'"),
        ({"ports": {"1": 10}}, "10 is no form of a port"),
        ({"ports": {"0": {"access": 1}}}, "greater than or equal to 1"),
        ({"ports": {"65536": {"access": 1}}}, "less than or equal to 65535"),
        ({"ports": {"one": {"access": 1}}}, "valid integer"),
        ({"ports": [{"access": 1}]}, "Input should be an object"),
        ({"ports": {"1": {"reserved": "drop"}}}, "reserved: 'drop' is none of transparent, bridge, peer"),
        ({"ports": {"1": {"access": 1, "tpid": 33024}}}, "tpid: 33024 is none of ctag, stag"),
        ({"ports": {"1": {"tpid": "stag"}}}, "a transparent port looks at no tags"),
        ({"mirrors": {"m": {"name": "m"}}}, "a mirror session has a destination"),
        ({"mirrors": {"m": TAP}, "ahead": True}, "mirror m: its name is tap"),
        ({"mirrors": {"tap": {**TAP, "ports": [2]}}}, "port 2 cannot be copied to itself"),
        ({"mirrors": {"tap": {**TAP, "destination": 0}}, "ahead": True}, "mirror tap: port 0 is not"),
        ({"mirrors": {"tap": {**TAP, "ports": "1"}}}, "ports: '1' is no list of numbers"),
        ({"mirrors": {"tap": {**TAP, "ingress": 1}}}, "ingress: 1 is neither true nor false"),
        ({"mirrors": {"tap": {**TAP, "ingress": False}}}, "neither ingress nor egress is copied"),
        (
            {"mirrors": {"tap": TAP, "back": {"name": "back", "destination": 1, "ports": [2]}}},
            "mirror back: port 2 gets the copies of mirror tap",
        ),
        (
            {"mirrors": {f"m{n}": {"name": f"m{n}", "destination": 1, "vlans": "1"} for n in range(9)}},
            "at most 8 mirror sessions",
        ),
    ],
    ids=lambda value: str(value)[:50] if isinstance(value, dict) else "",
)
async def test_what_no_switch_can_be_is_refused_whole(api: ApiLab, body: dict[str, Any], text: str) -> None:
    before = (await api.call("GET", LAN)).json
    # All right by itself.
    body = {"hub": True, **body}
    answer = await api.call("PATCH", LAN, body)
    assert (answer.status, answer.error) == (422, "InvalidRequest")
    assert text in answer.json["error"]["message"]
    assert answer.json["error"]["message"].startswith("body")
    assert len(answer.body) < 1000
    assert (await api.call("GET", LAN)).json == before


async def test_numbers_where_nothing_is_are_refused_unless_ahead(api: ApiLab) -> None:
    body = {"ports": {"2": {"access": 10}, "8": {"access": 10}, "9": {"access": 10}}}
    answer = await api.call("PATCH", LAN, body)
    assert (answer.status, answer.error) == (422, "SwitchError")
    assert "at port 8-9 (there are 1-2)" in answer.json["error"]["message"]
    assert (await api.call("GET", LAN)).json["config"]["ports"] == {}
    assert (await api.call("PATCH", LAN, body | {"ahead": True})).json == {"changed": True}


async def test_document_tells_the_forms(api: ApiLab) -> None:
    schemas = (await api.call("GET", "/v1/openapi.json")).json["components"]["schemas"]
    ports = schemas["SwitchPatch"]["properties"]["ports"]["additionalProperties"]["anyOf"][0]
    assert set(ports["properties"]) == {
        *("access", "trunk", "native", "pvid", "tagged", "untagged", "tpid", "reserved"),
    }
    (mirror, _) = schemas["SwitchPatch"]["properties"]["mirrors"]["additionalProperties"]["anyOf"]
    assert mirror["required"] == ["name", "destination"]
    assert "recorder" in schemas["SwitchView"]["properties"]
