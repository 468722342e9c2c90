"""Switches side by side under a made load: the C ``uml_switch``, ``vde_switch``, and ours with both engines.

Run as ``python tests/bench/bench_switch.py``.  The load (``_load.pyx``) has one processor, the switch all the
others.  Guests behave as those do that a switch is meant for: as the UML kernel's ``daemon`` transport, whose
socket holds 11 frames; and to ``vde_switch``, and to ours where it stands in for that, as libvdeplug.
``hop`` is one Unix datagram socket alone, from the load to itself: no switch can be faster with this load.
"""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from measure import command, machine, report
from measure.bed import Bed, Load, bed
from measure.extension import load
from measure.rounds import Comparison, Unable, compare
from measure.search import highest_rate
from measure.switch import OUR_VDE, SWITCHES, Switch, raise_descriptor_limit, separate

#: Bytes of a full frame, with its header of 14.
FULL = 1514
SATURATION = {"rate": "frames/s", "cpu": "us of processor time a frame", "loss": "%"}
PACED = {"cpu": "us of processor time a frame", "p50": "us", "p99": "us", "loss": "%"}
MEMORY = {"resident": "MB", "proportional": "MB"}
#: Frames under way of a sender that waits for them; a guest's socket holds 11.
WINDOW = 8
#: The pace at which every switch can be compared, in frames per second.
PACE = 20_000

Figures = dict[str, float]


@dataclass
class Plan:
    """How long and how often everything is measured.

    Attributes:
        rounds: Undisturbed rounds of each comparison.
        seconds: To measure once.
        confirmation: Seconds that a rate without loss must hold.
        baseline_rate: The baseline's rate without loss as far as it is known.
    """

    rounds: int
    seconds: float = 1.0
    confirmation: float = 5.0
    baseline_rate: float = 0.0
    guesses: dict[tuple[str, int, bool], float] = field(default_factory=dict)


def on(
    switch: Switch, what: Load, measure: Callable[[Bed], Figures], apart: bool = True
) -> Callable[[], Figures]:
    """Return a call that measures once on a fresh switch, ``apart``: on other processors than the load."""

    def once() -> Figures:
        with bed(switch, what, apart) as at:
            return measure(at)

    return once


def each_switch(
    what: Load, measure: Callable[[Bed], Figures], apart: bool = True, *, vde: bool = False
) -> dict[str, Callable[[], Figures]]:
    """Return such calls for all switches, ours for VDE as well if that is wanted."""
    switches = (*SWITCHES, OUR_VDE) if vde else SWITCHES
    return {switch.name: on(switch, what, measure, apart) for switch in switches}


def lossless(at: Bed, plan: Plan, asleep: bool = False) -> Figures:
    """Search for the highest rate without loss, from where the last search of this switch ended."""
    key = (at.at.switch.name, at.what.size, asleep)
    guess = plan.guesses.get(key) or at.saturate(plan.seconds / 4)["rate"]

    def holds(rate: float, confirm: bool) -> bool:
        if confirm:
            return at.holds(rate, plan.confirmation, asleep)
        # A second try, as this process may have been away for a moment.
        return any(at.holds(rate, plan.seconds / 4, asleep) for _ in range(2))

    found = highest_rate(holds, guess)
    plan.guesses[key] = found or guess
    return {"rate": found}


def half_rate(plan: Plan) -> float:
    """Return half of what the baseline forwards without loss, found now if it was not measured before.

    Raises:
        Unable: It has no such rate.
    """
    if not plan.baseline_rate:
        plan.baseline_rate = on(SWITCHES[0], Load(), lambda at: lossless(at, plan))()["rate"]
    if not plan.baseline_rate:
        raise Unable(f"{SWITCHES[0].name} forwards nothing without loss")
    return plan.baseline_rate / 2


def hop(size: int, seconds: float) -> Figures:
    """Measure one socket alone."""
    module = load("_load")
    own = os.sched_getaffinity(0)
    os.sched_setaffinity(0, separate()[0])
    left, right = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with left, right:
        stream = module.Stream(left.fileno(), b"\xff" * 6, b"\x02" * 6, size)
        result = module.run([stream], [right.fileno()], seconds, pid=os.getpid())
    os.sched_setaffinity(0, own)
    return {
        "rate": result["arrived"] / result["seconds"],
        "cpu": result["cpu"] * 1e6 / result["arrived"],
        "loss": 0.0,
    }


def comparisons(plan: Plan) -> Iterator[tuple[str, Callable[[str], Comparison]]]:
    """Yield the name of everything that is compared, and what compares it under that name."""

    def saturation(title: str, what: Load) -> Callable[[str], Comparison]:
        contenders = each_switch(what, lambda at: at.saturate(plan.seconds), vde=what == Load())
        return lambda name: compare(name, f"At saturation, {title}", SATURATION, contenders, plan.rounds)

    def window(name: str) -> Comparison:
        contenders = each_switch(Load(), lambda at: at.saturate(plan.seconds, window=WINDOW, sleep=True))
        title = f"With {WINDOW} frames under way, unicast, 64 bytes, from guests that sleep until they arrive"
        return compare(name, title, SATURATION, contenders, plan.rounds)

    def from_asleep(size: int) -> Callable[[str], Comparison]:
        contenders = each_switch(Load(size), lambda at: at.saturate_from_asleep(plan.seconds), apart=False)
        title = f"At saturation, unicast, {size} bytes, from guests that sleep whenever they can"
        return lambda name: compare(name, title, SATURATION, contenders, plan.rounds)

    def no_loss(title: str, what: Load, asleep: bool = False) -> Callable[[str], Comparison]:
        contenders = each_switch(
            what, lambda at: lossless(at, plan, asleep), apart=not asleep, vde=what == Load()
        )
        # A search takes long, and the Python engine has nothing to prove here.
        del contenders[SWITCHES[3].name]

        def run(name: str) -> Comparison:
            title_ = f"Highest rate with at most 0.1 % loss over {plan.confirmation:g} s, {title}"
            done = compare(name, title_, {"rate": "frames/s"}, contenders, plan.rounds)
            if what == Load() and not asleep and done.failure(SWITCHES[0].name) is None:
                plan.baseline_rate = done.spread(SWITCHES[0].name, "rate").median
            return done

        return run

    def paced(title: str, what: Load, rate: Callable[[], float]) -> Callable[[str], Comparison]:
        def run(name: str) -> Comparison:
            pace = rate()
            contenders = each_switch(what, lambda at: at.paced(pace, plan.seconds))
            return compare(name, f"At {pace:,.0f} frames/s, {title}", PACED, contenders, plan.rounds)

        return run

    def memory(title: str, what: Load) -> Callable[[str], Comparison]:
        contenders = each_switch(what, Bed.memory)
        return lambda name: compare(name, f"Memory, {title}", MEMORY, contenders, min(plan.rounds, 3))

    def hops(name: str) -> Comparison:
        contenders = {f"{size} bytes": lambda size=size: hop(size, plan.seconds) for size in (64, FULL)}
        return compare(name, "The load alone: one socket, no switch", SATURATION, contenders, plan.rounds)

    small, full, flood = Load(), Load(FULL), Load(receivers=15)
    yield "hop", hops
    yield "unicast-64", saturation("unicast, 64 bytes", small)
    yield "unicast-64-asleep", from_asleep(64)
    yield "no-loss-64-asleep", no_loss("unicast, 64 bytes, guests that sleep", small, asleep=True)
    yield "no-loss-64", no_loss("unicast, 64 bytes", small)
    # The baseline and ours: each takes a minute and a half, and nothing is said of the others.
    for switch in (SWITCHES[0], SWITCHES[2]):
        yield f"beside-{switch.name.replace(' ', '-')}", beside(switch, plan)
    for size, what in ((64, small), (FULL, full)):
        yield f"pace-{size}", paced(f"unicast, {size} bytes", what, lambda: PACE)
        half = f"half of the first line's rate without loss, unicast, {size} bytes"
        yield f"half-{size}", paced(half, what, lambda: half_rate(plan))
    yield "memory-2", memory("2 guests", small)
    yield "memory-1000", memory("1,000 guests and 65,536 addresses learnt", Load(idle=998, sources=65_536))
    yield "unicast-1514", saturation("unicast, 1514 bytes", full)
    yield "unicast-1514-asleep", from_asleep(FULL)
    yield "flood-64", saturation("flood to 15 guests, 64 bytes", flood)
    yield "flood-1514", saturation("flood to 15 guests, 1514 bytes", Load(FULL, receivers=15))
    yield "no-loss-1514-asleep", no_loss("unicast, 1514 bytes, guests that sleep", full, asleep=True)
    yield "unicast-64-window", window


def beside(switch: Switch, plan: Plan) -> Callable[[str], Comparison]:
    """Compare a switch with itself when there are more guests, more addresses, or guests that misbehave."""
    seconds = plan.seconds
    contenders = {
        "alone": on(switch, Load(), lambda at: at.saturate(seconds)),
        "100 idle guests": on(switch, Load(idle=100), lambda at: at.saturate(seconds)),
        "1,000 idle guests": on(switch, Load(idle=1000), lambda at: at.saturate(seconds)),
        "20,000 sources": on(switch, Load(sources=20_000), lambda at: at.saturate(seconds)),
        "a guest has stopped reading": on(switch, Load(), lambda at: at.beside_a_stopped_guest(seconds)),
        "guests come and go": on(switch, Load(), lambda at: at.beside_visitors(seconds)),
        "a guest floods sources": on(switch, Load(), lambda at: at.beside_random_sources(seconds)),
    }
    title = f"{switch.name} against itself, unicast, 64 bytes"
    return lambda name: compare(name, title, SATURATION, contenders, plan.rounds)


def main() -> None:
    """Compare everything that is asked for."""
    options = command.parser("Compare switches under a made load.").parse_args()
    plan = Plan(options.rounds, 0.2, 0.5) if options.quick else Plan(options.rounds)
    facts = machine.facts() | {"seconds of one measurement": f"{plan.seconds:g}"}
    raise_descriptor_limit()
    done = []
    for name, run in comparisons(plan):
        if options.only is None or options.only in name:
            try:
                done.append(run(name))
            except Unable as error:
                print(f"{name} is left out: {error}", file=sys.stderr)
            # What is measured is kept, should the rest fail.
            report.save("switch", facts, done)
    report.write("switch", facts, done)


if __name__ == "__main__":
    main()
