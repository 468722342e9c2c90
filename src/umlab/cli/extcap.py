"""``umlab-extcap``: Wireshark's and tshark's plug-in that lists switches and ports as interfaces.

They run it with options of their own, once for each question, and read what it prints.  An interface is
``umlab:SWITCH`` or ``umlab:SWITCH:PORT``, the switch as the command line names it.

Source: Wireshark Developer's Guide, "Adding Capture Interfaces And Log Sources Using Extcap"; extcap(4).
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import TYPE_CHECKING

from umlab import __version__
from umlab.errors import ApiError, CaptureError, LabError, LabNotRunning, UmlabError

if TYPE_CHECKING:
    from umlab.daemon.view import PortView

_PROGRAM = "umlab-extcap"
_PREFIX = "umlab:"
#: Where Wireshark from 4.2 on looks, below the home directory.
_FOLDER = ".local/lib/wireshark/extcap"
#: What ``tshark -G folders`` says of it; before 4.2 it is in the folder of the configuration.
_NAMED = re.compile(r"^Personal (?:Extcap path|(configuration)):\s*(/.*)$", re.MULTILINE)
#: LINKTYPE_ETHERNET.
_DLT = "dlt {number=1}{name=EN10MB}{display=Ethernet}"
_CONFIG = (
    "arg {number=0}{call=--snap-length}{display=Bytes of each frame}{type=unsigned}{range=14,65535}"
    "{default=65535}{tooltip=What is longer is cut}",
    "arg {number=1}{call=--last}{display=Seconds of the past}{type=unsigned}{default=0}"
    "{tooltip=What the flight recorder has of so many seconds, instead of what comes; 0: what comes}",
)


def main() -> None:
    """Answer one question, or capture; an error is one line on stderr, status 1."""
    options = _parse(sys.argv[1:])
    try:
        if options.extcap_interfaces:
            print(f"extcap {{version={__version__}}}{{display=umlab}}", *_interfaces(), sep="\n")
        elif options.extcap_dlts:
            print(_DLT)
        elif options.extcap_config:
            print(*_CONFIG, sep="\n")
        elif options.capture:
            _capture(options)
        elif options.extcap_capture_filter:
            print(end=_problem(options.extcap_capture_filter))
    except UmlabError as error:
        sys.exit(f"umlab: {error}")


def install() -> Path:
    """Link this program to where the user's Wireshark looks for such, and return the link.

    Raises:
        LabError: It cannot be linked.
    """
    program = Path(sysconfig.get_path("scripts"), _PROGRAM)
    if not program.exists():
        raise LabError(f"{program} is not there; install umlab again")
    link = _folder() / _PROGRAM
    try:
        link.parent.mkdir(parents=True, exist_ok=True)
        link.unlink(missing_ok=True)
        link.symlink_to(program)
    except OSError as error:
        raise LabError(f"cannot make {link}: {error.strerror}") from None
    return link


def _folder() -> Path:
    """Return the user's folder for such programs, which has another place in each series of versions."""
    tshark = shutil.which("tshark")
    if tshark is not None:
        done = subprocess.run([tshark, "-G", "folders"], capture_output=True, text=True, check=False)
        named = {kind: Path(place) for kind, place in _NAMED.findall(done.stdout)}
        if "" in named:
            return named[""]
        if "configuration" in named:
            return named["configuration"] / "extcap"
    return Path.home() / _FOLDER


def _parse(words: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog=_PROGRAM,
        description="Lists umlab's switches and ports to Wireshark and tshark; see umlab capture.",
        allow_abbrev=False,
    )
    for option in ("--extcap-interfaces", "--extcap-dlts", "--extcap-config", "--capture"):
        parser.add_argument(option, action="store_true")
    parser.add_argument("--extcap-interface", default="")
    parser.add_argument("--extcap-capture-filter", default="")
    parser.add_argument("--fifo")
    parser.add_argument("--snap-length", type=int, default=65_535)
    parser.add_argument("--last", type=float, default=0)
    # Newer versions may ask with more.
    return parser.parse_known_args(words)[0]


def _interfaces() -> list[str]:
    from umlab.client import labs
    from umlab.client.sync import Client

    lines = []
    for lab in labs():
        try:
            with Client(lab) as client:
                for view in client.switches():
                    name = view.name if view.name == lab else f"{lab}/{view.name}"
                    lines.append(_interface(name, f"switch {name}"))
                    for port in client.ports(view.name):
                        place = f"{name}:{port.port_no}"
                        lines.append(_interface(place, f"switch {name}, port {port.port_no}: {_what(port)}"))
        except (LabNotRunning, ApiError):
            # It has ended since it was asked, or hangs.
            continue
    return lines


def _what(port: PortView) -> str:
    guest = port.guest or port.umid
    return port.kind + (f", guest {guest}" if guest else "")


def _interface(name: str, display: str) -> str:
    from umlab.guest.console import escape

    # What a process elsewhere calls itself may have a brace in it.
    text = escape(os.fsencode(display)).translate({ord("{"): "(", ord("}"): ")"})
    return f"interface {{value={_PREFIX}{name}}}{{display={text}}}"


def _problem(text: str) -> str:
    """Return what is wrong with a filter, which is all that is printed where that is the question."""
    from umlab.capture.filter import compile_filter

    try:
        compile_filter(text)
    except CaptureError as error:
        return f"{error}\n"
    return ""


def _capture(options: argparse.Namespace) -> None:
    from umlab.capture.order import CaptureRequest
    from umlab.cli.capture_target import capture_targets
    from umlab.cli.recording import Job, Recording

    interface, fifo = options.extcap_interface, options.fifo
    if not interface.startswith(_PREFIX) or fifo is None:
        raise LabError(f"no interface of ours, or no --fifo: {interface!r}")
    try:
        (target,) = capture_targets([interface.removeprefix(_PREFIX)])
        request = CaptureRequest(
            target.switch,
            target.ports,
            options.extcap_capture_filter,
            options.snap_length,
            options.last or None,
        )
    except ValueError as error:
        raise LabError(str(error)) from None
    try:
        # Waits until it is opened at its other end.
        fd = os.open(fifo, os.O_WRONLY)
    except OSError as error:
        raise LabError(f"cannot open {fifo}: {error.strerror}") from None
    try:
        Recording([Job(target.lab, request)], fd=fd, name=fifo).run()
    finally:
        os.close(fd)


if __name__ == "__main__":
    main()
