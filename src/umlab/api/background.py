"""Starting a daemon in the background, and ending what a daemon that died has left."""

from __future__ import annotations

import asyncio
import json
import os
import select
import subprocess
import sys
from typing import IO

from umlab.daemon.claim import Claim
from umlab.daemon.order import LabOrder, order_to_json
from umlab.daemon.place import API_SOCKET, KEEPER_SOCKET, runtime_base, runtime_directory, state_directory
from umlab.errors import LabError

#: Seconds for a daemon to be ready; each guest that it starts adds to them.
_TIMEOUT, _TIMEOUT_PER_GUEST = 60.0, 5.0
#: Bytes at which a daemon's log is begun anew.
_LOG_LIMIT = 1 << 20


def start_in_background(order: LabOrder) -> None:
    """Start a lab's daemon and return when it is ready: its switches serve, its guests have been started.

    Raises:
        LabError: It cannot be started; its text says why.
    """
    runtime_directory(order.name)
    path = state_directory(order.name) / "daemon.log"
    reader, writer = os.pipe2(os.O_CLOEXEC)
    try:
        mode = "wb" if path.exists() and path.stat().st_size > _LOG_LIMIT else "ab"
        with open(path, mode) as log:
            _launch(order, log, writer)
    except (OSError, subprocess.SubprocessError) as error:
        os.close(reader)
        raise LabError(f"the daemon of {order.name} cannot be started: {error}") from None
    finally:
        os.close(writer)
    with open(reader, "rb") as answers:
        timeout = _TIMEOUT + _TIMEOUT_PER_GUEST * len(order.guests)
        text = answers.read() if select.select([answers], [], [], timeout)[0] else b""
    if not text:
        raise LabError(f"the daemon of {order.name} did not become ready; see {path}")
    if why := json.loads(text)["error"]:
        raise LabError(why)


def _launch(order: LabOrder, log: IO[bytes], ready: int) -> None:
    subprocess.run(
        [sys.executable, "-m", "umlab.api.run", order.name, str(ready)],
        input=order_to_json(order),
        stdout=log,
        stderr=log,
        cwd="/",
        pass_fds=(ready,),
        start_new_session=True,
        timeout=_TIMEOUT,
        check=True,
    )


def stop_kept(lab: str) -> bool:
    """End what a daemon that died has left at its keeper; say whether there was something.

    Raises:
        LabInUse: The daemon has not died.
        LabError: The keeper does not answer.
    """
    if not (runtime_base() / lab / KEEPER_SOCKET).exists():
        return False
    asyncio.run(_stop_kept(lab))
    return True


async def _stop_kept(lab: str) -> None:
    # Here, because a start, which should take little time, does without.
    from umlab.daemon.lab import LabService

    runtime, state = runtime_directory(lab), state_directory(lab)
    claim = Claim(lab, runtime)
    try:
        service = LabService(lab, runtime, state, await claim.keeper(state / "keeper.log"))
        await service.resume()
        await service.stop()
        (runtime / API_SOCKET).unlink(missing_ok=True)
    finally:
        claim.remove()
