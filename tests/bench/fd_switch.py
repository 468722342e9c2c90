"""The switch of ``bench_guests`` whose guests have one end each of a socket pair; it is given the others.

usage: fd_switch.py CONTROL MAX_FRAME FD...
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys

from umlab.daemon.switch import SwitchService
from umlab.switch.model import SwitchConfig
from umlab.transports.contract import Peer
from umlab.transports.daemon import DaemonListener


async def serve(control: str, max_frame: int, fds: list[int]) -> None:
    """Serve until SIGTERM comes."""
    ended = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ended.set)
    # Nobody attaches to the control socket: it says that the switch is there.
    switch = SwitchService("bench", SwitchConfig(max_frame=max_frame), [DaemonListener(control)])
    await switch.start()
    for fd in fds:
        switch.fd_listener.plug(
            socket.socket(fileno=fd), Peer(os.getppid(), os.geteuid(), os.getegid(), None), "bench"
        )
    await ended.wait()
    await switch.stop()


if __name__ == "__main__":
    asyncio.run(serve(sys.argv[1], int(sys.argv[2]), [int(fd) for fd in sys.argv[3:]]))
