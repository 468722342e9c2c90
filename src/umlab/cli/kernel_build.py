"""``umlab kernel build``: a kernel with what umlab needs, from a source."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from umlab.cli.option import AsJson
from umlab.cli.output import Output

if TYPE_CHECKING:
    from umlab.guest.kernel.build import Built

EPILOG = """
Examples:

  umlab kernel build

  umlab kernel build --source ~/src/linux --name next --debug

  umlab kernel build --config lockdep.config --name lockdep
"""

#: What is built unless something else is named.
DEFAULT_SOURCE = "linux-source-6.12"
#: Seconds between two lines of progress where it is no terminal that shows them.
_LINE_EVERY = 30


def build(
    source: Annotated[
        str,
        typer.Option(
            "--source",
            metavar="SOURCE",
            help="A source tree, which is not touched, an archive of one, or Debian's package of one.",
        ),
    ] = DEFAULT_SOURCE,
    name: Annotated[
        str | None,
        typer.Option(
            "--name",
            metavar="NAME",
            help="What --kernel will find it by; the source's name unless given.",
            show_default=False,
        ),
    ] = None,
    config: Annotated[
        list[Path] | None,
        typer.Option(
            "--config",
            metavar="FILE",
            help="Options of a kernel's configuration, instead of or beside ours; may be repeated.",
            show_default=False,
        ),
    ] = None,
    jobs: Annotated[
        int | None,
        typer.Option(
            "--jobs",
            "-j",
            min=1,
            help="Compilers at once; one per processor unless given.",
            show_default=False,
        ),
    ] = None,
    debug: Annotated[bool, typer.Option("--debug", help="Keep symbols, for gdb.")] = False,
    gcov: Annotated[
        bool, typer.Option("--gcov", help="Have it count which of its lines run; without modules.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Build a kernel for guests, and keep it by a name. It takes minutes.

    One of that name is replaced. Ctrl-C ends the build; the next one goes on with what is there.
    """
    from umlab.cli.interrupt import run_interruptible
    from umlab.guest.kernel.build import BuildOrder, build_kernel
    from umlab.guest.kernel.source import find_source
    from umlab.guest.kernel.store import check_kernel_name

    found = find_source(source)
    name = name or found.name
    check_kernel_name(name)
    order = BuildOrder(
        found,
        name,
        _options(config or []),
        jobs or len(os.sched_getaffinity(0)),
        debug,
        gcov,
    )
    output = Output(as_json=as_json)
    progress = _Progress(output)
    try:
        built = run_interruptible(build_kernel(order, progress.show))
    finally:
        progress.end()
    _print(output, built)


def _options(files: list[Path]) -> dict[str, str]:
    from umlab.errors import LabError, RemoteProtocolError
    from umlab.guest.kernel.option import parse_fragment

    options: dict[str, str] = {}
    for file in files:
        try:
            options |= parse_fragment(file.read_bytes())
        except OSError as error:
            raise LabError(f"cannot read {file}: {error.strerror}") from None
        except RemoteProtocolError as error:
            raise LabError(f"{file}: {error}") from None
    return options


class _Progress:
    """What is being done: one line that changes on a terminal, now and then a line elsewhere."""

    def __init__(self, output: Output) -> None:
        import time

        self._output = output
        self._clock = time.monotonic
        self._started = self._shown_at = self._clock()
        self._stage = ""
        self._terminal = (sys.stderr if output.as_json else sys.stdout).isatty()
        self._open = False

    def show(self, stage: str, objects: int) -> None:
        now = self._clock()
        if stage == self._stage and now - self._shown_at < (0.5 if self._terminal else _LINE_EVERY):
            return
        if stage != self._stage:
            self.end()
        self._stage, self._shown_at = stage, now
        minutes, seconds = divmod(int(now - self._started), 60)
        made = f", {objects} objects" if objects else ""
        text = f"{minutes}:{seconds:02} {stage}{made}"
        if self._terminal:
            self._output.progress(f"\r{text}\x1b[K", end="")
            self._open = True
        else:
            self._output.progress(text)

    def end(self) -> None:
        """End a line that could still change."""
        if self._open:
            self._output.progress("")
            self._open = False


def _print(output: Output, built: Built) -> None:
    import dataclasses

    for option, value in built.not_taken.items():
        typer.echo(f"umlab: this source has {option}={value}, whatever is asked for", err=True)
    kernel = built.kernel
    minutes, seconds = divmod(int(built.seconds), 60)
    text = f"{kernel.name}: Linux {kernel.release}, built in {minutes} min {seconds} s: {kernel.path}"
    if built.source is not None and built.objects is not None:
        text += f"\nits source is {built.source}, its objects are {built.objects}"
    output.record(dataclasses.asdict(built), text)
