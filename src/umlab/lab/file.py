"""The lab file: from its path to switches and guests, or to everything that is wrong with it."""

from __future__ import annotations

import dataclasses
import difflib
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import NoneType
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from umlab._name import check_name
from umlab.daemon.spec import SwitchSpec
from umlab.errors import LabError, LabFileError, LabFileErrors
from umlab.guest.cmdline import GuestSpec
from umlab.lab.document import MAX_SIZE, SHOWN, Document, Key, Problem, read_document
from umlab.lab.port import Mirror, Port
from umlab.lab.resolve import guest_spec, switch_spec
from umlab.lab.schema import Disk, Guest, Nic, Scope, Segment

#: Errors of one file that are told; nobody reads more at once.
MAX_ERRORS = 100

_Part = TypeVar("_Part")
_SEGMENT, _GUEST = TypeAdapter(Segment), TypeAdapter(Guest)
_PARTS = ["segments", "guests"]
#: Steps to an error that are none in the file.
_NO_KEYS = ("[key]", "[disk]", "[host]")
_TYPE_REASONS = {
    "missing": "must be given",
    "dataclass_type": "must have keys below it",
    "tuple_type": "must be a list",
    "dict_type": "must have keys below it",
}


@dataclass(frozen=True, slots=True)
class LabFile:
    """What a lab file describes, in its order.

    Attributes:
        segments: The switches, by name.
        guests: The guests, by name; their NICs attach to the switches' sockets.
    """

    segments: dict[str, SwitchSpec]
    guests: dict[str, GuestSpec]


def load(path: str | os.PathLike[str], *, runtime: Path, state: Path | None = None) -> LabFile:
    """Read a lab file; blocks while it does, a second at most for the worst of files.

    Args:
        path: The file; relative paths in it begin at its folder.
        runtime: The lab's directory for sockets, see :func:`umlab.daemon.place.runtime_directory`.
        state: The lab's directory for disks; the one of the lab that ``runtime`` is named after unless given.

    Raises:
        LabFileError: The file cannot be read, or one thing in it is wrong.
        LabFileErrors: Several things are; the first hundred are told.
    """
    file = os.fspath(path)
    document = read_document(_read(file))
    loader = _Loader(document, os.path.dirname(os.path.abspath(file)), runtime, state)
    # What broke off has no tree.
    lab = loader.load() if document.tree is not None else None
    problems = sorted(document.problems, key=lambda problem: problem.line)[:MAX_ERRORS]
    errors = tuple(LabFileError(file, each.line, _shown(each.key), each.reason) for each in problems)
    if len(errors) > 1:
        raise LabFileErrors(errors)
    if errors:
        raise errors[0]
    assert lab is not None
    return lab


def _read(file: str) -> bytes:
    try:
        # A FIFO must not hold us up before we know that it is one.
        fd = os.open(file, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
        try:
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                raise LabFileError(file, 1, "", "is not a regular file")
            with open(fd, "rb", closefd=False) as stream:
                return stream.read(MAX_SIZE + 1)
        finally:
            os.close(fd)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise LabFileError(file, 1, "", f"cannot be read: {reason}") from None


def _shown(key: Key) -> str:
    """Return a key path as people write it: ``guests.left.nics[0].mac``."""
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part[:SHOWN]}" for part in key)
    return text.removeprefix(".")


class _Loader:
    """Validates a document part by part, so that one that is wrong does not hide another's errors."""

    def __init__(self, document: Document, folder: str, runtime: Path, state: Path | None) -> None:
        self._document = document
        self._folder = folder
        self._runtime = runtime
        self._state = state
        #: Who listens at a socket or device.
        self._places: dict[str, str] = {}

    def load(self) -> LabFile:
        """Return all that is right; what is wrong is added to the document's problems."""
        segments, guests = self._parts()
        switches: dict[str, SwitchSpec] = {}
        for name, value in segments.items():
            key = ("segments", name)
            segment = self._named(_SEGMENT, value, key, Scope(name, self._folder, self._runtime))
            if segment is not None:
                switches[name] = switch_spec(name, segment)
                self._check_places(key, switches[name])
        listening = {name: switches[name].listen if name in switches else None for name in segments}
        specs: dict[str, GuestSpec] = {}
        for name, value in guests.items():
            scope = Scope(name, self._folder, self._runtime, listening, self._state)
            guest = self._named(_GUEST, value, ("guests", name), scope)
            if guest is not None and all(nic.segment in switches for nic in guest.nics):
                specs[name] = guest_spec(name, guest, switches)
        return LabFile(switches, specs)

    def _parts(self) -> Iterator[dict[str, Any]]:
        """Yield what stands below each of the file's own keys; nothing where they are wrong."""
        tree = self._document.tree
        if not isinstance(tree, dict):
            self._problem((), f"must have the keys {' and '.join(_PARTS)}")
            tree = {}
        for name in tree.keys() - _PARTS:
            self._problem((name,), _unknown_key(name, _PARTS))
        for name in _PARTS:
            part = tree.get(name)
            if not isinstance(part, dict | NoneType):
                self._problem((name,), "must have names below it")
            yield part if isinstance(part, dict) else {}

    def _named(self, adapter: TypeAdapter[_Part], value: Any, key: Key, scope: Scope) -> _Part | None:
        """Validate a segment or guest; under an unusable name its keys are checked all the same."""
        usable = True
        try:
            check_name(str(key[0]).removesuffix("s"), scope.name)
        except LabError as error:
            self._problem(key, str(error))
            usable = False
            scope = dataclasses.replace(scope, name="unnamed")
        part = self._validated(adapter, {} if value is None else value, key, scope)
        return part if usable else None

    def _validated(self, adapter: TypeAdapter[_Part], value: Any, key: Key, scope: Scope) -> _Part | None:
        try:
            return adapter.validate_python(value, context=scope)
        except ValidationError as refusal:
            for error in refusal.errors(include_url=False, include_input=False):
                # A key that is wrong is where it stands.
                where = (*key, *(step for step in error["loc"] if step not in _NO_KEYS))
                self._problem(where, _reason(error, where))
        return None

    def _check_places(self, key: Key, switch: SwitchSpec) -> None:
        for number, spec in enumerate(switch.listen):
            kind, _, whole = spec.partition(":")
            # Other commas are between what is no path, or is another's.
            for place in whole.split(",") if kind == "daemon" else [whole]:
                if place in self._places:
                    reason = f"{place} is taken already, by segment {self._places[place]}"
                    self._problem((*key, "listen", number), reason)
                self._places.setdefault(place, switch.name)

    def _problem(self, key: Key, reason: str) -> None:
        self._document.problems.append(Problem(self._document.line_of(key), key, reason))


def _reason(error: Any, key: Key) -> str:
    kind = error["type"]
    if kind == "value_error":
        return str(error["ctx"]["error"])
    if kind == "unexpected_keyword_argument":
        known = [field.name for field in dataclasses.fields(_schema_of(key[:-1]))]
        return _unknown_key(str(key[-1]), known)
    if kind == "literal_error":
        return f"must be {error['ctx']['expected']}"
    return _TYPE_REASONS[kind]


def _schema_of(key: Key) -> Any:
    """Return the dataclass that describes the keys below a key."""
    match key:
        case ("segments", _):
            return Segment
        case ("guests", _):
            return Guest
        case ("guests", _, "root"):
            return Disk
        case ("segments", _, "ports", _):
            return Port
        case ("segments", _, "mirrors", _):
            return Mirror
    return Nic


def _unknown_key(name: str, known: list[str]) -> str:
    # Comparing takes long for long names, and those are nobody's slip.
    near = difflib.get_close_matches(name, known, 1) if len(name) <= SHOWN else []
    if near:
        return f"there is no such key; did you mean {near[0]}?"
    return f"there is no such key; there are {', '.join(known)}"
