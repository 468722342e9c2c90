"""What a daemon writes down at its keeper, so that the next one goes on where it was killed.

Under names of their own the keeper holds, each with descriptors:

* ``switch/NAME``: what the switch is told to be, and its listeners' sockets;
* ``port/NAME/NUMBER``: a session's descriptors, its peer and what its transport noted;
* ``fdb/NAME``: a file in memory with the addresses that the switch knew;
* ``guest/NAME``: see :mod:`umlab.daemon.guest_set`.
"""

from __future__ import annotations

import logging
import os
import struct
from collections.abc import Iterable, Sequence
from dataclasses import asdict

from umlab._boot import Boot
from umlab.daemon.spec import SwitchSpec
from umlab.daemon.switch import KeptSwitch
from umlab.keeper.link import KeeperLink, Thing
from umlab.keeper.message import Message, close_all
from umlab.switch.fdb import FdbEntry
from umlab.switch.model import SwitchConfig
from umlab.transports.contract import PRIVATE, Access, KeptSession, Listener, Peer, Session

_log = logging.getLogger(__name__)

#: What a record of another version may raise.
UNUSABLE = (LookupError, TypeError, ValueError, struct.error)
#: Addresses that are written down, the last seen ones: a guest may invent any number of them.
MAX_FDB = 16_384
#: mac 6 bytes, port_no u32, last_seen_ns i64.
_ENTRY = struct.Struct("=6sIq")


class SwitchJournal:
    """What is written down of one switch; see :class:`umlab.daemon.switch.Journal`.

    Args:
        keeper: Who holds it.
        name: The switch.
    """

    def __init__(self, keeper: KeeperLink, name: str) -> None:
        self._keeper = keeper
        self._name = name
        self._fdb: list[FdbEntry] | None = None

    def switch(self, spec: SwitchSpec, listeners: Sequence[Listener]) -> None:
        """Keep what the switch is told to be and where it listens.

        Raises:
            LabError: These are more sockets than can be kept.
        """
        named = [listener.descriptors() for listener in listeners]
        self._keeper.put(
            f"switch/{self._name}",
            {
                "config": asdict(spec.config),
                "listen": spec.listen,
                "access": asdict(spec.access),
                "sockets": [list(each) for each in named],
            },
            [fd for each in named for fd in each.values()],
        )

    def attached(self, port_no: int, listener: int, session: Session) -> None:
        """Keep a port's descriptors."""
        meta = {
            "listener": listener,
            "peer": _peer_record(session.peer),
            "detail": session.detail,
            "state": dict(session.state),
        }
        self._keeper.put(f"port/{self._name}/{port_no}", meta, (session.link.fd, *session.fds))

    def detached(self, port_no: int) -> None:
        """Keep a port's descriptors no more."""
        self._keeper.drop(f"port/{self._name}/{port_no}")

    def fdb(self, entries: Sequence[FdbEntry]) -> None:
        """Keep the addresses that the switch knows, in place of those of the last call."""
        if entries == self._fdb:
            return
        try:
            file = os.memfd_create("umlab-fdb", os.MFD_CLOEXEC)
        except OSError as error:
            _log.warning("switch %s: its addresses are not written down: %s", self._name, error.strerror)
            return
        self._fdb = list(entries)
        try:
            kept = entries[-MAX_FDB:]
            os.write(file, b"".join(_ENTRY.pack(each.mac, each.port_no, each.last_seen_ns) for each in kept))
            self._keeper.put(f"fdb/{self._name}", {}, [file])
        finally:
            os.close(file)

    def remove(self, ports: Iterable[int]) -> None:
        """Keep nothing of the switch any more."""
        for port_no in ports:
            self.detached(port_no)
        self._keeper.drop(f"fdb/{self._name}")
        self._keeper.drop(f"switch/{self._name}")


def kept_switches(keeper: KeeperLink) -> list[tuple[SwitchSpec, KeptSwitch]]:
    """Take the switches that an earlier daemon has left out of a keeper's things, descriptors and all.

    What cannot be understood stays among the things.
    """
    found = []
    for key in [key for key in keeper.things if key.startswith("switch/")]:
        name = key.removeprefix("switch/")
        try:
            spec, listeners = _kept_spec(name, keeper.things[key])
        except UNUSABLE as error:
            _log.error("switch %s cannot be taken over and is ended: %r", name, error)
            continue
        del keeper.things[key]
        found.append((spec, KeptSwitch(listeners, _kept_sessions(keeper, name), _kept_fdb(keeper, name))))
    return found


def _kept_spec(name: str, thing: Thing) -> tuple[SwitchSpec, list[dict[str, int]]]:
    meta = thing.meta
    spec = SwitchSpec(name, SwitchConfig(**meta["config"]), tuple(meta["listen"]), _access(meta))
    fds = list(thing.fds)
    listeners = [{socket: fds.pop(0) for socket in sockets} for sockets in meta["sockets"]]
    if fds or len(listeners) != len(spec.listen):
        raise ValueError("other sockets than places to listen")
    return spec, listeners


def _access(meta: Message) -> Access:
    access = meta.get("access")
    if access is None:
        # An earlier version has not written it down.
        return PRIVATE
    return Access(access["mode"], access["gid"], tuple(access["uids"]), tuple(access["gids"]))


def _kept_sessions(keeper: KeeperLink, name: str) -> list[tuple[int, int, KeptSession]]:
    prefix = f"port/{name}/"
    sessions = []
    for key in [key for key in keeper.things if key.startswith(prefix)]:
        thing = keeper.things[key]
        meta = thing.meta
        try:
            session = KeptSession(_peer(meta["peer"]), meta["detail"], meta["state"], thing.fds)
            sessions.append((int(key.removeprefix(prefix)), int(meta["listener"]), session))
        except UNUSABLE as error:
            _log.error("%s cannot be taken over and is ended: %r", key, error)
            continue
        del keeper.things[key]
    return sorted(sessions, key=lambda session: session[0])


def _kept_fdb(keeper: KeeperLink, name: str) -> list[FdbEntry]:
    thing: Thing | None = keeper.things.pop(f"fdb/{name}", None)
    if thing is None:
        return []
    try:
        data = os.pread(thing.fds[0], MAX_FDB * _ENTRY.size, 0)
        return [FdbEntry(*fields) for fields in _ENTRY.iter_unpack(data)]
    except (OSError, *UNUSABLE) as error:
        _log.warning("switch %s has to learn its addresses anew: %r", name, error)
        return []
    finally:
        close_all(thing.fds)


def _peer_record(peer: Peer | None) -> Message | None:
    if peer is None:
        return None
    return asdict(peer) | {"boot": peer.boot}


def _peer(record: Message | None) -> Peer | None:
    if record is None:
        return None
    boot = record["boot"]
    groups = tuple(record.get("groups", ()))
    return Peer(record["pid"], record["uid"], record["gid"], None if boot is None else Boot(*boot), groups)
