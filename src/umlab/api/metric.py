"""The lab's numbers for Prometheus.

Each family is made and formatted by itself, so that a lab of a thousand ports does not keep the event
loop for long.  Naming: https://prometheus.io/docs/practices/naming/
"""

from __future__ import annotations

import asyncio
import os
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from prometheus_client import Metric, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.registry import Collector

from umlab.api.gate import RequestCounts
from umlab.api.limit import Limit
from umlab.daemon.lab import LabService
from umlab.daemon.record import SIZE_NAMES
from umlab.daemon.view import PortView

CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4
_PAGE_SIZE = os.sysconf("SC_PAGE_SIZE")
_GUEST_STATES = ("booting", "ready", "ended")
_DROP = "drop_"

#: Counters of a port, by the name that they have there.
_PORT_COUNTERS = {
    "rx_frames": ("umlab_port_received_frames", "Frames that the switch took from the guest."),
    "rx_bytes": ("umlab_port_received_bytes", "Bytes that the switch took from the guest."),
    "tx_frames": ("umlab_port_transmitted_frames", "Frames that the guest's socket took."),
    "tx_bytes": ("umlab_port_transmitted_bytes", "Bytes that the guest's socket took."),
}
#: Counters of a switch, by the name that they have there.
_SWITCH_COUNTERS = {
    "learned": ("umlab_switch_learned_addresses", "Addresses learnt, moves not included."),
    "moved": ("umlab_switch_moved_addresses", "Station moves."),
    "aged": ("umlab_switch_aged_addresses", "Addresses forgotten for age."),
    "learn_refused": (
        "umlab_switch_refused_addresses",
        "Frames whose source was not learnt because the FDB was full.",
    ),
    "unknown_sender": (
        "umlab_switch_unknown_sender_frames",
        "Frames on the shared v0 socket from an address that never attached.",
    ),
    "refused_sessions": ("umlab_switch_refused_sessions", "Requests for a port that came to nothing."),
    "lldp_malformed": ("umlab_switch_malformed_lldp_frames", "LLDP frames with something malformed in them."),
    "lldp_refused": (
        "umlab_switch_refused_lldp_frames",
        "LLDP frames that came too fast, or from one neighbour too many.",
    ),
}


class LabCollector(Collector):
    """Everything that a lab counts, as Prometheus' metric families.

    Args:
        service: The lab.
        counts: How requests were answered.
        listeners: Listeners to the lab's events.
        terminals: Viewers of terminals.
    """

    def __init__(
        self, service: LabService, counts: RequestCounts, listeners: Limit, terminals: Limit
    ) -> None:
        self._service = service
        self._counts = counts
        self._listeners = listeners
        self._terminals = terminals
        self._began = time.monotonic()

    def collect(self) -> Iterator[Metric]:
        """Yield every family."""
        yield from self._daemon()
        yield from self._requests()
        yield from self._guests()
        yield from self._switches()
        yield from self._ports()

    async def exposition(self) -> bytes:
        """Return everything in the text format, letting others run between two families."""
        parts = []
        for family in self.collect():
            parts.append(generate_latest(_One(family)))
            await asyncio.sleep(0)
        return b"".join(parts)

    def _daemon(self) -> Iterator[Metric]:
        lab = self._service.lab()
        labels = {"lab": lab.name, "version": lab.version}
        yield InfoMetricFamily("umlab_build", "What runs here.", value=labels)
        yield _gauge("umlab_uptime_seconds", "Age of this daemon.", time.monotonic() - self._began)
        yield _gauge("umlab_resident_memory_bytes", "Memory of this daemon.", _resident_memory())
        yield _gauge(
            "umlab_open_descriptors", "Descriptors of this daemon.", len(os.listdir("/proc/self/fd"))
        )
        yield _gauge("umlab_event_listeners", "Listeners to the lab's events.", self._listeners.taken)
        yield _gauge("umlab_terminal_viewers", "Viewers of terminals.", self._terminals.taken)
        count = self._service.events.next_number - 1
        yield CounterMetricFamily("umlab_events", "Events since this daemon began.", value=count)

    def _requests(self) -> Iterator[Metric]:
        requests = CounterMetricFamily(
            "umlab_api_requests", "Requests answered, by method and HTTP status.", labels=("method", "status")
        )
        for (method, status), count in sorted(self._counts.by_status.items()):
            requests.add_metric((method, str(status)), count)
        yield requests
        errors = CounterMetricFamily("umlab_api_errors", "Errors answered, by class.", labels=("class",))
        for name, count in self._counts.by_error.items():
            errors.add_metric((name,), count)
        yield errors

    def _guests(self) -> Iterator[Metric]:
        states = Counter(guest.state for guest in self._service.guests())
        guests = GaugeMetricFamily("umlab_guests", "Guests, by state.", labels=("state",))
        for state in _GUEST_STATES:
            guests.add_metric((state,), states[state])
        yield guests

    def _switches(self) -> Iterator[Metric]:
        views = self._service.switches()
        yield _gauge("umlab_switches", "Switches of the lab.", len(views))
        engines = InfoMetricFamily("umlab_switch", "What moves a switch's frames.", labels=("switch",))
        for view in views:
            engines.add_metric((view.name,), {"engine": view.engine})
        yield engines
        for what, text, attribute in (
            ("umlab_switch_ports", "Ports of a switch.", "ports"),
            ("umlab_switch_fdb_entries", "Addresses that a switch knows.", "fdb_entries"),
        ):
            gauge = GaugeMetricFamily(what, text, labels=("switch",))
            for view in views:
                gauge.add_metric((view.name,), getattr(view, attribute))
            yield gauge
        capacity = GaugeMetricFamily(
            "umlab_switch_fdb_capacity", "Addresses that a switch may know.", labels=("switch",)
        )
        for view in views:
            capacity.add_metric((view.name,), view.config.fdb_capacity)
        yield capacity
        for name, (metric, text) in _SWITCH_COUNTERS.items():
            counter = CounterMetricFamily(metric, text, labels=("switch",))
            for view in views:
                counter.add_metric((view.name,), view.counters.get(name, 0))
            yield counter

    def _ports(self) -> Iterator[Metric]:
        ports: list[tuple[tuple[str, str, str], PortView]] = []
        for switch in self._service.switches():
            for port in self._service.ports(switch.name):
                ports.append(((switch.name, str(port.port_no), port.kind), port))
        labels = ("switch", "port_no", "kind")
        queued = GaugeMetricFamily(
            "umlab_port_queued_frames", "Frames that wait for the guest.", labels=labels
        )
        up = GaugeMetricFamily(
            "umlab_port_up", "1, or 0 once the guest's end of the data path is gone.", labels=labels
        )
        for key, port in ports:
            queued.add_metric(key, port.queued)
            up.add_metric(key, port.state == "up")
        yield queued
        yield up
        for name, (metric, text) in _PORT_COUNTERS.items():
            counter = CounterMetricFamily(metric, text, labels=labels)
            for key, port in ports:
                counter.add_metric(key, port.counters.get(name, 0))
            yield counter
        # Only what has happened: most reasons never do, and there are six for each port.
        drops = CounterMetricFamily(
            "umlab_port_dropped_frames", "Frames dropped, by reason.", labels=(*labels, "reason")
        )
        for key, port in ports:
            for name, count in port.counters.items():
                if count and name.startswith(_DROP):
                    drops.add_metric((*key, name.removeprefix(_DROP)), count)
        yield drops
        sizes = CounterMetricFamily(
            "umlab_port_frames_by_size",
            "Frames, by direction and bytes.",
            labels=(*labels, "direction", "bytes"),
        )
        for key, port in ports:
            for direction, kind in (("received", "rx"), ("transmitted", "tx")):
                for name in SIZE_NAMES:
                    if frames := port.counters.get(f"{kind}_size_{name}"):
                        sizes.add_metric((*key, direction, name.replace("_", "-")), frames)
        yield sizes


class _One(Collector):
    def __init__(self, family: Metric) -> None:
        self._family = family

    def collect(self) -> Iterator[Metric]:
        yield self._family


def _gauge(name: str, text: str, value: float) -> GaugeMetricFamily:
    gauge: Any = GaugeMetricFamily(name, text, value=value)
    return gauge  # type: ignore[no-any-return]


def _resident_memory() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * _PAGE_SIZE
