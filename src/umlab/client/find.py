"""Where the guest of a name is: in a lab, whose daemon is asked, or elsewhere, to be asked itself."""

from __future__ import annotations

import contextlib
import json
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

from umlab.client.survey import BUSY_TIME, Survey, survey
from umlab.daemon.place import GUESTS, runtime_base
from umlab.errors import LabError, MconsoleUnreachable, NoSuchGuest
from umlab.mconsole.discover import Found, discover, process_roots, usual_roots
from umlab.mconsole.locate import SOCKET_NAME

__all__ = ["GuestPlace", "Lookup", "find_guest", "guest_roots", "lab_of", "short_names"]


@dataclass(frozen=True, slots=True)
class GuestPlace:
    """How a guest is reached; one of ``lab`` and ``path`` is given.

    Attributes:
        umid: Its name; of a guest outside labs, text that anybody may have chosen.
        lab: The lab whose daemon speaks for it.
        path: Its console's socket, of a guest that no daemon speaks for.
    """

    umid: str
    lab: str | None
    path: str | None


def find_guest(name: str, uml_dirs: Sequence[str] = ()) -> GuestPlace:
    """Return where a guest is; labs come first.

    Args:
        name: ``GUEST``, ``LAB/GUEST``, or the path of a run directory or console socket, which begins
            with ``/`` or ``.``.
        uml_dirs: Directories to look in beside those of `guest_roots`.

    Raises:
        NoSuchGuest: There is none.
        LabError: There are several, or it is another user's, who is reached by path alone.
        MconsoleUnreachable: The path has nothing.
    """
    return Lookup(uml_dirs).find(name)


class Lookup:
    """Finds guests by their names, any number of them by one look at labs and directories.

    Args:
        uml_dirs: Directories to look in beside those of `guest_roots`.
    """

    def __init__(self, uml_dirs: Sequence[str] = ()) -> None:
        self._uml_dirs = uml_dirs

    def find(self, name: str) -> GuestPlace:
        """Return where a guest was at the first look; takes and raises what `find_guest` does."""
        if name.startswith(("/", ".")):
            return _at(name)
        lab, sign, umid = name.rpartition("/")
        if sign:
            return GuestPlace(umid, lab, None)
        labs = self._labs_with(name)
        if not labs and None in self._surveyed.answers.values():
            # The guest may be one of a lab whose daemon is busy.
            self._surveyed = survey(BUSY_TIME)
            self._labs = _guests_of_labs(self._surveyed)
            labs = self._labs_with(name)
        if len(labs) == 1:
            return GuestPlace(name, labs[0], None)
        if labs:
            names = " or ".join(f"{each}/{name}" for each in labs)
            raise LabError(f"{name}: several labs have a guest of that name; write {names}")
        found = [each for each in self._found if each.umid == name]
        found = [each for each in found if each.state == "listening"] or found
        if not found:
            raise NoSuchGuest(name)
        if len(found) > 1:
            paths = " or ".join(each.path for each in found)
            raise LabError(f"{name}: several guests have that name; write {paths}")
        if found[0].state == "another user's":
            raise LabError(f"guest {name} is another user's; to reach it all the same, write {found[0].path}")
        return GuestPlace(name, None, found[0].path)

    def _labs_with(self, name: str) -> list[str]:
        return [each for each, guests in self._labs.items() if name in guests]

    @cached_property
    def _surveyed(self) -> Survey:
        return survey()

    @cached_property
    def _labs(self) -> dict[str, list[str]]:
        return _guests_of_labs(self._surveyed)

    @cached_property
    def _found(self) -> list[Found]:
        return [each for each in discover(guest_roots(self._uml_dirs)) if lab_of(each) not in self._labs]


def guest_roots(uml_dirs: Sequence[str] = ()) -> list[str]:
    """Return all directories that have guests' run directories: labs', the usual ones, running kernels'.

    Args:
        uml_dirs: Further ones.
    """
    return [*_lab_roots(), *usual_roots(), *uml_dirs, *process_roots()]


def lab_of(found: Found) -> str | None:
    """Return the lab, running or not, in whose directory a guest was found."""
    # BASE/LAB/g/UMID
    above, _, _ = found.root.rpartition("/")
    directory, _, guests = above.rpartition("/")
    base, _, lab = directory.rpartition("/")
    return lab if guests == GUESTS and base == os.path.abspath(runtime_base()) else None


def short_names(guests: Sequence[tuple[str, str]]) -> list[str]:
    """Return the shortest names of guests that are enough to tell them apart.

    Args:
        guests: Each guest's name, and one that no other guest has: ``LAB/GUEST``, or its socket's path.
    """
    counts = Counter(name for name, _ in guests)
    return [name if counts[name] == 1 else place for name, place in guests]


def _at(path: str) -> GuestPlace:
    if os.path.isdir(path):
        path = os.path.join(path, SOCKET_NAME)
    path = os.path.abspath(path)
    umid = os.path.basename(os.path.dirname(path) if os.path.basename(path) == SOCKET_NAME else path)
    if not os.path.lexists(path):
        raise MconsoleUnreachable(umid, "", f"does not run: nothing at {path}")
    return GuestPlace(umid, None, path)


def _guests_of_labs(surveyed: Survey) -> dict[str, list[str]]:
    """Return the guests by lab, of the labs whose daemons answer."""
    guests = {}
    for lab, answer in surveyed.answers.items():
        # What is no answer comes from a daemon of another version.
        with contextlib.suppress(ValueError, LookupError, TypeError):
            guests[lab] = [str(each) for each in json.loads(answer or b"")[0]["guests"]]
    return guests


def _lab_roots() -> Iterator[str]:
    base = runtime_base()
    for lab in _names(base):
        yield from (str(base / lab / GUESTS / guest) for guest in _names(base / lab / GUESTS))


def _names(directory: os.PathLike[str]) -> list[str]:
    try:
        return sorted(os.listdir(directory))
    except OSError:
        return []
