"""The OpenAPI document is complete, and every answer is what it promises."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, settings
from schemathesis.core import NOT_SET
from schemathesis.specs.openapi.checks import positive_data_acceptance

from support.fake_lab import FakeConsoles, FakeLab
from support.require import ROOT
from umlab import errors
from umlab.api.app import create_app
from umlab.api.console import CLOSE_CODES
from umlab.api.error import EVERYWHERE, STATUS
from umlab.daemon.spec import SwitchSpec
from umlab.guest.cmdline import GuestSpec
from umlab.switch.model import SwitchConfig


class EndingConsoles(FakeConsoles):
    """Whoever waits for more of a guest is told that it has ended."""

    async def wait_log(self, name: str, console: str, end: int) -> None:
        self._lab.held(name).state = "ended"


def _served() -> tuple[FakeLab, Any]:
    lab = FakeLab()
    lab.consoles = EndingConsoles(lab)
    # Streams of events end at once.
    lab.events.close()
    return lab, create_app(lab, lambda _: None)


LAB, APP = _served()
schema = schemathesis.openapi.from_asgi("/v1/openapi.json", APP)


@pytest.fixture(autouse=True)
def _lab(request: pytest.FixtureRequest) -> Iterator[None]:
    LAB.specs["lan"] = SwitchSpec("lan", SwitchConfig(), ("daemon:/run/umlab/lan.ctl",))
    LAB.port_views["lan"], LAB.addresses["lan"] = {}, []
    LAB.add_port("lan", 1)
    LAB.guest_by_name.pop("left", None)
    yield
    LAB.guest_by_name.clear()


@schema.parametrize()
@settings(
    max_examples=12,
    deadline=None,
    derandomize=True,
    database=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)
def test_answers_are_what_the_document_promises(case: Any) -> None:
    # What makes a switch or a guest is decided by the core, which knows more than a schema can say; and the
    # key of a request may have been another one's.
    excluded = [positive_data_acceptance] if case.body is not NOT_SET else []
    case.call_and_validate(excluded_checks=excluded)


def _operations() -> list[tuple[str, str, dict[str, Any]]]:
    paths = APP.openapi()["paths"]
    return [
        (path, method, operation) for path, methods in paths.items() for method, operation in methods.items()
    ]


def test_everything_is_described() -> None:
    for path, method, operation in _operations():
        where = f"{method} {path}"
        assert operation["summary"], where
        assert operation["description"], where
        assert operation["tags"], where
        for parameter in operation.get("parameters", []):
            assert parameter["description"], where
        if method in ("put", "patch", "post"):
            assert operation["requestBody"]["content"]["application/json"]["examples"], where
    for name, model in APP.openapi()["components"]["schemas"].items():
        assert "Attributes:" not in model["description"], name
        for key, value in model["properties"].items():
            assert value.get("description") or name == "Error", f"{name}.{key}"


def test_every_status_has_its_body() -> None:
    for path, method, operation in _operations():
        where = f"{method} {path}"
        responses = operation["responses"]
        assert {str(STATUS[name]) for name in EVERYWHERE} < set(responses), where
        for status, response in responses.items():
            assert response["content"], f"{where}: {status}"
            if int(status) >= 400:
                content = response["content"]["application/json"]
                assert content["schema"] == {"$ref": "#/components/schemas/Error"}
                for name, example in content["examples"].items():
                    assert STATUS[name] == int(status)
                    assert example["value"]["error"]["class"] == name


def test_every_route_and_class_and_code_has_its_line() -> None:
    page = (ROOT / "docs/reference/api.md").read_text()
    for path, method, _ in _operations():
        assert f"| `{method.upper()} {path}` |" in page
    for name, status in STATUS.items():
        assert f"| `{name}` | {status} |" in page
    for code in CLOSE_CODES:
        assert f"| {code} |" in page
    lines = re.findall(r"^\| `([A-Z]+ /[^`]*)` \|", page, re.MULTILINE)
    known = {f"{method.upper()} {path}" for path, method, _ in _operations()}
    assert set(lines) - known == {
        "GET /v1/guests/{guest}/consoles/{console}",
        "GET /v1/guests/{guest}/exec",
        "GET /v1/captures",
    }


def test_classes_are_those_that_there_are() -> None:
    own = {"MalformedRequest", "Forbidden", "NotFound", "MethodNotAllowed", "RequestTimeout"}
    own |= {"BodyTooLarge", "InvalidRequest", "InternalError"}
    assert all(issubclass(getattr(errors, name), errors.UmlabError) for name in STATUS.keys() - own)


def test_models_are_those_of_the_core() -> None:
    models = APP.openapi()["components"]["schemas"]
    fields = {field for field in GuestSpec.__dataclass_fields__ if field != "umid"}
    assert set(models["GuestBody"]["properties"]) == fields
    assert set(models["SwitchPatch"]["properties"]) == {*SwitchConfig.__dataclass_fields__, "ahead", "lldp"}
    assert "required" not in models["SwitchPatch"]
