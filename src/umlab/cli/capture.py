"""``umlab capture``: the frames of switches and ports, as pcapng."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from umlab.cli import complete
from umlab.cli.option import AsJson
from umlab.cli.output import Output
from umlab.cli.setting import parse_size, parse_time

if TYPE_CHECKING:
    from umlab.capture.order import CaptureProgress
    from umlab.cli.recording import Job

T = TypeVar("T")

EPILOG = """
Examples:

  umlab capture lan | wireshark -k -i -

  umlab capture lan:1-3,left -f "arp or icmp" | tshark -r -

  umlab capture lan -w lan.pcapng --rotate-size 100M --files 10

  umlab capture ring/core --last 30s -w before.pcapng
"""

_NS = 1_000_000_000
#: As tcpdump and its like have it; to the daemon, which writes files, its second name would be its own log.
_STANDARD_OUTPUT = ("-", "/dev/stdout")


def capture(
    names: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="NAME[:PORTS]",
            help="Switches, or some ports of them: numbers, ranges and guests, such as lan:1-3,left.",
            autocompletion=complete.switch_names,
            show_default=False,
        ),
    ] = None,
    write: Annotated[
        str | None,
        typer.Option(
            "--write",
            "-w",
            metavar="FILE",
            help="Have the lab's daemon write this file, one for each switch; standard output unless given.",
            show_default=False,
        ),
    ] = None,
    filter_: Annotated[
        str,
        typer.Option(
            "--filter",
            "-f",
            metavar="EXPR",
            help="Keep only the frames that an expression as tcpdump's accepts.",
            show_default=False,
        ),
    ] = "",
    snap_length: Annotated[
        int,
        typer.Option("--snap-length", "-s", metavar="BYTES", help="Keep so many bytes of a frame at most."),
    ] = 65_535,
    last: Annotated[
        str | None,
        typer.Option(
            "--last",
            metavar="TIME",
            help="Save what has happened in the last TIME, such as 30s, and end.",
            show_default=False,
        ),
    ] = None,
    duration: Annotated[
        str | None,
        typer.Option("--duration", metavar="TIME", help="End after TIME, such as 10s.", show_default=False),
    ] = None,
    rotate_size: Annotated[
        str | None,
        typer.Option(
            "--rotate-size",
            metavar="SIZE",
            help="Begin another file when one has this size, such as 100M.",
            show_default=False,
        ),
    ] = None,
    rotate_time: Annotated[
        str | None,
        typer.Option(
            "--rotate-time",
            metavar="TIME",
            help="Begin another file after TIME, such as 1h.",
            show_default=False,
        ),
    ] = None,
    files: Annotated[
        int | None,
        typer.Option(
            "--files", metavar="COUNT", min=1, help="Keep the newest files only.", show_default=False
        ),
    ] = None,
    install_extcap: Annotated[
        bool,
        typer.Option("--install-extcap", help="Have Wireshark and tshark list switches and ports, and end."),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Capture the frames of switches or ports as pcapng, one interface for each port, until interrupted.

    Every frame has its direction, seen from the switch, and where it was dropped the reason as a comment.
    What could not be kept is counted in the file.
    """
    if install_extcap:
        _install_extcap(Output(as_json=as_json))
        return
    if not names:
        raise typer.BadParameter("name a switch, such as lan, or a port, such as lan:1")
    write = None if write in _STANDARD_OUTPUT else write
    rotation = {
        "rotate_size": _read("--rotate-size", rotate_size, parse_size),
        "rotate_time": _seconds("--rotate-time", rotate_time),
        "files": files,
    }
    _check_output(write, as_json=as_json, rotating=any(rotation.values()))
    spans = (_seconds("--last", last), _seconds("--duration", duration))
    if all(spans):
        raise typer.BadParameter("--last and --duration exclude each other")
    jobs = _jobs(names, write, {"filter": filter_, "snap_length": snap_length, "last": spans[0], **rotation})
    _record(jobs, spans[1], Output(as_json=as_json))


def _read(option: str, text: str | None, parse: Callable[[str], T]) -> T | None:
    if text is None:
        return None
    try:
        return parse(text)
    except ValueError as error:
        raise typer.BadParameter(f"{option} {text}: {error}") from None


def _seconds(option: str, text: str | None) -> float | None:
    span_ns = _read(option, text, parse_time)
    return None if span_ns is None else span_ns / _NS


def _check_output(write: str | None, *, as_json: bool, rotating: bool) -> None:
    if write is None:
        if sys.stdout.isatty():
            raise typer.BadParameter(
                "standard output is a terminal; give -w FILE, or pipe it, such as into: wireshark -k -i -"
            )
        if as_json:
            raise typer.BadParameter("--json goes with -w: without it the frames go to standard output")
        if rotating:
            raise typer.BadParameter("--rotate-size, --rotate-time and --files go with -w")


def _jobs(names: Sequence[str], write: str | None, options: dict[str, Any]) -> list[Job]:
    """Return the captures that are asked for, one for each switch."""
    from umlab.capture.order import CaptureRequest
    from umlab.cli.capture_target import capture_targets
    from umlab.cli.recording import Job

    try:
        targets = capture_targets(names)
        several = len(targets) > 1
        return [
            Job(
                target.lab,
                CaptureRequest(
                    target.switch,
                    target.ports,
                    file=None if write is None else _file(write, target.label if several else ""),
                    **options,
                ),
            )
            for target in targets
        ]
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None


def _file(write: str, label: str) -> str:
    """Return the path of a switch's file: where there are several, its name has the switch's in it."""
    path = Path(os.path.abspath(write))
    return str(path.with_name(f"{path.stem}-{label}{path.suffix}") if label else path)


def _record(jobs: Sequence[Job], duration: float | None, output: Output) -> None:
    from umlab.cli.recording import Recording

    report = _Report(jobs, output)
    fd = 1 if jobs[0].request.file is None else None
    try:
        Recording(jobs, report.show, fd=fd).run(duration)
    finally:
        report.end()
    if report.problem:
        raise typer.Exit(1)


class _Report:
    """What is told of captures: the counts each second on a terminal, and a line for each at the end.

    Attributes:
        problem: Whether one could not write what it had in the end.
    """

    def __init__(self, jobs: Sequence[Job], output: Output) -> None:
        self._jobs = jobs
        self._output = output
        self._steps: dict[int, CaptureProgress] = {}
        self._live = not output.as_json and sys.stderr.isatty()
        self.problem = False

    def show(self, number: int, step: CaptureProgress) -> None:
        """Take a step of a capture."""
        self._steps[number] = step
        if self._output.as_json:
            from dataclasses import asdict

            job = self._jobs[number]
            self._output.record({"lab": job.lab, "switch": job.request.switch, **asdict(step)}, "")
        elif self._live:
            steps = self._steps.values()
            counts = (sum(step.frames for step in steps), sum(step.bytes for step in steps))
            problems = "".join(f"; {step.problem}" for step in steps if step.problem)
            lost = sum(step.lost for step in steps)
            self._say("\r\x1b[K{:,} frames, {:,} bytes, {:,} lost{}".format(*counts, lost, problems), end="")

    def end(self) -> None:
        """Say what there is in the end."""
        if self._live and self._steps:
            self._say("\r\x1b[K", end="")
        for number, step in sorted(self._steps.items()):
            self.problem = self.problem or bool(step.problem)
            if not self._output.as_json:
                self._say(self._line(self._jobs[number], step))

    def _line(self, job: Job, step: CaptureProgress) -> str:
        place = f", in {step.file}" if step.file else ""
        if step.files > 1:
            place = f", in {step.files} files, the last one {step.file}"
        if step.covered is not None:
            place += f", of the last {step.covered:.2f} seconds"
        if step.reason in ("switch", "lab"):
            place += f"; the {step.reason} has ended"
        if step.problem:
            place += f"; {step.problem}"
        counts = f"{step.frames:,} frames, {step.bytes:,} bytes, {step.lost:,} lost"
        return f"umlab: {job.lab}/{job.request.switch}: {counts}{place}"

    @staticmethod
    def _say(text: str, end: str = "\n") -> None:
        # Who reads it may be gone, which is not the capture's concern.
        try:
            print(text, end=end, file=sys.stderr, flush=True)
        except OSError:
            return


def _install_extcap(output: Output) -> None:
    from umlab.cli.extcap import install

    link = install()
    output.record({"link": str(link)}, f"{link}: Wireshark and tshark list the ports of your switches")
