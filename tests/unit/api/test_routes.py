"""Every route, its answers and its errors, over a real socket."""

from __future__ import annotations

from typing import Any

import pytest

from support.api_lab import GUEST, SWITCH, ApiLab
from umlab.errors import GuestBusy
from umlab.transports.contract import Access


async def test_lab(api: ApiLab) -> None:
    (lab,) = (await api.call("GET", "/v1/labs")).json
    assert lab == (await api.call("GET", "/v1/labs/demo")).json
    assert lab["name"] == "demo"
    assert lab["switches"] == ["lan"]
    assert lab["guests"] == ["left"]
    answer = await api.call("GET", "/v1/labs/other")
    assert (answer.status, answer.error) == (404, "LabNotRunning")


async def test_stopping_the_lab_is_answered_before_it_happens(api: ApiLab) -> None:
    assert (await api.call("DELETE", "/v1/labs/other")).status == 404
    assert api.stops == []
    answer = await api.call("DELETE", "/v1/labs/demo")
    assert (answer.status, answer.json) == (202, {"changed": True})
    assert (await api.call("DELETE", "/v1/labs/demo?keep=true")).status == 202
    assert api.stops == ["stop", "leave"]


async def test_switch_is_put_shown_and_removed(api: ApiLab) -> None:
    body = {"config": {"hub": True}, "listen": ["bess:/run/umlab/wan.bess"]}
    assert (await api.call("PUT", "/v1/switches/wan", body)).json == {"changed": True}
    assert (await api.call("PUT", "/v1/switches/wan", body)).json == {"changed": False}
    answer = await api.call("PUT", "/v1/switches/wan", SWITCH)
    assert (answer.status, answer.error) == (409, "AlreadyExists")
    assert answer.json["error"]["fields"] == {"kind": "switch", "name": "wan"}
    wan = (await api.call("GET", "/v1/switches/wan")).json
    assert wan["config"]["hub"] is True
    assert wan["listeners"][0]["where"] == "/run/umlab/wan.bess"
    assert [each["name"] for each in (await api.call("GET", "/v1/switches")).json] == ["lan", "wan"]
    assert (await api.call("DELETE", "/v1/switches/wan")).json == {"changed": True}
    assert (await api.call("DELETE", "/v1/switches/wan")).json == {"changed": False}
    assert (await api.call("GET", "/v1/switches/wan")).error == "NoSuchSwitch"


async def test_who_may_attach_is_said_in_numbers(api: ApiLab) -> None:
    body = {"config": {}, "listen": ["bess:/x"], "access": {"mode": 0o660, "gids": [5, 7]}}
    assert (await api.call("PUT", "/v1/switches/wan", body)).json == {"changed": True}
    assert api.lab.specs["wan"].access == Access(0o660, gids=(5, 7))
    for wrong in ({"mode": 0o1777}, {"mode": "0660"}, {"uids": [-1]}, {"uids": ["root"]}, {"users": [1]}):
        answer = await api.call("PUT", "/v1/switches/lot", body | {"access": wrong})
        assert (answer.status, answer.error) == (422, "InvalidRequest")


async def test_patch_changes_what_is_given_and_nothing_else(api: ApiLab) -> None:
    assert (await api.call("PATCH", "/v1/switches/lan", {"max_frame": 1514})).json == {"changed": True}
    assert (await api.call("PATCH", "/v1/switches/lan", {"hub": True})).json == {"changed": True}
    assert (await api.call("PATCH", "/v1/switches/lan", {"hub": True})).json == {"changed": False}
    config = (await api.call("GET", "/v1/switches/lan")).json["config"]
    assert config["hub"] is True
    assert config["max_frame"] == 1514
    assert config["ageing_time_ns"] == 300_000_000_000
    assert (await api.call("PATCH", "/v1/switches/other", {"hub": True})).status == 404


async def test_patch_refuses_what_no_switch_can_be(api: ApiLab) -> None:
    bodies: list[Any] = [{"max_frame": 3}, {"max_frame": None}, {"hub": 1}, {"hub": "y"}, {"hubs": True}]
    for body in [*bodies, [], None, b"{", b"\xff"]:
        answer = await api.call("PATCH", "/v1/switches/lan", body)
        assert (answer.status, answer.error) == (422, "InvalidRequest"), body
        assert answer.json["error"]["message"].startswith("body"), body
    assert (await api.call("GET", "/v1/switches/lan")).json["config"]["max_frame"] == 9018


async def test_a_refusal_is_short_however_much_is_wrong(api: ApiLab) -> None:
    keys: list[dict[str, int]] = [dict.fromkeys(map(str, range(5000)), 1), {"n" * 200_000: 1}]
    for body in keys:
        answer = await api.call("PATCH", "/v1/switches/lan", body)
        assert (answer.status, answer.error) == (422, "InvalidRequest")
        assert len(answer.body) < 4096


async def test_a_problem_is_told_once_and_by_the_parameters_name(api: ApiLab) -> None:
    answer = await api.call("GET", "/v1/events?last_event_id=x")
    (problem,) = answer.json["error"]["fields"]["problems"]
    assert problem["where"] == "query.last_event_id"


async def test_ports_addresses_and_counters(api: ApiLab) -> None:
    ports = (await api.call("GET", "/v1/switches/lan/ports")).json
    assert [(port["port_no"], port["guest"]) for port in ports] == [(1, "left"), (2, None)]
    assert ports[0]["counters"]["rx_frames"] == 7
    assert (await api.call("GET", "/v1/switches/lan/ports/2")).json == ports[1]
    assert (await api.call("GET", "/v1/switches/lan/ports/3")).error == "NoSuchPort"
    assert (await api.call("GET", "/v1/switches/lan/counters")).json["learned"] == 3
    fdb = (await api.call("GET", "/v1/switches/lan/fdb")).json
    assert fdb[0] == {"mac": "02:00:00:00:00:01", "port_no": 1, "age": 1.5, "vid": 0}
    assert (await api.call("DELETE", "/v1/switches/lan/fdb?port_no=1")).json == {"changed": True}
    assert [each["port_no"] for each in (await api.call("GET", "/v1/switches/lan/fdb")).json] == [2]
    assert (await api.call("DELETE", "/v1/switches/lan/fdb?port_no=9")).error == "NoSuchPort"
    assert (await api.call("DELETE", "/v1/switches/lan/fdb")).json == {"changed": True}
    assert (await api.call("DELETE", "/v1/switches/lan/fdb")).json == {"changed": False}
    assert (await api.call("DELETE", "/v1/switches/lan/ports/2")).json == {"changed": True}
    assert (await api.call("DELETE", "/v1/switches/lan/ports/2")).json == {"changed": False}


async def test_talkers_are_those_of_the_flight_recorder(api: ApiLab) -> None:
    found = (await api.call("GET", "/v1/switches/lan/talkers?seconds=2.5&count=1")).json
    pair = {"source": "02:00:00:00:00:01", "destination": "02:00:00:00:00:02", "frames": 3, "bytes": 192}
    source = {key: value for key, value in pair.items() if key != "destination"}
    assert found == {"seconds": 2.5, "frames": 4, "bytes": 252, "sources": [source], "pairs": [pair]}
    for wrong in ("seconds=0", "seconds=nan", "count=0", "count=9999"):
        assert (await api.call("GET", f"/v1/switches/lan/talkers?{wrong}")).error == "InvalidRequest"
    api.lab.has_recorder = False
    assert (await api.call("GET", "/v1/switches/lan/talkers")).error == "StateError"
    assert (await api.call("GET", "/v1/switches/wan/talkers")).error == "NoSuchSwitch"


async def test_numbers_of_ports_are_checked(api: ApiLab) -> None:
    for port_no in ("0", "-1", "x", "1.5", "99999999999999999999"):
        answer = await api.call("GET", f"/v1/switches/lan/ports/{port_no}")
        assert (answer.status, answer.error) == (422, "InvalidRequest"), port_no


async def test_guest_is_put_shown_and_removed(api: ApiLab) -> None:
    body = {
        "memory": 64 << 20,
        "root": {"path": "/srv/right.cow", "backing": "/srv/debian.img"},
        "nics": [
            {"control_path": "/run/lan.ctl", "mac": "02:00:00:00:00:01"},
            {"path": "/run/lan.bess"},
            {"switch": "lan", "mtu": 16000},
        ],
    }
    assert (await api.call("PUT", "/v1/guests/right", body)).json == {"changed": True}
    assert (await api.call("PUT", "/v1/guests/right", body)).json == {"changed": False}
    spec = api.lab.guest_by_name["right"].spec
    assert type(spec.root).__name__ == "DiskRoot"
    assert [type(nic).__name__ for nic in spec.nics] == ["DaemonNic", "BessNic", "FdNic"]
    assert (await api.call("PUT", "/v1/guests/right", GUEST)).error == "AlreadyExists"
    assert (await api.call("GET", "/v1/guests/right")).json["memory"] == 64 << 20
    assert [each["name"] for each in (await api.call("GET", "/v1/guests")).json] == ["left", "right"]
    assert (await api.call("DELETE", "/v1/guests/right")).json == {"changed": True}
    assert (await api.call("DELETE", "/v1/guests/right")).json == {"changed": False}
    assert (await api.call("GET", "/v1/guests/right")).error == "NoSuchGuest"


#: Descriptions of guests, and the class of error that refuses each.
BAD_GUESTS: list[tuple[Any, str]] = [
    ({"memory": 1}, "LabError"),
    ({"memory": "128"}, "InvalidRequest"),
    ({"umid": "other"}, "InvalidRequest"),
    ({"root": {"path": "/x", "shared": []}}, "InvalidRequest"),
    ({"root": {"path": "relative"}}, "LabError"),
    ({"nics": [{"path": "/x", "control_path": "/y"}]}, "InvalidRequest"),
    ({"nics": [{"path": "/x", "mtu": 1}]}, "LabError"),
    ({"extra": ["mem=1G"]}, "LabError"),
    ({"unknown": 1}, "InvalidRequest"),
]


async def test_guest_that_cannot_be_is_refused(api: ApiLab) -> None:
    for body, error in BAD_GUESTS:
        answer = await api.call("PUT", "/v1/guests/right", body)
        assert (answer.status, answer.error) == (422, error), body
    assert "right" not in api.lab.guest_by_name


@pytest.mark.parametrize(("kind", "body"), [("switches", SWITCH), ("guests", GUEST)])
async def test_names_that_no_path_may_have_are_refused(api: ApiLab, kind: str, body: Any) -> None:
    names = ["%2e%2e", "..", "a%0ab", "a%00b", "x" * 200, "%ff", "a%20b", "-x", "%c3%a4"]
    for name in [*names, "a%2fb", "%2e%2e%2fb"]:
        refusal = (404, "NotFound") if "%2f" in name else (422, "LabError")
        for method in ("GET", "DELETE", "PUT"):
            answer = await api.call(method, f"/v1/{kind}/{name}", body if method == "PUT" else None)
            assert (answer.status, answer.error) == refusal, (method, name)


async def test_log_is_read_in_pieces_and_followed_to_its_end(api: ApiLab) -> None:
    guest = api.lab.guest_by_name["left"]
    answer = await api.call("GET", "/v1/guests/left/log?limit=5")
    assert answer.body == b"Linux"
    assert answer.headers["content-type"] == "application/octet-stream"
    assert (answer.headers["umlab-start"], answer.headers["umlab-end"]) == ("0", "5")
    assert (await api.call("GET", "/v1/guests/left/log?start=-4")).body == b"6.1\n"
    guest.log_start, guest.log[:] = 100, b"later\xff\n"
    answer = await api.call("GET", "/v1/guests/left/log?start=5")
    assert (answer.headers["umlab-start"], answer.body) == ("100", b"later\xff\n")
    guest.state = "ended"
    answer = await api.call("GET", "/v1/guests/left/log?start=102&follow=true&limit=2")
    assert (answer.headers["umlab-start"], answer.body) == ("102", b"ter\xff\n")
    for query in ("limit=0", "limit=x", "limit=99999999", "follow=2"):
        assert (await api.call("GET", f"/v1/guests/left/log?{query}")).error == "InvalidRequest"


async def test_devices(api: ApiLab) -> None:
    setting = {"setting": "daemon,,unix,/run/umlab/lan.ctl"}
    assert (await api.call("PUT", "/v1/guests/left/devices/eth1", setting)).json == {"changed": True}
    assert (await api.call("PUT", "/v1/guests/left/devices/eth1", setting)).json == {"changed": False}
    eth1 = {"name": "eth1", **setting, "kind": "nic", "switch": None, "port_no": None}
    assert (await api.call("GET", "/v1/guests/left/devices/eth1")).json == eth1
    assert eth1 in (await api.call("GET", "/v1/guests/left/devices")).json
    assert (await api.call("DELETE", "/v1/guests/left/devices/eth1")).json == {"changed": True}
    assert (await api.call("DELETE", "/v1/guests/left/devices/eth1")).json == {"changed": False}
    answer = await api.call("GET", "/v1/guests/left/devices/eth1")
    assert (answer.status, answer.error) == (404, "NoSuchDevice")
    for bad in ("", "two words", "new\nline", "daemon,,unix,/" + "x" * 512):
        answer = await api.call("PUT", "/v1/guests/left/devices/eth1", {"setting": bad})
        assert answer.error == "LabError"


async def test_devices_in_the_words_of_the_lab(api: ApiLab) -> None:
    bess = {"nic": {"switch": "wan", "transport": "bess", "mtu": 9000}}
    at = "/v1/guests/left/devices"
    await api.call("PUT", "/v1/switches/wan", {"config": {}, "listen": ["daemon:/x/c", "bess:/x/b"]})
    added = await api.call("POST", at, bess)
    assert (added.json["name"], added.json["setting"]) == ("vec0", "transport=bess,dst=/x/b,mtu=9000")
    assert (await api.call("PUT", f"{at}/vec0", bess)).json == {"changed": False}
    assert (await api.call("POST", f"{at}/vec0/reset", {"down": True})).json == {"changed": True}
    disk = {"disk": {"file": "/srv/a.cow", "backing": "/srv/a.img"}}
    assert (await api.call("PUT", f"{at}/ubd1", disk)).json == {"changed": True}
    assert (await api.call("GET", f"{at}/ubdb")).json["setting"] == "/srv/a.cow,/srv/a.img"
    assert (await api.call("PUT", f"{at}/mem", {"memory": "96M"})).json == {"changed": True}
    for device, body, error in (
        ("vec1", {"nic": {"switch": "lan"}}, "LabError"),
        ("eth1", bess, "LabError"),
        ("vec1", {"nic": {"switch": "none"}}, "NoSuchSwitch"),
        ("eth1", {"nic": {"switch": "wan", "mtu": 9000}}, "LabError"),
        ("ubdb", {"memory": "96M"}, "LabError"),
        ("ubdb", {"disk": {"file": "relative"}}, "LabError"),
        ("ubdb", {"disk": {"file": "/x", "cow": "/y"}}, "InvalidRequest"),
        ("con2", {"console": "pty", "memory": "1M"}, "InvalidRequest"),
        ("con2", {}, "InvalidRequest"),
        ("con16", {"console": "pty"}, "LabError"),
        ("usb0", {"console": "pty"}, "LabError"),
    ):
        assert (await api.call("PUT", f"{at}/{device}", body)).error == error, body
    assert (await api.call("POST", at, {"setting": "daemon,,unix,/x"})).error == "LabError"
    assert (await api.call("POST", f"{at}/eth9/reset", {})).error == "NoSuchDevice"


async def test_stack_and_sysrq(api: ApiLab) -> None:
    assert (await api.call("POST", "/v1/guests/left/stack", {"pid": 1})).json == {"output": "stack of 1"}
    assert (await api.call("POST", "/v1/guests/left/sysrq", {"letter": "m"})).json == {"output": "sysrq m"}
    assert (await api.call("POST", "/v1/guests/none/stack", {"pid": 1})).error == "NoSuchGuest"
    for body in ({"pid": 0}, {"pid": True}, {}, {"pid": 1, "x": 1}):
        assert (await api.call("POST", "/v1/guests/left/stack", body)).error == "InvalidRequest"
    for letter in ("", "mm", "M", "\n"):
        answer = await api.call("POST", "/v1/guests/left/sysrq", {"letter": letter})
        assert answer.error == "InvalidRequest"


async def test_mconsole_takes_any_command(api: ApiLab) -> None:
    target = "/v1/guests/left/mconsole"
    answer = await api.call("POST", target, {"command": "proc uptime", "timeout": 2.5}, idempotency_key="one")
    assert answer.json == {"output": "mconsole proc uptime"}
    assert (await api.call("POST", target, {"command": "go", "timeout": None})).status == 200
    assert api.lab.asked == [("mconsole", ("proc uptime", 2.5)), ("mconsole", ("go", None))]
    again = {"command": "proc uptime", "timeout": 2}
    assert (await api.call("POST", target, again, idempotency_key="one")).error == "InvalidRequest"
    assert (await api.call("POST", "/v1/guests/none/mconsole", {"command": "go"})).error == "NoSuchGuest"
    for command in ("", "x" * 512, "log a\0b", 1, None):
        assert (await api.call("POST", target, {"command": command})).error == "InvalidRequest"
    for timeout in (0, -1, 301, "5", True):
        answer = await api.call("POST", target, {"command": "go", "timeout": timeout})
        assert answer.error == "InvalidRequest", timeout


async def test_processes_where_an_agent_answers(api: ApiLab) -> None:
    target = "/v1/guests/left/processes"
    assert (await api.call("GET", target)).json == [{"pid": 1, "name": "init"}, {"pid": 42, "name": "sh"}]
    api.lab.held("left").state = "booting"
    assert (await api.call("GET", target)).error == "StateError"
    assert (await api.call("GET", "/v1/guests/none/processes")).error == "NoSuchGuest"


async def test_vitals(api: ApiLab) -> None:
    shown = (await api.call("GET", "/v1/guests/left/vitals")).json
    assert shown == {
        **{"name": "left", "state": "answers", "age": 0.5, "release": "6.1.176", "uptime": 93784.5},
        **{"load": [0.5, 0.25, 0.0], "memory_total": 96 << 20, "memory_used": 24 << 20, "cpu": 0.125},
    }
    assert (await api.call("GET", "/v1/guests/none/vitals")).error == "NoSuchGuest"


async def test_busy_guest_says_when_to_come_again(api: ApiLab, monkeypatch: pytest.MonkeyPatch) -> None:
    async def refuse(name: str, pid: int) -> str:
        raise GuestBusy(name, 64, 1.0)

    monkeypatch.setattr(api.lab.kernels, "stack", refuse)
    answer = await api.call("POST", "/v1/guests/left/stack", {"pid": 1})
    assert (answer.status, answer.error, answer.headers["retry-after"]) == (429, "GuestBusy", "1")
    assert answer.json["error"]["fields"] == {"umid": "left", "waiting": 64, "retry_after": 1.0}


async def test_consoles(api: ApiLab) -> None:
    consoles = (await api.call("GET", "/v1/guests/left/consoles")).json
    assert consoles[1] == {"name": "con1", "kind": "terminal", "writers": 0, "readers": 0}


async def test_what_is_not_there_and_what_cannot_be_done(api: ApiLab) -> None:
    answer = await api.call("GET", "/v1/nothing")
    assert (answer.status, answer.error) == (404, "NotFound")
    assert (await api.call("GET", "/v1/switches/")).error in ("NotFound", "LabError")
    assert (await api.call("GET", "/docs")).error == "NotFound"
    answer = await api.call("POST", "/v1/switches/lan")
    assert (answer.status, answer.error) == (405, "MethodNotAllowed")
    assert answer.headers["allow"] == "DELETE, GET, PATCH, PUT"


async def test_a_bug_is_hidden_and_logged(
    api: ApiLab, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken() -> None:
        raise RuntimeError("secret of the house")

    monkeypatch.setattr(api.lab, "switches", broken)
    answer = await api.call("GET", "/v1/switches")
    assert (answer.status, answer.error) == (500, "InternalError")
    assert b"secret" not in answer.body
    assert "secret of the house" in caplog.text
    assert (await api.call("GET", "/v1/labs")).status == 200
