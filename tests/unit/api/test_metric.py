"""The lab's numbers, read back as Prometheus reads them."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Iterable

import pytest
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

from support.api_lab import ApiLab
from support.deadline import scaled
from support.fake_lab import PORT_COUNTERS
from support.require import ROOT
from support.unix_http import connect
from umlab.api import connection


async def scrape(api: ApiLab) -> list[Metric]:
    """Return every family, with a listener's eye for what Prometheus would stumble over."""
    answer = await api.call("GET", "/metrics")
    assert answer.status == 200
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    families = list(text_string_to_metric_families(answer.body.decode()))
    names = [family.name for family in families]
    assert len(names) == len(set(names))
    return families


def values(families: Iterable[Metric], name: str) -> dict[tuple[str, ...], float]:
    """Return the samples of a name: the values of their labels, by name of label, and their own."""
    found = {
        tuple(value for _, value in sorted(sample.labels.items())): sample.value
        for family in families
        for sample in family.samples
        if sample.name == name
    }
    assert found, name
    return found


async def test_numbers_are_those_of_the_lab(api: ApiLab) -> None:
    for _ in range(3):
        assert (await api.call("GET", "/v1/switches/none")).status == 404
    api.lab.events.publish({"event": "x"})
    families = await scrape(api)
    assert values(families, "umlab_switches") == {(): 1}
    # Labels: engine, switch.
    assert values(families, "umlab_switch_info") == {("py", "lan"): 1}
    assert values(families, "umlab_switch_ports") == {("lan",): 2}
    assert values(families, "umlab_switch_fdb_entries") == {("lan",): 2}
    assert values(families, "umlab_switch_fdb_capacity") == {("lan",): 65536}
    assert values(families, "umlab_switch_learned_addresses_total") == {("lan",): 3}
    assert values(families, "umlab_guests") == {("booting",): 0, ("ready",): 1, ("ended",): 0}
    # Labels: kind, port_no, switch.
    received = values(families, "umlab_port_received_frames_total")
    assert received == {("daemon", "1", "lan"): 7, ("daemon", "2", "lan"): 7}
    assert values(families, "umlab_port_up")["daemon", "1", "lan"] == 1
    drops = values(families, "umlab_port_dropped_frames_total")
    assert drops["daemon", "1", "tail", "lan"] == PORT_COUNTERS["drop_tail"]
    # Labels: bytes, direction, kind, port_no, switch; what has not occurred is not there.
    sizes = values(families, "umlab_port_frames_by_size_total")
    assert sizes["0-64", "received", "daemon", "1", "lan"] == 7
    assert sizes["0-64", "transmitted", "daemon", "2", "lan"] == 5
    assert len(sizes) == 4
    requests = values(families, "umlab_api_requests_total")
    assert requests["GET", "404"] == 3
    assert requests["PUT", "200"] == 2
    errors = values(families, "umlab_api_errors_total")
    assert errors["NoSuchSwitch",] == 3
    assert errors["NoSuchPort",] == 0
    assert values(families, "umlab_events_total") == {(): 1}
    assert values(families, "umlab_event_listeners") == {(): 0}
    assert 0 <= values(families, "umlab_uptime_seconds")[()] < scaled(60)
    assert values(families, "umlab_resident_memory_bytes")[()] > 1 << 20
    assert values(families, "umlab_open_descriptors")[()] > 3
    assert values(families, "umlab_build_info") == {("demo", "0.1.0"): 1}


async def test_refusals_before_a_request_are_counted(api: ApiLab, monkeypatch: pytest.MonkeyPatch) -> None:
    async def refused() -> bytes:
        reader, writer = await connect(api.path)
        writer.write(b"no http at all\r\n\r\n")
        async with asyncio.timeout(scaled(10)):
            answer = await reader.read()
        writer.close()
        return answer

    assert b"MalformedRequest" in await refused()
    with monkeypatch.context() as strangers:
        strangers.setattr(connection, "_allowed_users", set)
        assert b"Forbidden" in await refused()
    errors = values(await scrape(api), "umlab_api_errors_total")
    assert errors["MalformedRequest",] == errors["Forbidden",] == 1


@pytest.mark.parametrize("jump", [-86_400, 86_400])
async def test_uptime_does_not_follow_the_clock(
    api: ApiLab, monkeypatch: pytest.MonkeyPatch, jump: int
) -> None:
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + jump)
    assert 0 < values(await scrape(api), "umlab_uptime_seconds")[()] < scaled(60)


async def test_labels_are_escaped(api: ApiLab, monkeypatch: pytest.MonkeyPatch) -> None:
    name = 'quote " backslash \\ line\nend'
    monkeypatch.setattr(api.lab, "name", name)
    assert values(await scrape(api), "umlab_build_info") == {(name, "0.1.0"): 1}


async def test_names_follow_the_conventions(api: ApiLab) -> None:
    for family in await scrape(api):
        assert re.fullmatch(r"umlab(_[a-z0-9]+)+", family.name)
        assert family.documentation.endswith(".")
        assert (family.type == "counter") == any(s.name.endswith("_total") for s in family.samples)
        for sample in family.samples:
            assert all(re.fullmatch("[a-z_]+", label) for label in sample.labels)


async def test_every_metric_and_label_has_its_line(api: ApiLab) -> None:
    page = (ROOT / "docs/reference/metrics.md").read_text()
    lines = dict(re.findall(r"^\| `(\w+)` \|(.*)$", page, re.MULTILINE))
    sampled = {sample.name: sample.labels for family in await scrape(api) for sample in family.samples}
    assert set(lines) == set(sampled)
    for name, labels in sampled.items():
        for label in labels:
            assert f"`{label}`" in lines[name], name


async def test_a_thousand_ports_are_cheap(api: ApiLab) -> None:
    for port_no in range(3, 1001):
        api.lab.add_port("lan", port_no)
    started = time.process_time()
    families = await scrape(api)
    assert time.process_time() - started < scaled(2)
    assert len(values(families, "umlab_port_received_frames_total")) == 1000
