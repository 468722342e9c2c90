"""One lab as a service, without HTTP: its switches and guests, held through the keeper."""

from __future__ import annotations

from umlab.console.terminal import Terminal
from umlab.daemon.event_log import EventLog
from umlab.daemon.spec import SwitchSpec
from umlab.daemon.view import (
    ConsoleView,
    DeviceView,
    FdbEntryView,
    GuestView,
    LabView,
    LogPiece,
    PortView,
    SwitchView,
)
from umlab.guest.cmdline import GuestSpec
from umlab.switch.model import SwitchConfig


class LabService:
    """What the API serves; all calls belong to one event loop's thread.

    Attributes:
        name: The lab's name.
        events: Everything that happens in it.
    """

    name: str
    events: EventLog

    # Lookups.

    def lab(self) -> LabView:
        """Return what the lab is."""
        raise NotImplementedError

    def switches(self) -> list[SwitchView]:
        """Return every switch, by name."""
        raise NotImplementedError

    def switch(self, name: str) -> SwitchView:
        """Return a switch.  Raises NoSuchSwitch."""
        raise NotImplementedError

    def ports(self, switch: str) -> list[PortView]:
        """Return the ports of a switch, by number.  Raises NoSuchSwitch."""
        raise NotImplementedError

    def port(self, switch: str, port_no: int) -> PortView:
        """Return a port.  Raises NoSuchSwitch, NoSuchPort."""
        raise NotImplementedError

    def fdb(self, switch: str) -> list[FdbEntryView]:
        """Return the learnt addresses, oldest first.  Raises NoSuchSwitch."""
        raise NotImplementedError

    def guests(self) -> list[GuestView]:
        """Return every guest, by name; ended ones until they are removed."""
        raise NotImplementedError

    def guest(self, name: str) -> GuestView:
        """Return a guest.  Raises NoSuchGuest."""
        raise NotImplementedError

    def consoles(self, guest: str) -> list[ConsoleView]:
        """Return the consoles of a guest.  Raises NoSuchGuest."""
        raise NotImplementedError

    def log(self, guest: str, start: int, limit: int) -> LogPiece:
        """Return console output from an offset on (negative: from the end), at most ``limit`` bytes.

        A piece whose ``start`` is later than what was asked for begins where what is kept begins.
        Raises NoSuchGuest.
        """
        raise NotImplementedError

    async def wait_log(self, guest: str, end: int) -> None:
        """Wait until there is output behind an offset, or the guest has ended.  Raises NoSuchGuest."""
        raise NotImplementedError

    def terminal(self, guest: str, console: str) -> Terminal:
        """Return a terminal of a guest.  Raises NoSuchGuest, NoSuchConsole, StateError."""
        raise NotImplementedError

    async def devices(self, guest: str) -> list[DeviceView]:
        """Return the devices that a guest's kernel has.  Raises NoSuchGuest, MconsoleError."""
        raise NotImplementedError

    async def device(self, guest: str, device: str) -> DeviceView:
        """Return a device.  Raises NoSuchGuest, MconsoleError."""
        raise NotImplementedError

    # Changes.  Each may be repeated: the second time it finds the work done and returns False.

    async def put_switch(self, spec: SwitchSpec) -> bool:
        """Have a switch of this description.  Raises AlreadyExists, TransportError, SwitchError."""
        raise NotImplementedError

    async def set_switch(self, name: str, config: SwitchConfig) -> bool:
        """Reconfigure a running switch; no port goes down.  Raises NoSuchSwitch."""
        raise NotImplementedError

    async def remove_switch(self, name: str) -> bool:
        """End a switch, if it is there."""
        raise NotImplementedError

    async def remove_port(self, switch: str, port_no: int) -> bool:
        """Detach what is plugged in, if it is there.  Raises NoSuchSwitch."""
        raise NotImplementedError

    def flush_fdb(self, switch: str, port_no: int | None = None) -> bool:
        """Forget learnt addresses, of one port or all.  Raises NoSuchSwitch, NoSuchPort."""
        raise NotImplementedError

    async def put_guest(self, spec: GuestSpec) -> bool:
        """Have a guest of this description run; an ended one is started anew.

        Raises AlreadyExists, LabError (its text says what is missing).
        """
        raise NotImplementedError

    async def remove_guest(self, name: str) -> bool:
        """Stop a guest, if it is there: its own shutdown first, by force after 25 seconds at most."""
        raise NotImplementedError

    async def put_device(self, guest: str, device: str, setting: str) -> bool:
        """Plug a device.  Raises NoSuchGuest, MconsoleError."""
        raise NotImplementedError

    async def remove_device(self, guest: str, device: str) -> bool:
        """Unplug a device, if it is there.  Raises NoSuchGuest, MconsoleError."""
        raise NotImplementedError

    async def stack(self, guest: str, pid: int) -> str:
        """Return the kernel stack of a process in a guest.  Raises NoSuchGuest, MconsoleError."""
        raise NotImplementedError

    async def sysrq(self, guest: str, letter: str) -> str:
        """Send a magic sysrq and return what the kernel answered.  Raises NoSuchGuest, MconsoleError."""
        raise NotImplementedError
