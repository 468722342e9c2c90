"""UML's ``daemon`` transport: a control socket where guests ask for ports, a data socket for each.

The control connection is the lease: as long as it is open the guest has its port.  Each v1 and v3
guest gets a data socket of its own, connected to the guest's, so that only the guest can send to it
and a full guest can be waited for.  v0 has no reply that could name such a socket; all its guests
send to one socket at a path that they were told beforehand, and their addresses tell them apart.

A dump is attached in the same way and is a monitor: it is sent every frame, and whatever it sends stays
unread.

Source: Linux arch/um/drivers/daemon_user.c.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from typing import Any

from umlab.errors import TransportError
from umlab.switch.model import Framing, Link
from umlab.transports.contract import (
    PRIVATE,
    Access,
    Argument,
    KeptSession,
    Session,
    SessionSink,
    Transport,
)
from umlab.transports.control import Attachment, ControlConnection, ControlSocket
from umlab.transports.datasocket import check_connected, open_data_socket
from umlab.transports.socketfile import SocketFile, take_socket
from umlab.wire import sockaddr
from umlab.wire.daemon import (
    MAX_ATTACH_REQUEST,
    PADDED_V3,
    parse_attach_request,
    serialize_attach_reply,
)

#: What a v3 guest may send behind its request.
_PADDING = 2
#: Our sockets, in the order of their paths.
_SOCKETS = (("control", socket.SOCK_STREAM), ("data", socket.SOCK_DGRAM))


class DaemonListener:
    """A control socket, and with ``data_path`` the v0 data socket beside it.

    Args:
        control_path: At most 107 bytes.
        data_path: Where v0 guests send; without it they are refused.
        control: The control socket where it is there already; belongs to the listener.
        access: Who may attach.
    """

    kind = "daemon"

    def __init__(
        self,
        control_path: str | os.PathLike[str],
        data_path: str | os.PathLike[str] | None = None,
        control: SocketFile | None = None,
        access: Access = PRIVATE,
    ) -> None:
        self._paths = [os.fspath(path) for path in (control_path, data_path) if path is not None]
        self.where = ",".join(self._paths)
        # A guest's directory is another one.
        guest = f"eth0=daemon,,unix,{','.join(map(os.path.abspath, self._paths))}"
        self.arguments = (Argument("uml", guest, "daemon"),)
        self._access = access
        self._files = [] if control is None else [control]
        self._control: ControlSocket | None = None

    @property
    def data_socket(self) -> socket.socket | None:
        """The data socket of v0 guests, if they are served."""
        return self._files[1].socket if len(self._files) > 1 else None

    async def start(self, sink: SessionSink, kept: Mapping[str, int] | None = None) -> None:
        """Bind and begin to accept; see :class:`umlab.transports.contract.Listener`."""
        try:
            for path, (name, kind) in list(zip(self._paths, _SOCKETS, strict=False))[len(self._files) :]:
                self._files.append(take_socket(path, kind, kept, name, self._access))
        except BaseException:
            for file in self._files if kept is not None else ():
                # Still the caller's.
                file.socket.detach()
            await self.close()
            raise
        self._control = ControlSocket(self.kind, self._files[0], sink, MAX_ATTACH_REQUEST, self._attach)

    async def close(self) -> None:
        """Accept no more, end every session without reporting it, remove the sockets."""
        if self._control is not None:
            self._control.close()
            self._control = None
        while self._files:
            self._files.pop().close()

    def descriptors(self) -> dict[str, int]:
        """Return the control socket, and the data socket of v0 guests where they are served."""
        return {name: file.socket.fileno() for (name, _), file in zip(_SOCKETS, self._files, strict=False)}

    def resume(self, kept: KeptSession) -> Session:
        """Go on with a guest's data socket and its control connection.

        Raises:
            OSError: The data socket is not connected any more.
            TransportError: The guest is of protocol v0, which is not served any more.
        """
        link_fd, control_fd = kept.fds
        address = bytes.fromhex(kept.state["address"]) if "address" in kept.state else None
        if address is not None and self.data_socket is None:
            raise TransportError("guests of protocol v0 are not served any more")
        if address is None:
            check_connected(link_fd)
        assert self._control is not None
        # What it sent as its request is gone; from now on every byte is one too many, but for the padding.
        return self._control.resume(
            control_fd,
            kept.peer,
            _PADDING,
            lambda connection: self._session(
                connection, link_fd, kept.detail, address, dump=bool(kept.state.get("dump"))
            ),
        )

    def _attach(self, connection: ControlConnection, received: bytes) -> Attachment:
        request = parse_attach_request(received, v0=self.data_socket is not None)
        if request.version == 0:
            name, address, reply = None, request.path, b""
        else:
            name = sockaddr.pad_path(b"\0umlab-" + os.urandom(16).hex().encode())
            address, reply = None, serialize_attach_reply(name)
        data = open_data_socket(request.path, connection.peer.uid, name)
        detail = "dump" if request.dump else f"v{request.version}"
        session = self._session(connection, data.fileno(), detail, address, dump=request.dump)
        # The two bytes of padding may come late; every other byte is one too many from here on.
        limit = max(len(received), PADDED_V3 if request.version == 3 else 0)
        return Attachment(data, session, limit, lambda _: reply)

    def _session(
        self, connection: ControlConnection, data_fd: int, detail: str, address: bytes | None, *, dump: bool
    ) -> Session:
        """Return a session; ``address`` is what tells a v0 guest on the socket that all such share."""
        link = Link(data_fd, Framing.DATAGRAM, monitor=dump)
        state: dict[str, Any] = {"dump": True} if dump else {}
        shared = self.data_socket
        if address is not None and shared is not None:
            link = Link(data_fd, Framing.DATAGRAM, shared.fileno(), address)
            state["address"] = address.hex()
        fds = (connection.fileno(),)
        return Session(self.kind, link, connection.peer, detail, connection.close, fds, state)


def _make(place: str, access: Access) -> DaemonListener:
    control, _, data = place.partition(",")
    return DaemonListener(control, data or None, access=access)


TRANSPORT = Transport(
    "daemon",
    "daemon:CTL[,DATA]",
    _make,
    resolve=lambda place, absolute: ",".join(absolute(path) for path in place.split(",", 1) if path),
    default="{}.ctl",
)
