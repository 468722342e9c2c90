"""A real daemon answers as its OpenAPI document promises."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, settings
from schemathesis.core import NOT_SET
from schemathesis.specs.openapi.checks import positive_data_acceptance

from integration.peers.background_lab import BackgroundLab
from integration.peers.fake_guest import FakeGuest
from integration.peers.unix_session import unix_session
from support.fake_lab import FakeLab
from umlab.api.app import create_app
from umlab.daemon.place import API_SOCKET

pytestmark = [pytest.mark.integration, pytest.mark.any_user]

#: Streams that do not end, the end of the lab, and what makes things out of random words on this machine.
LEFT_OUT = {
    ("GET", "/v1/events"),
    ("DELETE", "/v1/labs/{lab}"),
    ("PUT", "/v1/guests/{guest}"),
    ("PUT", "/v1/switches/{switch}"),
    ("DELETE", "/v1/switches/{switch}"),
}


@pytest.fixture(scope="module")
def session() -> Iterator[requests.Session]:
    with (
        BackgroundLab() as lab,
        FakeGuest(lab.runtime / "lan.ctl").attach(),
        unix_session(lab.runtime / API_SOCKET) as session,
    ):
        yield session


schema = schemathesis.openapi.from_dict(create_app(FakeLab(), lambda _: None).openapi())
for method, path in LEFT_OUT:
    schema = schema.exclude(method=method, path=path)


@schema.parametrize()
@settings(
    max_examples=5,
    deadline=None,
    derandomize=True,
    database=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)
def test_answers_are_what_the_document_promises(case: Any, session: requests.Session) -> None:
    # The core knows more of a switch than a schema can say.
    excluded = [positive_data_acceptance] if case.body is not NOT_SET else []
    case.call_and_validate(base_url="http://umlab", session=session, excluded_checks=excluded)
