"""A VDE switch for clients of libvdeplug: a directory with a control socket, and a data socket for each.

A client asks at ``DIR/ctl`` for a port and is told ``DIR/NNN.FD``, where NNN is the port's number.  That
socket is connected to the client's before the client hears of it: libvdeplug removes its own socket's file
as soon as it has the reply.  UML's ``daemon`` transport works with ``DIR/ctl`` as well.

Source: VDE 2, exchanges with vde_switch 2.3.2 and libvdeplug 4.0.1.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import socket
import stat
from collections.abc import Mapping

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
from umlab.transports.socketfile import (
    SocketFile,
    check_socket_path,
    file_identity,
    grant,
    remove_file,
    remove_stale,
    take_socket,
)
from umlab.wire.daemon import MAX_DESCRIPTION, serialize_attach_reply
from umlab.wire.sockaddr import pad_path
from umlab.wire.text import printable_line
from umlab.wire.vde import MAX_VDE_REQUEST, parse_vde_request

#: The file name that needs the most bytes: the highest port, and the highest descriptor that Linux allows
#: or as many random digits.
_LONGEST_NAME = "65535.2147483584"


class VdeListener:
    """A directory in which VDE clients find a switch.

    Args:
        directory: It; made where it is not there.
        access: Who may attach.

    Raises:
        TransportError: Its path is too long for the sockets in it.
    """

    kind = "vde"

    def __init__(self, directory: str | os.PathLike[str], access: Access = PRIVATE) -> None:
        self.where = os.fspath(directory)
        # Clients have other directories than we.
        self._directory = os.path.abspath(self.where)
        check_socket_path(os.path.join(self._directory, _LONGEST_NAME))
        self.arguments = (
            Argument("vde_plug", f"vde://{self._directory}"),
            Argument("uml", f"eth0=vde,{self._directory}", "vde"),
            Argument("uml", f"vec0:transport=vde,vnl=vde://{self._directory}", "vec-vde"),
            Argument("qemu", f"-netdev vde,id=n0,sock={self._directory} -device virtio-net-pci,netdev=n0"),
        )
        self._access = access
        self._file: SocketFile | None = None
        self._control: ControlSocket | None = None

    async def start(self, sink: SessionSink, kept: Mapping[str, int] | None = None) -> None:
        """Make the directory and begin to accept; see :class:`umlab.transports.contract.Listener`."""
        made = kept is None and _take_directory(self._directory, self._access)
        path = os.path.join(self._directory, "ctl")
        try:
            self._file = take_socket(path, socket.SOCK_STREAM, kept, "control", self._access)
            if kept is None:
                # Only now it is certain that no other switch serves it.
                self._open_directory()
        except BaseException:
            await self.close()
            if made:
                _remove_directory(self._directory)
            raise
        self._control = ControlSocket(self.kind, self._file, sink, MAX_VDE_REQUEST, self._attach)

    async def close(self) -> None:
        """Accept no more, end every session without reporting it, remove the sockets and the directory."""
        if self._control is not None:
            self._control.close()
            self._control = None
        if self._file is not None:
            self._file.close()
            self._file = None
            _remove_dead_sockets(self._directory)
            _remove_directory(self._directory)

    def descriptors(self) -> dict[str, int]:
        """Return the control socket."""
        return {} if self._file is None else {"control": self._file.socket.fileno()}

    def resume(self, kept: KeptSession) -> Session:
        """Go on with a client's data socket and its control connection.

        Raises:
            OSError: The data socket is not connected any more.
            ValueError: It has no name in this directory, so that its client never heard of it.
        """
        link_fd, control_fd = kept.fds
        path = _bound_path(link_fd)
        if os.path.dirname(path) != self._directory:
            raise ValueError(f"{path!r} is not in {self._directory}")
        check_connected(link_fd)
        assert self._control is not None

        def go_on(connection: ControlConnection) -> Session:
            _remove_at_end(connection, path)
            return self._session(connection, link_fd, kept.detail, None)

        # Its request is gone, but for a description that comes late.
        return self._control.resume(control_fd, kept.peer, MAX_DESCRIPTION, go_on)

    def _attach(self, connection: ControlConnection, received: bytes) -> Attachment:
        request = parse_vde_request(received)
        data = open_data_socket(request.path, connection.peer.uid)
        detail = printable_line(request.description) or f"v{request.version}"
        session = self._session(connection, data.fileno(), detail, request.port_no)
        return Attachment(
            data, session, MAX_VDE_REQUEST, lambda port_no: self._reply(connection, data, port_no)
        )

    def _session(
        self, connection: ControlConnection, data_fd: int, detail: str, wanted_port_no: int | None
    ) -> Session:
        return Session(
            self.kind,
            Link(data_fd, Framing.DATAGRAM),
            connection.peer,
            detail,
            connection.close,
            (connection.fileno(),),
            wanted_port_no=wanted_port_no,
        )

    def _reply(self, connection: ControlConnection, data: socket.socket, port_no: int) -> bytes:
        """Give a client's data socket its name, and return the reply that tells it."""
        path = os.path.join(self._directory, f"{port_no:03d}.{data.fileno()}")
        try:
            try:
                # What is there was the port's of an earlier process.
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(path)
                data.bind(path)
            except FileNotFoundError:
                # The directory has vanished.
                raise
            except OSError:
                # Somebody who may write to the directory has put something else there, such as a folder.
                path = os.path.join(self._directory, f"{port_no:03d}-{os.urandom(5).hex()}")
                data.bind(path)
            _remove_at_end(connection, path)
            # Whoever may ask for a port may use it: beyond that the socket takes frames of its client only.
            grant(path, self._access)
        except OSError as error:
            raise TransportError(f"cannot bind the data socket {path}: {error.strerror}") from None
        return serialize_attach_reply(pad_path(path))

    def _open_directory(self) -> None:
        """Remove what a dead switch has left, and let in those who may."""
        _remove_dead_sockets(self._directory)
        try:
            grant(self._directory, _of_directory(self._access))
        except OSError as error:
            raise TransportError(f"cannot open {self._directory} to others: {error.strerror}") from None


def _of_directory(access: Access) -> Access:
    """Return the access to a directory: it can be entered by those who may read or write."""
    if access.mode is None:
        return access
    may_enter = (access.mode >> 1 | access.mode >> 2) & 0o111
    return dataclasses.replace(access, mode=access.mode | may_enter)


def _take_directory(path: str, access: Access) -> bool:
    """Make a directory, unless there is one that may be a switch's; return whether it was made.

    Raises:
        TransportError: It cannot be made, or what is there is something else.
    """
    try:
        try:
            os.mkdir(path, 0o777 if access.mode is None else 0o700)
            return True
        except FileExistsError:
            status = os.lstat(path)
        if not stat.S_ISDIR(status.st_mode):
            raise TransportError(
                f"{path} is there already and is no directory; remove it or take another path"
            )
        if status.st_uid != os.geteuid():
            raise TransportError(f"the directory {path} belongs to another user; take another path")
        others_write = bool(status.st_mode & 0o022)
        with os.scandir(path) as entries:
            for entry in entries:
                found = entry.stat(follow_symlinks=False)
                if others_write and found.st_uid != status.st_uid:
                    # Nobody keeps us from starting by what he puts there.
                    continue
                if not stat.S_ISSOCK(found.st_mode):
                    # It would be given other permissions, and be removed at the end.
                    raise TransportError(
                        f"the directory {path} has other things than sockets in it, such as "
                        f"{entry.name[:40]!r}; take another path"
                    )
        return False
    except OSError as error:
        raise TransportError(f"cannot make the directory {path}: {error.strerror}") from None


def _remove_directory(path: str) -> None:
    """Remove a directory, unless something is in it, such as the own socket of a client that lives on."""
    with contextlib.suppress(OSError):
        os.rmdir(path)


def _remove_dead_sockets(directory: str) -> None:
    """Remove sockets that nobody serves: a dead switch's, and those of clients that were killed."""
    with contextlib.suppress(OSError), os.scandir(directory) as entries:
        for entry in entries:
            with contextlib.suppress(TransportError):
                remove_stale(entry.path, socket.SOCK_DGRAM)


def _remove_at_end(connection: ControlConnection, path: str) -> None:
    identity = file_identity(path)
    connection.at_end = lambda: remove_file(path, identity)


def _bound_path(fd: int) -> str:
    """Return the path that a socket is bound to.

    Raises:
        OSError: It is no socket.
        ValueError: It has no path.
    """
    sock = socket.socket(fileno=fd)
    try:
        name = sock.getsockname()
    finally:
        sock.detach()
    if not name or not isinstance(name, str):
        raise ValueError("the data socket has no path")
    return name


TRANSPORT = Transport(
    "vde",
    "vde:DIRECTORY",
    VdeListener,
    resolve=lambda place, absolute: absolute(place),
    default="{}.vde",
)
