"""A session of the ``requests`` library whose requests all go to one unix socket."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import Any

import requests
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection
from urllib3.connectionpool import HTTPConnectionPool

from support.deadline import scaled


class _Connection(HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("umlab")
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(scaled(20))
        self.sock.connect(os.fspath(self._path))


class _Pool(HTTPConnectionPool):
    def __init__(self, path: Path) -> None:
        super().__init__("umlab")
        self._path = path

    def _new_conn(self) -> Any:
        return _Connection(self._path)


class _Adapter(HTTPAdapter):
    def __init__(self, path: Path) -> None:
        self._pool = _Pool(path)
        super().__init__()

    def get_connection_with_tls_context(self, *_: Any, **__: Any) -> Any:
        return self._pool

    def close(self) -> None:
        self._pool.close()
        super().close()


def unix_session(path: Path) -> requests.Session:
    """Return a session; close it."""
    session = requests.Session()
    session.trust_env = False
    # No connection outlives its request.
    session.headers["connection"] = "close"
    session.mount("http://", _Adapter(path))
    return session
