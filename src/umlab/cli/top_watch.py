"""Looking at running labs again and again: on the whole terminal, or one page after the other."""

from __future__ import annotations

import asyncio
import contextlib
import os
import termios
import time
import tty
from collections.abc import Iterator, Sequence

from rich.console import Console
from rich.live import Live

from umlab.cli.output import Output
from umlab.cli.page import print_plain, rendered
from umlab.cli.rate import LabLook, cpu_seconds
from umlab.cli.top_page import SHOWN_TALKERS, Look, cut, page
from umlab.client import labs
from umlab.client.aio import AsyncClient
from umlab.daemon.view import GuestVitals
from umlab.errors import ApiError, LabNotRunning, NoSuchSwitch, StateError, UmlabError

#: Guests whose vitals are asked for at the same time, and seconds for all of them.
_ASKED_AT_ONCE = 32
_VITALS_TIME = 0.75


async def tell(names: Sequence[str] | None, interval: float, output: Output, *, once: bool) -> None:
    """Print what there is after each interval.

    Args:
        names: Labs; all that run unless given.
        interval: Seconds.
        output: Where to.
        once: After the first one only.

    Raises:
        LabNotRunning: A lab that is named does not run at first.
    """
    before = await _look(names, interval, first=True)
    while True:
        await asyncio.sleep(interval)
        after = await _look(names, interval)
        print_plain(page(before, after), output)
        if once:
            return
        before = after


async def show(names: Sequence[str] | None, interval: float) -> None:
    """Show it on the whole terminal until ``q`` is pressed.

    Args:
        names: Labs; all that run unless given.
        interval: Seconds between two looks.

    Raises:
        LabNotRunning: A lab that is named does not run at first.
    """
    console = Console(highlight=False)

    def draw(before: Look | None, after: Look) -> None:
        parts = cut(page(before, after).parts, console.height)
        live.update(rendered(parts, console.width), refresh=True)

    look = await _look(names, interval, first=True)
    with _keys() as pressed, Live(console=console, screen=True, auto_refresh=False) as live:
        draw(None, look)
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(interval):
                    await pressed.wait()
                return
            before, look = look, await _look(names, interval)
            draw(before, look)


@contextlib.contextmanager
def _keys() -> Iterator[asyncio.Event]:
    """Yield what is set when ``q`` is pressed; where standard input is no terminal it never is."""
    pressed = asyncio.Event()
    if not os.isatty(0):
        yield pressed
        return

    def read() -> None:
        keys = os.read(0, 64)
        if not keys:
            # Nobody is there to press any.
            loop.remove_reader(0)
        elif b"q" in keys.lower():
            pressed.set()

    loop = asyncio.get_running_loop()
    before = termios.tcgetattr(0)
    loop.add_reader(0, read)
    try:
        tty.setcbreak(0)
        yield pressed
    finally:
        loop.remove_reader(0)
        termios.tcsetattr(0, termios.TCSADRAIN, before)


async def _look(names: Sequence[str] | None, interval: float, *, first: bool = False) -> Look:
    """Look at all labs at once; with ``first`` one that is named and does not run is an error."""
    chosen = list(dict.fromkeys(names or labs()))
    # Counters are of the time between two looks, and so are talkers.
    found = await asyncio.gather(*(_look_at(lab, interval) for lab in chosen), return_exceptions=True)
    looks, silent = {}, []
    for lab, look in zip(chosen, found, strict=True):
        if not isinstance(look, BaseException):
            looks[lab] = look
        elif isinstance(look, LabNotRunning) and not (first and names):
            continue
        elif isinstance(look, ApiError):
            silent.append(lab)
        else:
            raise look
    return Look(looks, tuple(silent))


async def _look_at(lab: str, interval: float) -> LabLook:
    async with AsyncClient(lab) as client:
        at = time.monotonic()
        guests = await client.guests()
        running = [guest for guest in guests if guest.status is None]
        asking = asyncio.create_task(_vitals(client, [guest.name for guest in running]))
        try:
            switches = await client.switches()
            ports, talkers = {}, {}
            for name in [switch.name for switch in switches]:
                try:
                    ports[name] = await client.ports(name)
                    talkers[name] = await client.talkers(name, interval, SHOWN_TALKERS)
                except NoSuchSwitch:
                    # It has ended since.
                    continue
                except StateError:
                    # It has no flight recorder.
                    continue
            vitals = await asking
        finally:
            asking.cancel()
    cpu = {guest.name: cpu_seconds(guest.pid) for guest in running}
    return LabLook(
        at,
        tuple(switch for switch in switches if switch.name in ports),
        ports,
        talkers,
        tuple(guests),
        {name: seconds for name, seconds in cpu.items() if seconds is not None},
        vitals,
    )


async def _vitals(client: AsyncClient, guests: Sequence[str]) -> dict[str, GuestVitals]:
    """Return what the kernels of guests tell, as far as that comes in time: nobody waits for a silent one."""
    turns = asyncio.Semaphore(_ASKED_AT_ONCE)
    told: dict[str, GuestVitals] = {}

    async def ask(guest: str) -> None:
        # One that has ended since, or a daemon that knows no vitals.
        async with turns:
            with contextlib.suppress(UmlabError):
                told[guest] = await client.vitals(guest)

    asking = [asyncio.create_task(ask(guest)) for guest in guests]
    try:
        if asking:
            await asyncio.wait(asking, timeout=_VITALS_TIME)
    finally:
        for each in asking:
            each.cancel()
        await asyncio.gather(*asking, return_exceptions=True)
    return told
