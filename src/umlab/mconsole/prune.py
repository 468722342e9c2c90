"""Remove the run directories of guests that are surely dead."""

from __future__ import annotations

import contextlib
import fcntl
import os

from umlab._boot import boot_of
from umlab.mconsole.discover import DIRECTORY_FLAGS, PID_NAME, Found, open_root, read_pid, state_of
from umlab.mconsole.locate import SOCKET_NAME

__all__ = ["prune"]


def prune(found: Found) -> str | None:
    """Remove a guest's run directory if the guest is surely dead and the directory is as a kernel made it.

    Surely dead: it is ours, nobody holds its socket, and the process of its pid file is gone or no
    kernel.  All of that is looked at anew.  A kernel that starts there meanwhile makes a directory of its
    own, which is left alone.

    Args:
        found: What `umlab.mconsole.discover.discover` has found.

    Returns:
        ``None`` if it was removed, else why not.
    """
    name = os.path.basename(os.path.dirname(found.path))
    with contextlib.ExitStack() as stack:
        try:
            root = open_root(found.root)
            stack.callback(os.close, root)
            directory = os.open(name, DIRECTORY_FLAGS, dir_fd=root)
            stack.callback(os.close, directory)
            # Others that do the same wait for nothing: they find it gone.
            fcntl.flock(directory, fcntl.LOCK_EX | fcntl.LOCK_NB)
            reason = _why_not(directory)
            if reason is None:
                _remove(root, name, directory)
        except FileNotFoundError:
            return "it is gone"
        except BlockingIOError:
            return "somebody has locked it"
        except OSError as error:
            return error.strerror or str(error)
    return reason


def _why_not(directory: int) -> str | None:
    state = state_of(directory)
    if state != "dead":
        return state
    pid = read_pid(directory)
    if pid is not None and _may_be_kernel(pid):
        return f"process {pid}, which it names, may be its kernel"
    others = set(os.listdir(directory)) - {PID_NAME, SOCKET_NAME}
    return f"it has other files, such as {min(others)}" if others else None


def _may_be_kernel(pid: int) -> bool:
    try:
        if os.stat(f"/proc/{pid}").st_uid != os.geteuid():
            return False
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            if not file.read(1):
                # Dead and not waited for.
                return False
        os.listdir(f"/proc/{pid}/fd")
    except (FileNotFoundError, ProcessLookupError):
        return False
    except PermissionError:
        # Ours, and it does not let us look.
        return True
    return boot_of(pid) is not None


def _remove(root: int, name: str, directory: int) -> None:
    for each in (SOCKET_NAME, PID_NAME):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(each, dir_fd=directory)
    if os.path.samestat(os.stat(name, dir_fd=root, follow_symlinks=False), os.fstat(directory)):
        os.rmdir(name, dir_fd=root)
