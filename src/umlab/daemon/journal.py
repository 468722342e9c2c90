"""What a daemon writes down at its keeper, so that the next one goes on where it was killed.

Under names of their own the keeper holds, each with descriptors:

* ``switch/NAME``: what the switch is told to be, its listeners' sockets, and where ports or mirror
  sessions have settings, a file in memory with those;
* ``port/NAME/NUMBER``: a session's descriptors, its peer and what its transport noted;
* ``fdb/NAME``: a file in memory with the addresses that the switch knew;
* ``guest/NAME``: see :mod:`umlab.daemon.guest_set`;
* ``hook/NAME`` and ``hook-run/PID``: see :mod:`umlab.daemon.hook`.
"""

from __future__ import annotations

import json
import logging
import os
import struct
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import asdict

from umlab._boot import Boot
from umlab.daemon.port_setting import Form, config_from_form, config_to_form
from umlab.daemon.spec import DEFAULT_RECORDER, SwitchSpec
from umlab.daemon.switch import KeptSwitch
from umlab.errors import LabError
from umlab.keeper.link import KeeperLink, Thing
from umlab.keeper.message import Message, close_all
from umlab.switch.fdb import FdbEntry
from umlab.transports.contract import PRIVATE, Access, KeptSession, Listener, Peer, Session

_log = logging.getLogger(__name__)

#: What a record of another version may raise.
UNUSABLE = (LookupError, TypeError, ValueError, AttributeError, struct.error)
#: Addresses that are written down, the last seen ones: a guest may invent any number of them.
MAX_FDB = 16_384
#: mac 6 bytes, port_no u32, last_seen_ns i64, vid u16.
_ENTRY = struct.Struct("=6sIqH")
#: Bytes of the settings of all ports of a switch: more than a request to change them has.
_MAX_SETTINGS = 1 << 20
#: What is not written into the record itself, which may have 128 KiB.
_IN_FILE = ("ports", "mirrors")


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
            LabError: These are more sockets or settings than can be kept.
        """
        named = [listener.descriptors() for listener in listeners]
        config = config_to_form(spec.config)
        settings = {key: value for key in _IN_FILE if (value := config.pop(key))}
        meta = {
            "config": config,
            "settings": bool(settings),
            "listen": spec.listen,
            "access": asdict(spec.access),
            "recorder": spec.recorder,
            "lldp": spec.lldp,
            "sockets": [list(each) for each in named],
        }
        fds = [fd for each in named for fd in each.values()]
        with ExitStack() as until_kept:
            if settings:
                file = self._settings_file(settings)
                until_kept.callback(os.close, file)
                fds.append(file)
            self._keeper.put(f"switch/{self._name}", meta, fds)

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
        kept = entries[-MAX_FDB:]
        packed = (_ENTRY.pack(each.mac, each.port_no, each.last_seen_ns, each.vid) for each in kept)
        try:
            file = _memory_file("umlab-fdb", b"".join(packed))
        except OSError as error:
            _log.warning("switch %s: its addresses are not written down: %s", self._name, error.strerror)
            return
        self._fdb = list(entries)
        try:
            self._keeper.put(f"fdb/{self._name}", {"entry_size": _ENTRY.size}, [file])
        finally:
            os.close(file)

    def _settings_file(self, settings: Form) -> int:
        data = json.dumps(settings, separators=(",", ":")).encode()
        if len(data) > _MAX_SETTINGS:
            raise LabError(f"switch {self._name}: the settings of its ports have over {_MAX_SETTINGS} bytes")
        try:
            return _memory_file("umlab-settings", data)
        except OSError as error:
            text = f"switch {self._name}: its settings cannot be written down: {error.strerror}"
            raise LabError(text) from None

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
    fds = list(thing.fds)
    listeners = [{socket: fds.pop(0) for socket in sockets} for sockets in meta["sockets"]]
    config = dict(meta["config"])
    if meta.get("settings"):
        file = fds.pop(0)
        config = config | json.loads(os.pread(file, _MAX_SETTINGS, 0))
    if fds or len(listeners) != len(meta["listen"]):
        raise ValueError("other sockets than places to listen")
    spec = SwitchSpec(
        name,
        config_from_form(config),
        tuple(meta["listen"]),
        _access(meta),
        # An earlier version has not written it down.
        meta.get("recorder", DEFAULT_RECORDER),
        meta.get("lldp", False),
    )
    if meta.get("settings"):
        os.close(file)
    return spec, listeners


def _memory_file(name: str, data: bytes) -> int:
    """Return a new file in memory.  Raises OSError."""
    file = os.memfd_create(name, os.MFD_CLOEXEC)
    try:
        # A single write may take a part, and the next one has the error.
        with open(file, "wb", closefd=False) as stream:
            stream.write(data)
    except OSError:
        os.close(file)
        raise
    return file


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
        if thing.meta["entry_size"] != _ENTRY.size:
            raise ValueError("another version wrote them down")
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
