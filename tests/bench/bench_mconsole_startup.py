"""Start-up of ``uml_mconsole NAME version`` against that of the bare interpreter.

Run: ``python tests/bench/bench_mconsole_startup.py [ROUNDS]``.  The three commands take turns, so that a
busy machine slows all of them; medians are compared.  The target is 3 times ``python -c pass``.
"""

from __future__ import annotations

import _socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from umlab.wire.mconsole import ReplyFragment, serialize_reply

SCRIPT = Path(sys.executable).with_name("uml_mconsole")


def _answer(sock: _socket.socket) -> None:
    reply = serialize_reply(ReplyFragment(0, False, b"Linux (none) 6.1.0 #1 x86_64"))
    while True:
        request, sender = sock.recvfrom(1024)
        if not request:
            return
        sock.sendto(reply, sender)


def main() -> None:
    """Measure and print the medians and their ratios."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 40
    with tempfile.TemporaryDirectory(prefix="uml") as folder:
        path = f"{folder}/mconsole"
        guest = _socket.socket(_socket.AF_UNIX, _socket.SOCK_DGRAM)
        guest.bind(path)
        thread = threading.Thread(target=_answer, args=(guest,))
        thread.start()
        commands = {
            "python -c pass": [sys.executable, "-c", "pass"],
            "uml_mconsole NAME version": [str(SCRIPT), path, "version"],
        }
        times: dict[str, list[float]] = {name: [] for name in commands}
        for _ in range(rounds):
            for name, command in commands.items():
                begin = time.perf_counter()
                subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
                times[name].append(time.perf_counter() - begin)
        stopper = _socket.socket(_socket.AF_UNIX, _socket.SOCK_DGRAM)
        stopper.sendto(b"", path)
        thread.join()
        stopper.close()
        guest.close()
    base = statistics.median(times["python -c pass"])
    for name, values in times.items():
        median = statistics.median(values)
        best = min(values)
        print(f"{name:28} median {median * 1000:6.1f} ms  best {best * 1000:6.1f} ms  x{median / base:.2f}")


if __name__ == "__main__":
    main()
