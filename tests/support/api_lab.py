"""The API of a fake lab, served on a unix socket."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from support.fake_lab import FakeLab
from support.unix_http import Answer, request
from umlab.api.app import create_app
from umlab.api.server import ApiServer

#: A switch and a guest, as requests describe them.
SWITCH = {"config": {}, "listen": ["daemon:/run/umlab/lan.ctl"]}
GUEST = {"nics": [{"control_path": "/run/umlab/lan.ctl"}]}


@dataclass
class ApiLab:
    """A served lab.

    Attributes:
        lab: What is served.
        path: The socket.
        server: Who serves it.
        stops: How it was asked to end, by each request that did.
    """

    lab: FakeLab
    path: Path
    server: ApiServer
    stops: list[str]

    async def call(self, method: str, target: str, body: Any = None, **headers: str) -> Answer:
        """Send a request; underscores in names of headers stand for hyphens."""
        return await request(
            self.path, method, target, body, {key.replace("_", "-"): value for key, value in headers.items()}
        )


@contextlib.asynccontextmanager
async def serve(directory: Path) -> AsyncIterator[ApiLab]:
    """Serve a lab with the switch ``lan``, two ports on it, and the guest ``left``."""
    lab, path = FakeLab(), directory / "api.sock"
    stops: list[str] = []
    sock = socket.socket(socket.AF_UNIX)
    sock.bind(str(path))
    server = ApiServer(create_app(lab, stops.append), sock)
    served = ApiLab(lab, path, server, stops)
    await server.start()
    try:
        assert (await served.call("PUT", "/v1/switches/lan", SWITCH)).status == 200
        assert (await served.call("PUT", "/v1/guests/left", GUEST)).status == 200
        served.lab.add_port("lan", 1, "left")
        served.lab.add_port("lan", 2)
        yield served
    finally:
        served.lab.close()
        await server.stop()
