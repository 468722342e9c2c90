"""The calls of the API: what each sends, how long it may take, what its answer means.

Both clients take their methods from here, see `umlab.client.sync` and `umlab.client.aio`.
"""

from __future__ import annotations

import dataclasses
import json
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypedDict, TypeVar, Unpack
from urllib.parse import quote, urlencode

from umlab.capture.talkers import Talkers
from umlab.client import decode
from umlab.client.exchange import Request, Response
from umlab.daemon.port_setting import config_to_form, mirror_to_form, port_to_form
from umlab.daemon.view import (
    Change,
    ConsoleView,
    DeviceView,
    FdbEntryView,
    GuestView,
    GuestVitals,
    HookView,
    LabView,
    LogPiece,
    LogTime,
    PortView,
    ProcessView,
    ScreenView,
    SwitchView,
)
from umlab.errors import ApiError, ApiTimeout
from umlab.mconsole.command import timeout_of

if TYPE_CHECKING:
    from umlab.daemon.device_order import DeviceOrder
    from umlab.daemon.spec import SwitchSpec
    from umlab.guest.cmdline import GuestSpec
    from umlab.switch.model import MirrorSession, PortConfig

T = TypeVar("T")

#: Seconds for what the daemon knows or does by itself,
QUICK_TIMEOUT = 10.0
#: for what a guest has to answer, and longer where that has to wait for another's answer,
GUEST_TIMEOUT = 40.0
TURN_TIMEOUT = 60.0
#: at most for that wait alone,
TURN_TIME = 15.0
#: and for starting and stopping guests.
LIFE_TIMEOUT = 90.0
#: Bytes of a guest's log that one call returns unless told otherwise.
LOG_PIECE = 1 << 20
#: Times of a guest's log that one call returns unless told otherwise.
LOG_TIMES = 1000
#: The console where a guest's kernel logs.
LOG_CONSOLE = "con0"


@dataclass(frozen=True, slots=True)
class Call(Generic[T]):
    """One call.  It may be run again, without doing its work twice, when its connection was lost.

    Attributes:
        request: What is sent.
        read: Makes the result of a response of status 2xx; raises ValueError if it is none.
        timeout: Seconds in which the whole answer must arrive.
    """

    request: Request
    read: Callable[[Response], T]
    timeout: float = QUICK_TIMEOUT

    def result(self, lab: str, response: Response) -> T:
        """Return what the call returns.

        Args:
            lab: Who answered, for the error.
            response: The whole response.

        Raises:
            ApiError: It is none for this call.
        """
        try:
            return self.read(response)
        except (ValueError, KeyError, TypeError) as error:
            reason = f"the daemon's answer to {self.request.target} is not what it should be"
            raise ApiError(lab, f"{reason}; is it another version of umlab?") from error


class ConfigChange(TypedDict, total=False):
    """What a running switch may change beside its ports and mirror sessions."""

    hub: bool
    ageing_time_ns: int
    fdb_capacity: int
    max_frame: int
    egress_queue_depth: int
    lldp: bool


def lab(name: str) -> Call[LabView]:
    """Return what the lab is."""
    return _get(LabView, "labs", name)


def stop(name: str, *, keep: bool = False) -> Call[None]:
    """Begin to end the lab's guests, switches, keeper and daemon; the answer comes at once.

    Args:
        name: The lab.
        keep: Leave guests and ports to the keeper, for the next daemon.
    """
    return Call(Request("DELETE", _path("labs", name, keep="true" if keep else None)), lambda _: None)


def not_ended(name: str) -> ApiTimeout:
    """Return the error for a lab whose end was waited for in vain."""
    return ApiTimeout(name, f"the lab did not end within {LIFE_TIMEOUT:g} seconds")


def metrics() -> Call[str]:
    """Return everything that is counted, in the text format of Prometheus."""
    return Call(Request("GET", "/metrics"), lambda response: response.body.decode())


def switches() -> Call[list[SwitchView]]:
    """Return every switch, by name."""
    return _get(list[SwitchView], "switches")


def switch(switch: str) -> Call[SwitchView]:
    """Return a switch.  Raises NoSuchSwitch."""
    return _get(SwitchView, "switches", switch)


def put_switch(spec: SwitchSpec) -> Call[Change]:
    """Have a switch of this description.  Raises AlreadyExists, TransportError."""
    body = {
        "config": config_to_form(spec.config),
        "listen": spec.listen,
        "access": dataclasses.asdict(spec.access),
        "recorder": spec.recorder,
        "lldp": spec.lldp,
    }
    return _change("PUT", _path("switches", spec.name), body)


def set_switch(
    switch: str,
    *,
    ports: Mapping[int, PortConfig | None] | None = None,
    mirrors: Mapping[str, MirrorSession | None] | None = None,
    ahead: bool = False,
    **config: Unpack[ConfigChange],
) -> Call[Change]:
    """Change what a running switch is told to be, all or nothing; no port goes down.

    Args:
        switch: Its name.
        ports: What ports are told to be, by number; ``None`` for as at first.
        mirrors: Mirror sessions, by name; ``None`` for none.
        ahead: Take numbers where nothing is plugged in as well.
        config: Everything else that changes.

    Raises NoSuchSwitch, SwitchError.
    """
    body: dict[str, Any] = dict(config)
    if ports:
        body["ports"] = {str(number): each and port_to_form(each) for number, each in ports.items()}
    if mirrors:
        body["mirrors"] = {name: each and mirror_to_form(each) for name, each in mirrors.items()}
    if ahead:
        body["ahead"] = True
    return _change("PATCH", _path("switches", switch), body)


def remove_switch(switch: str) -> Call[Change]:
    """End a switch, if it is there."""
    return _change("DELETE", _path("switches", switch))


def ports(switch: str) -> Call[list[PortView]]:
    """Return the ports of a switch, by number.  Raises NoSuchSwitch."""
    return _get(list[PortView], "switches", switch, "ports")


def port(switch: str, port_no: int) -> Call[PortView]:
    """Return a port.  Raises NoSuchSwitch, NoSuchPort."""
    return _get(PortView, "switches", switch, "ports", str(port_no))


def remove_port(switch: str, port_no: int) -> Call[Change]:
    """Detach what is plugged in, if it is there.  Raises NoSuchSwitch."""
    return _change("DELETE", _path("switches", switch, "ports", str(port_no)))


def fdb(switch: str) -> Call[list[FdbEntryView]]:
    """Return the learnt addresses, oldest first.  Raises NoSuchSwitch."""
    return _get(list[FdbEntryView], "switches", switch, "fdb")


def flush_fdb(switch: str, port_no: int | None = None) -> Call[Change]:
    """Forget learnt addresses, of one port or all.  Raises NoSuchSwitch, NoSuchPort."""
    return _change("DELETE", _path("switches", switch, "fdb", port_no=port_no))


def talkers(switch: str, seconds: float = 10.0, count: int = 10) -> Call[Talkers]:
    """Return who has sent most, from what the flight recorder holds.  Raises NoSuchSwitch, StateError.

    Args:
        switch: Its name.
        seconds: How far to look back.
        count: Stations, and pairs of them, at most.
    """
    path = _path("switches", switch, "talkers", seconds=f"{seconds:g}", count=count)
    return Call(Request("GET", path), _value(Talkers))


def guests() -> Call[list[GuestView]]:
    """Return every guest, by name; ended ones until they are removed."""
    return _get(list[GuestView], "guests")


def guest(guest: str) -> Call[GuestView]:
    """Return a guest.  Raises NoSuchGuest."""
    return _get(GuestView, "guests", guest)


def put_guest(spec: GuestSpec) -> Call[Change]:
    """Have a guest of this description run; an ended one is started anew.

    Raises AlreadyExists, LabError (its text says what is missing).
    """
    body = dataclasses.asdict(spec)
    return _change("PUT", _path("guests", body.pop("umid")), body, timeout=LIFE_TIMEOUT)


def remove_guest(guest: str) -> Call[Change]:
    """Stop a guest, if it is there: its own shutdown first, by force after 25 seconds at most."""
    return _change("DELETE", _path("guests", guest), timeout=LIFE_TIMEOUT)


def consoles(guest: str) -> Call[list[ConsoleView]]:
    """Return the consoles of a guest.  Raises NoSuchGuest."""
    return _get(list[ConsoleView], "guests", guest, "consoles")


def screen(guest: str, console: str) -> Call[ScreenView]:
    """Return what a terminal of a guest shows.  Raises NoSuchGuest, NoSuchConsole."""
    return _get(ScreenView, "guests", guest, "consoles", console, "screen")


def log(guest: str, start: int = 0, limit: int = LOG_PIECE, console: str = LOG_CONSOLE) -> Call[LogPiece]:
    """Return a piece of what a guest has printed.  Raises NoSuchGuest, NoSuchConsole.

    Args:
        guest: Its name.
        start: Offset of the first byte, negative to count from the end.  A piece whose ``start`` is later
            begins where what is kept begins.
        limit: Most bytes.
        console: Which console's output: ``con0``, where the kernel logs, or ``con1``, the terminal.
    """

    def read(response: Response) -> LogPiece:
        begin, end = int(response.headers["umlab-start"]), int(response.headers["umlab-end"])
        return LogPiece(begin, end, response.body)

    path = _path("guests", guest, "log", console=console, start=start, limit=limit)
    return Call(Request("GET", path), read)


def log_times(
    guest: str,
    start: int = 0,
    since: float | None = None,
    limit: int = LOG_TIMES,
    console: str = LOG_CONSOLE,
) -> Call[list[LogTime]]:
    """Return when a guest has printed what; each time holds until the next one.

    Raises NoSuchGuest, NoSuchConsole.

    Args:
        guest: Its name.
        start: Begin with what stands at this offset.
        since: Begin with what is not older than this time instead, in seconds since 1970.
        limit: Most times, up to 10,000.
        console: Which console's output, as of `log`.
    """
    path = _path("guests", guest, "log", "times", console=console, start=start, since=since, limit=limit)
    return Call(Request("GET", path), _value(list[LogTime]))


def devices(guest: str) -> Call[list[DeviceView]]:
    """Return the devices that a guest is known to have.  Raises NoSuchGuest, MconsoleError."""
    return _get(list[DeviceView], "guests", guest, "devices", timeout=GUEST_TIMEOUT)


def device(guest: str, device: str) -> Call[DeviceView]:
    """Return a device.  Raises NoSuchGuest, NoSuchDevice, MconsoleError."""
    return _get(DeviceView, "guests", guest, "devices", device, timeout=GUEST_TIMEOUT)


def put_device(guest: str, device: str, order: DeviceOrder | str) -> Call[Change]:
    """Plug a device, or set how much memory there is.

    Args:
        guest: Its name.
        device: Such as ``eth1``, ``vec0``, ``ubdb``, ``con2`` or ``mem``.
        order: What it is to be; a text is the setting as the kernel takes it.

    Raises NoSuchGuest, NoSuchSwitch, LabError (the host says no), MconsoleError (the guest's kernel does).
    """
    path = _path("guests", guest, "devices", device)
    return _change("PUT", path, _order_body(order), timeout=GUEST_TIMEOUT)


def add_device(guest: str, order: DeviceOrder) -> Call[DeviceView]:
    """Plug a NIC, a disk or a console under the first name that is free, and return it.

    Raises what :func:`put_device` raises.
    """
    path = _path("guests", guest, "devices")
    return Call(_keyed(path, _order_body(order)), _value(DeviceView), GUEST_TIMEOUT)


def remove_device(guest: str, device: str, *, down: bool = False) -> Call[Change]:
    """Unplug a device, if it is there.  Raises NoSuchGuest, LabError, MconsoleError.

    Args:
        guest: Its name.
        device: The device.
        down: Let the guest's agent set a NIC down before, which the kernel wants.
    """
    path = _path("guests", guest, "devices", device, down="true" if down else None)
    return _change("DELETE", path, timeout=GUEST_TIMEOUT)


def reset_device(guest: str, device: str, *, down: bool = False) -> Call[Change]:
    """Unplug a NIC and plug it again as it was, for one that is connected to nothing any more.

    The guest has to give it its addresses anew.  Takes and raises what :func:`remove_device` does, and
    raises NoSuchDevice.
    """
    path = _path("guests", guest, "devices", device, "reset")
    return Call(Request("POST", path, json.dumps({"down": down}).encode()), _value(Change), GUEST_TIMEOUT)


def vitals(guest: str) -> Call[GuestVitals]:
    """Return how a guest is, as its kernel tells; it is asked every other second at most.

    Raises NoSuchGuest.
    """
    return _get(GuestVitals, "guests", guest, "vitals")


def processes(guest: str) -> Call[list[ProcessView]]:
    """Return the processes of a guest, by pid; only where its agent answers.

    Raises NoSuchGuest, StateError.
    """
    return _get(list[ProcessView], "guests", guest, "processes")


def stack(guest: str, pid: int) -> Call[str]:
    """Return the kernel stack of a process in a guest.  Raises NoSuchGuest, MconsoleError."""
    return _post(_path("guests", guest, "stack"), {"pid": pid}, TURN_TIMEOUT)


def sysrq(guest: str, letter: str) -> Call[str]:
    """Send a magic sysrq and return what the kernel answered.  Raises NoSuchGuest, MconsoleError."""
    return _post(_path("guests", guest, "sysrq"), {"letter": letter}, TURN_TIMEOUT)


def mconsole(guest: str, command: str, timeout: float | None = None) -> Call[str]:
    """Send a command to a guest's management console, as it is, and return the answer.

    Args:
        guest: Its name.
        command: Such as ``proc meminfo``; at most 511 bytes.
        timeout: Seconds in which the guest must have answered, at most 300; by default what suits the
            command's first word.

    Raises NoSuchGuest, MconsoleError, GuestBusy.
    """
    body = {"command": command, "timeout": timeout}
    limit = timeout_of(command.encode(errors="replace")) if timeout is None else timeout
    return _post(_path("guests", guest, "mconsole"), body, limit + TURN_TIME)


def hooks() -> Call[list[HookView]]:
    """Return every hook, by name."""
    return _get(list[HookView], "hooks")


def hook(hook: str) -> Call[HookView]:
    """Return a hook.  Raises NoSuchHook."""
    return _get(HookView, "hooks", hook)


def put_hook(hook: str, on: Sequence[str], run: Sequence[str], guests: str | None = None) -> Call[Change]:
    """Have a command run by the daemon when something happens to a guest, in place of the hook's old one.

    Args:
        hook: Its name.
        on: Kinds of events, such as ``guest_panicked``.
        run: A program, by path or as the daemon's ``PATH`` has it, and its arguments; no shell.
        guests: A pattern of guests' names, such as ``web*``; all unless given.

    Raises LabError, LimitReached.
    """
    return _change("PUT", _path("hooks", hook), {"on": list(on), "run": list(run), "guests": guests})


def remove_hook(hook: str) -> Call[Change]:
    """Have a hook no more, if it is there; the daemon ends its runs."""
    return _change("DELETE", _path("hooks", hook))


def follow_log(guest: str, start: int, console: str) -> Request:
    """Return the request for everything that a guest prints from an offset on, until it ends."""
    return Request("GET", _path("guests", guest, "log", console=console, start=start, follow="true"))


def terminal_path(guest: str, console: str, role: str, window: tuple[int, int] | None, picture: bool) -> str:
    """Return the path of a terminal's WebSocket; what the rest means says `umlab.client.terminal`."""
    rows, columns = window or (None, None)
    begin = None if picture else "now"
    path = ("guests", guest, "consoles", console)
    return _path(*path, **{"from": begin}, role=role, rows=rows, columns=columns)


def exec_path(guest: str) -> str:
    """Return the path of the WebSocket of a command in a guest."""
    return _path("guests", guest, "exec")


def _path(*words: str, **query: str | float | None) -> str:
    # What is no text, such as an argument's stray bytes, is a name that the daemon refuses.
    path = "/".join(["/v1", *(quote(word, safe="", errors="backslashreplace") for word in words)])
    given = {key: value for key, value in query.items() if value is not None}
    return f"{path}?{urlencode(given)}" if given else path


def _get(kind: type[T], *words: str, timeout: float = QUICK_TIMEOUT) -> Call[T]:
    return Call(Request("GET", _path(*words)), _value(kind), timeout)


def _value(kind: Any) -> Callable[[Response], Any]:
    return lambda response: decode.value(kind, response.body)


def _change(method: str, path: str, body: Any = None, timeout: float = QUICK_TIMEOUT) -> Call[Change]:
    data = b"" if body is None else json.dumps(body).encode()
    return Call(Request(method, path, data), _value(Change), timeout)


def _post(path: str, body: dict[str, Any], timeout: float) -> Call[str]:
    return Call(_keyed(path, body), lambda response: str(json.loads(response.body)["output"]), timeout)


def _keyed(path: str, body: dict[str, Any]) -> Request:
    """Return a request that does its work once, also where it is sent again."""
    return Request("POST", path, json.dumps(body).encode(), {"idempotency-key": str(uuid.uuid4())})


def _order_body(order: DeviceOrder | str) -> dict[str, Any]:
    if isinstance(order, str):
        return {"setting": order}
    return {key: value for key, value in dataclasses.asdict(order).items() if value is not None}
