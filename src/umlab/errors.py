"""Every exception that umlab raises on purpose.

::

    UmlabError
    ├── ProtocolError
    │   ├── LocalProtocolError          we were asked to send what the protocol cannot carry
    │   └── RemoteProtocolError         the peer broke the protocol
    │       ├── TruncatedMessage
    │       ├── BadMagic
    │       ├── UnsupportedVersion
    │       ├── UnsupportedType
    │       └── OversizeMessage
    ├── StateError                      a call that the object's state does not allow
    ├── TransportError                  a socket or device cannot be set up
    │   └── SocketInUse                 another process listens there
    ├── SwitchError
    │   ├── NoSuchSwitch
    │   └── NoSuchPort
    ├── CaptureError                    a capture's filter or file is not usable
    ├── MconsoleError                   the guest answered with an error
    │   ├── MconsoleTimeout             the guest did not answer
    │   ├── MconsoleUnreachable         there is no guest to ask
    │   └── MconsoleProtocolError       its answer makes no sense; a RemoteProtocolError as well
    └── LabError
        ├── LabFileError
        ├── LabFileErrors           several of them
        ├── PlanError
        ├── LabNotRunning           no daemon answers for a lab
        ├── LabInUse                a daemon runs for it already
        ├── LimitReached            a caller asks for more than it may have at a time
        │   └── GuestBusy           a guest has too many requests waiting
        ├── AlreadyExists           a thing of that name is there and is another one
        ├── NoSuchGuest
        ├── NoSuchConsole
        ├── NoSuchHook
        ├── GuestFailed
        ├── CommandTimeout          a command in a guest took too long
        └── ApiError                    a daemon's answer is not what was asked for
            ├── ApiTimeout              it did not come in time
            └── ConnectionLost          the daemon ended before it was complete

Each keeps its facts in attributes and forms its text in ``__str__``.  Anything else that escapes
from umlab is a bug.  This module imports nothing: the smallest programs load it.
"""

from __future__ import annotations


class UmlabError(Exception):
    """Root of all errors that umlab raises on purpose."""


class ProtocolError(UmlabError):
    """A message is not what its protocol allows."""


class LocalProtocolError(ProtocolError):
    """The caller asked for a message that the protocol cannot carry."""


class RemoteProtocolError(ProtocolError):
    """The peer sent bytes that the protocol does not allow."""


class TruncatedMessage(RemoteProtocolError):
    """A message ends before its last field.

    Attributes:
        needed: Bytes that the message has in total, as far as known from what arrived.
        got: Bytes that arrived.
    """

    def __init__(self, needed: int, got: int) -> None:
        super().__init__(needed, got)
        self.needed = needed
        self.got = got

    def __str__(self) -> str:
        return f"message is cut: {self.got} of {self.needed} bytes"


class BadMagic(RemoteProtocolError):
    """A message does not begin with its protocol's magic number."""

    def __init__(self, magic: int) -> None:
        super().__init__(magic)
        self.magic = magic

    def __str__(self) -> str:
        return f"bad magic {self.magic:#010x}"


class UnsupportedVersion(RemoteProtocolError):
    """A message has a version that we do not speak."""

    def __init__(self, version: int) -> None:
        super().__init__(version)
        self.version = version

    def __str__(self) -> str:
        return f"version {self.version} is not supported"


class UnsupportedType(RemoteProtocolError):
    """A request asks for something that the protocol does not have."""

    def __init__(self, request_type: int) -> None:
        super().__init__(request_type)
        self.request_type = request_type

    def __str__(self) -> str:
        return f"bad request type {self.request_type}"


class OversizeMessage(RemoteProtocolError):
    """A message is longer than its protocol allows."""

    def __init__(self, size: int, limit: int) -> None:
        super().__init__(size, limit)
        self.size = size
        self.limit = limit

    def __str__(self) -> str:
        return f"message of {self.size} bytes, the limit is {self.limit}"


class StateError(UmlabError):
    """A call that the object's present state does not allow."""


class TransportError(UmlabError):
    """A transport's socket or device cannot be set up."""


class SocketInUse(TransportError):
    """Another process serves the socket at a path."""

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self.path = path

    def __str__(self) -> str:
        return f"the socket {self.path} has another switch attached to it; end that one or take another path"


class SwitchError(UmlabError):
    """A switch cannot do what was asked."""


class NoSuchSwitch(SwitchError):
    """A name that no switch of the lab has."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name

    def __str__(self) -> str:
        return f"no switch {self.name}"


class NoSuchPort(SwitchError):
    """A port number to which nothing is attached."""

    def __init__(self, port_no: int) -> None:
        super().__init__(port_no)
        self.port_no = port_no

    def __str__(self) -> str:
        return f"no port {self.port_no}"


class CaptureError(UmlabError):
    """A capture cannot be had as it is asked for; the text says what is wrong with its filter or file."""


class MconsoleError(UmlabError):
    """A guest answered a console command with an error.

    Attributes:
        umid: The guest, as it was named by the caller.
        command: The command's text.
        output: What the guest said, may be empty.
        err: The guest's number for it: 1, or a negative errno.
    """

    def __init__(self, umid: str, command: str, output: str, err: int = 1) -> None:
        super().__init__(umid, command, output, err)
        self.umid = umid
        self.command = command
        self.output = output
        self.err = err

    def __str__(self) -> str:
        return f"guest {self.umid}: {self.command}: {self.output or 'failed without a reason'}"


class MconsoleTimeout(MconsoleError):
    """A guest did not answer a console command in time; ``output`` has what came until then."""

    def __str__(self) -> str:
        return f"guest {self.umid} did not answer '{self.command}' in time; it may be hung or stopped"


class MconsoleUnreachable(MconsoleError):
    """Nobody can be asked: ``output`` goes on from the guest's name, such as ``does not run: ...``.

    Attributes:
        said: What had come of the answer of a guest that ended meanwhile; ``None`` where it was not asked.
    """

    def __init__(self, umid: str, command: str, output: str, err: int = 1, said: str | None = None) -> None:
        super().__init__(umid, command, output, err)
        self.args = umid, command, output, err, said
        self.said = said

    @property
    def does_not_run(self) -> bool:
        """Whether that is why; else what is there, or this process, keeps it from being asked."""
        return not self.output.startswith("cannot be ")

    def __str__(self) -> str:
        return f"guest {self.umid} {self.output}"


class MconsoleProtocolError(MconsoleError, RemoteProtocolError):
    """A guest answered a console command with what makes no sense; ``output`` is the text as far as known.

    Attributes:
        reason: What is wrong with it.
    """

    def __init__(self, umid: str, command: str, output: str, reason: str, err: int = 1) -> None:
        super().__init__(umid, command, output, err)
        self.args = umid, command, output, reason, err
        self.reason = reason

    def __str__(self) -> str:
        return f"guest {self.umid}: {self.command}: the answer makes no sense: {self.reason}"


class LabError(UmlabError):
    """A lab cannot be read, planned or run."""


class LabFileError(LabError):
    """A lab file is wrong.

    Attributes:
        file: The file's path.
        line: The line, from 1.
        key: The key path, such as ``guests.left.nics[0].mac``; empty for the file as a whole.
        reason: What is wrong with it.
    """

    def __init__(self, file: str, line: int, key: str, reason: str) -> None:
        super().__init__(file, line, key, reason)
        self.file = file
        self.line = line
        self.key = key
        self.reason = reason

    def __str__(self) -> str:
        key = f"{self.key}: " if self.key else ""
        return f"{self.file}:{self.line}: {key}{self.reason}"


class LabFileErrors(LabError):
    """A lab file is wrong in several places.

    Attributes:
        errors: Each of them, in the order of their lines.
    """

    def __init__(self, errors: tuple[LabFileError, ...]) -> None:
        super().__init__(errors)
        self.errors = errors

    def __str__(self) -> str:
        return "\n".join(map(str, self.errors))


class PlanError(LabError):
    """A lab cannot be brought from its present to its desired state."""


class LabNotRunning(LabError):
    """No daemon answers for a lab."""

    def __init__(self, lab: str) -> None:
        super().__init__(lab)
        self.lab = lab

    def __str__(self) -> str:
        return f"{self.lab} does not run; start it with: umlab switch run {self.lab} --background"


class LabInUse(LabError):
    """Another daemon runs for a lab already."""

    def __init__(self, lab: str, pid: int) -> None:
        super().__init__(lab, pid)
        self.lab = lab
        self.pid = pid

    def __str__(self) -> str:
        return f"{self.lab} runs already, as process {self.pid}; end it with: umlab switch stop {self.lab}"


class LimitReached(LabError):
    """A caller asks for more than it may have at a time; the text names the limit."""


class GuestBusy(LimitReached):
    """A guest has as many requests waiting as it may have.

    Attributes:
        umid: The guest.
        waiting: How many they are.
        retry_after: Seconds after which to try again.
    """

    def __init__(self, umid: str, waiting: int, retry_after: float) -> None:
        super().__init__(umid, waiting, retry_after)
        self.umid = umid
        self.waiting = waiting
        self.retry_after = retry_after

    def __str__(self) -> str:
        return (
            f"guest {self.umid} has {self.waiting} requests waiting already; "
            f"try again in {self.retry_after:g} s"
        )


class AlreadyExists(LabError):
    """A thing of a name is there and is not what is asked for.

    Attributes:
        kind: What it is, such as ``guest``.
        name: Its name.
    """

    def __init__(self, kind: str, name: str) -> None:
        super().__init__(kind, name)
        self.kind = kind
        self.name = name

    def __str__(self) -> str:
        return f"{self.kind} {self.name} exists already and is described otherwise; stop that one first"


class NoSuchGuest(LabError):
    """A name that no guest of the lab has."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name

    def __str__(self) -> str:
        return f"no guest {self.name}"


class NoSuchConsole(LabError):
    """A name that no console of a guest has."""

    def __init__(self, guest: str, console: str) -> None:
        super().__init__(guest, console)
        self.guest = guest
        self.console = console

    def __str__(self) -> str:
        return f"guest {self.guest} has no terminal {self.console}, or nothing in it has opened that yet"


class NoSuchHook(LabError):
    """A name that no hook of the lab has."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name

    def __str__(self) -> str:
        return f"no hook {self.name}"


class NoSuchDevice(LabError):
    """A name that no device of a guest has."""

    def __init__(self, guest: str, device: str) -> None:
        super().__init__(guest, device)
        self.guest = guest
        self.device = device

    def __str__(self) -> str:
        return f"guest {self.guest} has no device {self.device}"


class GuestFailed(LabError):
    """A guest died, or never became ready.

    Attributes:
        umid: The guest.
        status: Exit status of its main process, negative for a signal, ``None`` while it runs.
        console_tail: The last console output, as text.
    """

    def __init__(self, umid: str, status: int | None, console_tail: str) -> None:
        super().__init__(umid, status, console_tail)
        self.umid = umid
        self.status = status
        self.console_tail = console_tail

    def __str__(self) -> str:
        how = "is not ready" if self.status is None else f"ended with status {self.status}"
        tail = f"; its last output:\n{self.console_tail}" if self.console_tail else ""
        return f"guest {self.umid} {how}{tail}"


class CommandTimeout(LabError):
    """A command in a guest did not end in time.

    Attributes:
        umid: The guest.
        command: The command's text.
        timeout: Seconds that it had.
    """

    def __init__(self, umid: str, command: str, timeout: float) -> None:
        super().__init__(umid, command, timeout)
        self.umid = umid
        self.command = command
        self.timeout = timeout

    def __str__(self) -> str:
        return f"guest {self.umid}: {self.command[:80]!r} did not end within {self.timeout:g} seconds"


class ApiError(LabError):
    """A lab daemon refused a call in words that we do not know, or answered what is no answer.

    Attributes:
        lab: The lab.
        reason: What is wrong, for people.
    """

    def __init__(self, lab: str, reason: str) -> None:
        super().__init__(lab, reason)
        self.lab = lab
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.lab}: {self.reason}"


class ApiTimeout(ApiError):
    """A lab daemon did not answer in time; what was asked for may still happen."""


class ConnectionLost(ApiError):
    """A lab daemon ended the connection before its answer was complete."""
