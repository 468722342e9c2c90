"""Hooks by HTTP: put, shown, removed; what cannot be is refused."""

from __future__ import annotations

from typing import Any

from support.api_lab import ApiLab

MAIL = {"on": ["guest_panicked", "guest_silent"], "guests": "web*", "run": ["/usr/bin/mail", "-s", "x"]}


async def test_hook_is_put_shown_and_removed(api: ApiLab) -> None:
    assert (await api.call("PUT", "/v1/hooks/mail", MAIL)).json == {"changed": True}
    assert (await api.call("PUT", "/v1/hooks/mail", MAIL)).json == {"changed": False}
    shown = (await api.call("GET", "/v1/hooks/mail")).json
    assert shown == {"name": "mail", "log": "/var/log/hook-mail.log", **MAIL}
    assert (await api.call("GET", "/v1/hooks")).json == [shown]
    assert (await api.call("PUT", "/v1/hooks/mail", MAIL | {"guests": None})).json == {"changed": True}
    assert (await api.call("DELETE", "/v1/hooks/mail")).json == {"changed": True}
    assert (await api.call("DELETE", "/v1/hooks/mail")).json == {"changed": False}
    missing = await api.call("GET", "/v1/hooks/mail")
    assert (missing.status, missing.json["error"]["class"]) == (404, "NoSuchHook")


async def test_what_cannot_be_a_hook_is_refused(api: ApiLab) -> None:
    wrong: list[dict[str, Any]] = [
        {"on": ["port_attached"]},
        {"on": "guest_ended"},
        {"on": []},
        {"run": []},
        {"run": ["a\0b"]},
        {"run": [1]},
        {"guests": ""},
        {"shell": True},
    ]
    for name, change in [*(("mail", each) for each in wrong), ("-mail", {})]:
        answer = await api.call("PUT", f"/v1/hooks/{name}", MAIL | change)
        assert answer.status == 422, change
        assert answer.json["error"]["class"] in ("InvalidRequest", "LabError")
    assert (await api.call("GET", "/v1/hooks")).json == []
