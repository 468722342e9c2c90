"""Record what the C ``uml_mconsole`` does with every case, against a real guest.

Run: ``python tests/integration/recorded/uml_mconsole/record.py``.  Writes recordings.json beside this
file: for each case the outcome, and the guest's answer to each request, so that ours can be compared
later without a guest.  Bytes are stored as Latin-1 text.
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parents[2]))

from integration.peers.minimal_guest import MinimalGuest, minimal_guest  # noqa: E402
from support.answering_guest import answering_guest  # noqa: E402
from support.mconsole_cases import CASES, Case, Place  # noqa: E402
from support.require import require_program  # noqa: E402
from umlab.mconsole.endpoint import open_console  # noqa: E402
from umlab.wire.mconsole import parse_reply, serialize_request  # noqa: E402


def record(case: Case, guest: MinimalGuest | None, root: Path) -> dict[str, object]:
    """Make one call of the original and return its recording."""
    exchanges: list[dict[str, object]] = []

    def relay(text: bytes) -> list[bytes]:
        replies: list[bytes] = []
        if guest is not None:
            sock = open_console(str(guest.socket), guest.umid, "")
            sock.settimeout(20)
            sock.send(serialize_request(text))
            while not replies or parse_reply(replies[-1]).more:
                replies.append(sock.recv(4096))
            sock.close()
        general = text.replace(bytes(root), b"{root}").decode("latin-1")
        shown = [reply.replace(bytes(root), b"{root}").decode("latin-1") for reply in replies]
        exchanges.append({"request": general, "replies": shown})
        return replies

    place = Place(root)
    with answering_guest(place.socket, relay):
        outcome = place.run([str(require_program("uml_mconsole"))], case)
    return {
        "stdout": outcome.stdout.decode("latin-1"),
        "stderr": outcome.stderr.decode("latin-1"),
        "status": outcome.status,
        "signalled": outcome.signalled,
        "exchanges": exchanges,
    }


def main() -> None:
    """Record all cases: one guest for all, a new one for each that ends or restarts it."""
    recordings = {}
    root = Path(tempfile.mkdtemp(prefix="uml"))
    try:
        with minimal_guest("r1", "quiet") as shared:
            for case in CASES:
                if case.destructive:
                    continue
                recordings[case.name] = record(case, None if case.silent else shared, root)
                # The disk files may be in use by the guest: the place is emptied, not its files changed.
                shutil.rmtree(root)
                root.mkdir()
        for case in CASES:
            if case.destructive:
                with minimal_guest("r2", "quiet") as guest:
                    recordings[case.name] = record(case, guest, root)
                shutil.rmtree(root)
                root.mkdir()
    finally:
        shutil.rmtree(root)
    text = json.dumps({case.name: recordings[case.name] for case in CASES}, indent=1)
    (HERE / "recordings.json").write_text(text + "\n")
    print(len(recordings), "cases")


if __name__ == "__main__":
    main()
