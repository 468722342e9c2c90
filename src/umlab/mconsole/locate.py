"""Find the console socket of a guest by the name that a user gives."""

from __future__ import annotations

import os

from umlab.errors import MconsoleUnreachable

__all__ = ["SOCKET_NAME", "candidates", "locate", "pid_file"]

SOCKET_NAME = "mconsole"


def candidates(name: str) -> list[str]:
    """Return the paths at which a guest's console may be, in the order of the original client.

    Args:
        name: A umid, a run directory, or the full path of a socket.
    """
    home = os.environ.get("HOME")
    found = [f"{home}/.uml/{name}/{SOCKET_NAME}"] if home else []
    found.append(f"/tmp/uml/{name}/{SOCKET_NAME}")
    found.append(os.path.join(name, SOCKET_NAME) if os.path.isdir(name) else name)
    return found


def locate(name: str) -> str:
    """Return the path of a guest's console socket.

    Args:
        name: A umid, a run directory, or the full path of a socket.

    Raises:
        MconsoleUnreachable: Nothing is at any of the places.
    """
    if not name:
        raise MconsoleUnreachable("''", "", "does not run: no guest has an empty name")
    places = candidates(name)
    for path in places:
        if os.path.exists(path):
            return path
    # A path can only mean itself: naming the two other places would hide the one that counts.
    tried = places[-1:] if name.startswith("/") else places
    raise MconsoleUnreachable(name, "", f"does not run: nothing at {', '.join(tried)}")


def pid_file(socket_path: str) -> str:
    """Return the path of the file in which the guest of a console socket keeps its pid.

    Source: Linux arch/um/os-Linux/umid.c; the two files share the run directory.
    """
    return os.path.join(os.path.dirname(socket_path), "pid")
