"""The rules of the house, as functions from a source tree to the lines that break them.

A rule returns one text per violation, so an empty list means that it is kept.  What the floors are
for: docs/adr/0001-sans-io-floors.md.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

MAX_LINES = 500

#: What each part of ``umlab`` may import: parts on lower floors only, and see SAME_FLOOR.
FLOORS = {
    "": 0,
    "errors": 0,
    "_boot": 0,
    "_clock": 0,
    "_descriptor_limit": 0,
    "_line_writer": 0,
    "_name": 0,
    "_notify": 0,
    "_tasks": 0,
    "_peer_credentials": 0,
    "_readable": 0,
    "wire": 1,
    "switch": 2,
    "engine": 3,
    "transports": 3,
    "mconsole": 4,
    "guest": 4,
    "capture": 4,
    "uplink": 4,
    "trunk": 4,
    "console": 5,
    "lab": 5,
    "keeper": 5,
    "daemon": 5,
    "api": 6,
    "client": 6,
    "cli": 7,
    "compat": 7,
    "web": 7,
    "testing": 8,
}
#: Floors whose parts may import each other, as long as there is no circle.
SAME_FLOOR = {0, 5, 6, 7}
#: Floors on which other people's packages may be imported.
THIRD_PARTY = {5, 6, 7, 8}
#: Parts that are plain computation: time, bytes and randomness come in as arguments.
PURE = {"wire", "switch"}
IMPURE_MODULES = {
    *("_signal", "_socket", "_thread", "asyncio", "concurrent", "datetime", "fcntl", "io", "logging"),
    *("multiprocessing", "os", "pathlib", "posix", "random", "secrets", "select", "selectors", "shutil"),
    *("signal", "socket", "ssl", "subprocess", "tempfile", "threading", "time", "uuid"),
}

FORBIDDEN_WORDS = {"Manager", "Helper", "Helpers", "Base", "Util", "Utils", "Common", "Misc"}
#: What a reader elsewhere cannot follow.  Written so that this file does not match itself.
FORBIDDEN_TEXT = {
    "an issue number": r"(?i)\bissue ?#?\d|\(#[0-9]+\)",
    "a path of one machine": r"/wor[k]/|/roo[t]/\.",
    "a package registry's host": r"(?i)pypi\.or[g]|pythonhosted\.or[g]|npmjs\.(?:or[g]|co[m])",
    "who wrote it": r"\bA[I]\b|\bLL[M]s?\b|(?i:claud[e]|anthropi[c]|chatgp[t])",
}
NOT_OURS = {"build", "dist", "__pycache__", "node_modules"}


@dataclass(frozen=True)
class Module:
    """One parsed source file.

    Attributes:
        name: Full dotted name; a package's ``__init__`` has the package's name.
        path: Where it was read from.
        tree: Its syntax tree.
        lines: How many lines it has.
    """

    name: str
    path: Path
    tree: ast.Module
    lines: int

    @property
    def part(self) -> str:
        """The first name below ``umlab``; empty for ``umlab`` itself."""
        return part_of(self.name)

    @property
    def package(self) -> str:
        """The package against which its relative imports are resolved."""
        return self.name if self.path.name == "__init__.py" else self.name.rpartition(".")[0]


def part_of(module: str) -> str:
    """Return the part of umlab that a module belongs to, such as ``wire`` for ``umlab.wire.mconsole``."""
    return [*module.split("."), ""][1]


def load(source: Path) -> list[Module]:
    """Parse every Python file below a source directory such as ``src``."""
    modules = []
    for path in sorted(source.rglob("*.py")):
        name = ".".join(path.relative_to(source).with_suffix("").parts).removesuffix(".__init__")
        text = path.read_text()
        modules.append(Module(name, path, ast.parse(text, str(path)), text.count("\n")))
    return modules


def imports(module: Module) -> Iterator[tuple[int, str]]:
    """Yield line and full name of everything a module imports, at its top or anywhere inside.

    ``from a import b`` yields ``a.b``: whether b is a module or a name in one makes no difference here.
    Imports for type checkers count as well, and so do those by ``import_module("name")``.
    """
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom):
            origin = node.module or ""
            if node.level:
                parents = module.package.split(".")
                parents = parents[: len(parents) - node.level + 1]
                origin = ".".join([*parents, origin] if origin else parents)
            for alias in node.names:
                yield node.lineno, f"{origin}.{alias.name}"
        elif isinstance(node, ast.Call) and _called(node) in ("import_module", "__import__") and node.args:
            name = node.args[0]
            if isinstance(name, ast.Constant) and isinstance(name.value, str):
                yield node.lineno, name.value


def _called(call: ast.Call) -> str:
    if isinstance(call.func, ast.Attribute):
        return call.func.attr
    return call.func.id if isinstance(call.func, ast.Name) else ""


def _internal_imports(modules: list[Module]) -> Iterator[tuple[Module, int, str]]:
    for module in modules:
        for line, name in imports(module):
            if name.split(".")[0] == "umlab" and part_of(name) != module.part:
                part = part_of(name)
                # ``from umlab import __version__`` names no part.
                yield module, line, part if part in FLOORS or not part.startswith("__") else ""


def unknown_parts(modules: list[Module]) -> list[str]:
    """Every part of umlab has its floor."""
    return [f"{part}: give it a floor" for part in sorted({m.part for m in modules} - FLOORS.keys())]


def upward_imports(modules: list[Module]) -> list[str]:
    """Imports point down; on floors 3 and 4 the parts do not know each other either."""
    found = []
    for module, line, part in _internal_imports(modules):
        own, other = FLOORS.get(module.part, -1), FLOORS.get(part, 99)
        if other > own or (other == own and own not in SAME_FLOOR):
            found.append(f"{module.path}:{line}: {module.part or 'umlab'} must not import {part}")
    return found


def circular_parts(modules: list[Module]) -> list[str]:
    """Parts do not import each other in a circle."""
    edges: dict[str, set[str]] = {}
    for module, _, part in _internal_imports(modules):
        edges.setdefault(module.part, set()).add(part)

    def reachable(start: str) -> set[str]:
        seen: set[str] = set()
        ahead = set(edges.get(start, ()))
        while ahead:
            part = ahead.pop()
            seen.add(part)
            ahead |= edges.get(part, set()) - seen
        return seen

    return [
        f"{part or 'umlab'}: imports itself in a circle" for part in sorted(edges) if part in reachable(part)
    ]


def impure_imports(modules: list[Module]) -> list[str]:
    """``wire`` and ``switch`` have no sockets, clock, logging, threads or randomness."""
    return [
        f"{module.path}:{line}: {module.part} is pure and must not import {name}"
        for module in modules
        if module.part in PURE
        for line, name in imports(module)
        if name.split(".")[0] in IMPURE_MODULES
    ]


def third_party_imports(modules: list[Module]) -> list[str]:
    """Below floor 5 there is the standard library and nothing else."""
    known = sys.stdlib_module_names | {"umlab", "_typeshed"}
    return [
        f"{module.path}:{line}: floor {FLOORS.get(module.part, -1)} must not import {name}"
        for module in modules
        if FLOORS.get(module.part, -1) not in THIRD_PARTY
        for line, name in imports(module)
        if name.split(".")[0] not in known
    ]


def missing_docstrings(modules: list[Module]) -> list[str]:
    """Every module says its job; so does every public class, function and method of a public module."""
    found = []
    for module in modules:
        if ast.get_docstring(module.tree) is None:
            found.append(f"{module.path}:1: the module has no docstring")
        if not module.name.rpartition(".")[2].startswith("_"):
            found += [
                f"{module.path}:{node.lineno}: {node.name} has no docstring"
                for node in _public_definitions(module.tree)
                if ast.get_docstring(node) is None
            ]
    return found


def _public_definitions(
    parent: ast.Module | ast.ClassDef,
) -> Iterator[ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in parent.body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            # A setter or an overload is documented where its name is first defined.
            repeated = any(ast.unparse(d).endswith((".setter", "overload")) for d in node.decorator_list)
            if not node.name.startswith("_") and not repeated:
                yield node
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                yield from _public_definitions(node)


def long_files(modules: list[Module]) -> list[str]:
    """A file that has grown too long has more than one job."""
    return [f"{m.path}: {m.lines} lines, at most {MAX_LINES}" for m in modules if m.lines > MAX_LINES]


def bad_names(modules: list[Module]) -> list[str]:
    """A name says what a thing is; these words say nothing."""
    found = []
    for module in modules:
        words = module.path.stem.title().split("_")
        found += [f"{module.path}: '{word}' says nothing" for word in words if word in FORBIDDEN_WORDS]
        for node in ast.walk(module.tree):
            if isinstance(node, ast.ClassDef):
                where = f"{module.path}:{node.lineno}: {node.name}"
                words = re.findall(r"[A-Z]+(?![a-z])|[A-Z][a-z0-9]*", node.name)
                found += [f"{where}: '{word}' says nothing" for word in words if word in FORBIDDEN_WORDS]
                if re.match(r"I(?!Pv)[A-Z][a-z]", node.name.lstrip("_")):
                    found.append(f"{where}: an I in front says nothing")
    return found


def foreign_text(root: Path) -> list[str]:
    """Nothing in the tree needs knowledge of the place where it was written."""
    found = []
    for path in _own_files(root):
        try:
            lines = path.read_text().splitlines()
        except (UnicodeDecodeError, FileNotFoundError):
            continue
        for number, line in enumerate(lines, 1):
            for what, pattern in FORBIDDEN_TEXT.items():
                if match := re.search(pattern, line):
                    found.append(f"{path}:{number}: '{match[0]}' is {what}")
    return found


def _own_files(directory: Path) -> Iterator[Path]:
    for path in sorted(directory.iterdir()):
        if path.name in NOT_OURS or path.name.endswith(".egg-info") or path.is_symlink():
            continue
        if path.is_dir():
            if path.name.startswith(".") and path.name != ".ci":
                continue
            yield from _own_files(path)
        elif path.is_file():
            yield path
