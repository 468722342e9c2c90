"""``umlab guest attach --all --tmux``: the terminals of a whole lab, side by side in tmux.

It is a session of the user's own tmux, so that keys and looks are those of all other sessions; inside of
tmux the client switches to it.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

from umlab.errors import LabError

#: Panes of one window; of more there is too little to be seen.
PANES = 4
#: What a pane's command needs of this command's environment: the tmux server may have another.
_VARIABLES = ("PATH", "XDG_RUNTIME_DIR", "XDG_STATE_HOME")

#: This command again, whatever directory it is run in.
_UMLAB = (sys.executable, "-P", "-c", "from umlab.cli.main import main; main()")
_OPTIONS = (
    ("remain-on-exit", "failed"),
    ("pane-border-status", "top"),
    ("pane-border-format", " #{pane_title} "),
    ("allow-rename", "off"),
)


def attach_all(name: str | None, *, read_only: bool, detach_key: str) -> int:
    """Have a session with a pane per guest, and go there; return what tmux returned.

    Args:
        name: The lab; the only one that runs, unless given.
        read_only: Only look.
        detach_key: What leaves a pane's guest.

    Raises:
        LabError: There is no tmux, or no such lab, or it has no guest.
    """
    program = shutil.which("tmux")
    if program is None:
        raise LabError("there is no tmux; it is in the Debian package tmux")
    lab, guests = _guests(name)
    session = f"umlab-{lab}".replace(".", "_")
    # An equals sign asks for this very name.
    if subprocess.run(
        [program, "has-session", "-t", f"={session}"], capture_output=True, check=False
    ).returncode:
        options = ["--detach-key", detach_key, *(["--read-only"] if read_only else [])]
        _lay_out(program, session, lab, guests, options)
    go = "switch-client" if os.environ.get("TMUX") else "attach-session"
    return subprocess.run([program, go, "-t", f"={session}"], check=False).returncode


def _guests(name: str | None) -> tuple[str, tuple[str, ...]]:
    from umlab.client import labs
    from umlab.client.sync import Client

    if name is None:
        running = labs()
        if len(running) != 1:
            raise LabError(f"write the lab's name, one of {', '.join(running)}" if running else "no lab runs")
        (name,) = running
    with Client(name) as client:
        guests = tuple(guest.name for guest in client.guests() if guest.state != "ended")
    if not guests:
        raise LabError(f"{name}: no guest runs")
    return name, guests


def _lay_out(program: str, session: str, lab: str, guests: tuple[str, ...], options: list[str]) -> None:
    """Make the session: windows of up to four guests, each pane with its guest's name."""
    environment = [f"-e{name}={os.environ[name]}" for name in _VARIABLES if name in os.environ]
    size = shutil.get_terminal_size()
    window = pane = ""
    for number, guest in enumerate(guests):
        if not number:
            where = ["new-session", "-s", session, "-n", guest, f"-x{size.columns}", f"-y{size.lines}"]
        elif number % PANES:
            where = ["split-window", "-t", pane]
        else:
            where = ["new-window", "-t", f"={session}:", "-n", guest]
        command = [*_UMLAB, "guest", "attach", f"{lab}/{guest}", *options]
        made = _tmux(program, *where, "-d", *environment, "-PF#{window_id} #{pane_id}", "--", *command)
        window, pane = made.split()
        if not number % PANES:
            for option, value in _OPTIONS:
                _tmux(program, "set-option", "-w", "-t", window, option, value)
        _tmux(program, "select-pane", "-t", pane, "-T", guest)
        _tmux(program, "select-layout", "-t", window, "tiled")


def _tmux(program: str, *words: str) -> str:
    done = subprocess.run([program, *words], capture_output=True, text=True, check=False)
    if done.returncode:
        raise LabError(f"tmux {words[0]}: {done.stderr.strip() or f'status {done.returncode}'}")
    return done.stdout.strip()
