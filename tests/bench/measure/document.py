"""The page of the documents that holds the figures, made of the raw ones beside it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from .machine import ROOT
from .report import read, tables

PAGE = ROOT / "docs/reference/benchmarks.md"
#: The raw figures, one file for each benchmark.
RAW = ROOT / "docs/reference/benchmarks"

_HEAD = """# Benchmarks

Every figure on this page is made of the raw ones in [benchmarks](benchmarks/), which hold every single
round and the machine:

```console
$ make bench
$ .venv/bin/python tests/bench/publish.py
```

One benchmark, or a part of it, runs alone: `.venv/bin/python tests/bench/bench_switch.py --only no-loss`;
`--quick` shortens everything and is for development, `--rounds` says how many rounds count. All takes
more than half an hour; the figures here come from several such runs of one machine, each table from one.

Contenders take turns, round by round. A cell is the median of the rounds (the least and the greatest) and,
in bold, how many times the first line's figure that is: the median of the rounds' ratios (the least and
the greatest of them). The first line is that of the first contender that can do what is measured. A round
in which its first figure is more than 30 % off the median is repeated, and counted as disturbed; once that is
seen, nobody else is measured in it.

In the benchmark `switch` every switch is a process of its own, started anew for each measurement, and has
all processors but one; the load has that one. Guests behave as those do that a switch is meant for: to
`uml_switch` and ours as the UML kernel's `daemon` transport, whose socket holds `net.unix.max_dgram_qlen`
+ 1 frames, to `vde_switch`, and to ours where it stands in for that (`vde`), as libvdeplug, which connects
its socket.

- **rate**: frames that arrive while the load sends as fast as the switch takes them; in a flood, at each
  guest.
- **cpu**: processor time of the switch, all its threads, for each frame that arrives.
- **loss**: frames that the switch's socket took, or that were due, and that never arrived.
- **p50, p99**: from when a frame was due to be sent, until the load has it.
- **hop**: one Unix datagram socket from the load to itself; what a switch forwards passes two of them.
- **with frames under way, from guests that sleep**: the sender waits for those before it sends more, as
  protocols do that wait for answers, and sleeps meanwhile; the switch has to wake it up.
- **at saturation, from guests that sleep**: sender and receiver are threads that sleep in their sockets when
  there is nothing to do, as real guests do; they and the switch run on whatever processor is free, and
  waking each other up is most of what they do. Everywhere else the load never sleeps and has a processor to
  itself.

In `vlan_capture` the switches are those of one lab's daemon, with the native engine; each contender has one.

- **kept**: of all frames that the two ports have counted, in and out, those that the capture has. A frame
  that is forwarded is two of them.
- **wrong**: how far frames kept and frames said to be lost are from those that the ports have counted, and
  frames in the file from those said to be kept.
- **the slowest of several changes**: from the call until it has returned, by when all ports do as they are
  told. While settings change, another thread sends at a pace from one port to another that are not
  concerned, with 20,000 source addresses; **lost** is what does not arrive.

In `console` everybody asks `version`. The C `uml_mconsole` is a process for each call; the library opens a
socket for each. **time** is from the first request to the last guest's answer, the median of several goes
in a round, and **worst** the longest of these.

In `run` a cold run finds the kernel, busybox and Python on the disk only, a warm one in memory. Commands and
copies go through a lab daemon's API, in a guest on the host's own files.

In `core` seconds are those of the thread's own processor time."""


def document(raw: Path = RAW) -> str:
    """Return the page's text."""
    return "\n".join(_lines(raw)) + "\n"


def write_document() -> None:
    """Write the page."""
    PAGE.write_text(document())


def _lines(raw: Path) -> Iterator[str]:
    yield _HEAD
    for path in sorted(raw.glob("*.json")):
        yield f"\n## {path.stem}\n"
        yield from tables(read(path))
