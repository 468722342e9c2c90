"""The house's rules are kept, and each of them notices a tree that breaks it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from support import architecture
from support.architecture import Module

ROOT = Path(__file__).resolve().parents[1]
Rule = Callable[[list[Module]], list[str]]

RULES: list[Rule] = [
    architecture.unknown_parts,
    architecture.upward_imports,
    architecture.circular_parts,
    architecture.impure_imports,
    architecture.third_party_imports,
    architecture.missing_docstrings,
    architecture.long_files,
    architecture.bad_names,
]


UP = architecture.upward_imports
IMPURE = architecture.impure_imports
DOCSTRING = architecture.missing_docstrings
NAMES = architecture.bad_names


@pytest.fixture(scope="module")
def modules() -> list[Module]:
    return architecture.load(ROOT / "src")


def test_the_whole_tree_is_looked_at(modules: list[Module]) -> None:
    names = {module.name for module in modules}
    assert {"umlab", "umlab.errors", "umlab.switch.model", "umlab.cli"} <= names
    assert len(names) == len(list((ROOT / "src").rglob("*.py")))
    # One import that is known to be there, so that the walk does find imports.
    contract = next(module for module in modules if module.name == "umlab.engine.contract")
    assert "umlab.switch.model.Link" in {name for _, name in architecture.imports(contract)}


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_source_keeps_the_rule(rule: Rule, modules: list[Module]) -> None:
    assert rule(modules) == []


def test_test_files_are_not_too_long() -> None:
    assert architecture.long_files(architecture.load(ROOT / "tests")) == []


def test_tree_has_no_foreign_text() -> None:
    assert architecture.foreign_text(ROOT) == []


def _tree(root: Path, files: dict[str, str]) -> list[Module]:
    for name, text in files.items():
        path = root / "src/umlab" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return architecture.load(root / "src")


#: A rule, a file below src/umlab that breaks it, and what the violation says.
BAD: dict[str, tuple[Rule, str, str, str]] = {
    "unknown part": (architecture.unknown_parts, "attic/x.py", "", "attic"),
    "up": (UP, "wire/x.py", "import umlab.switch.core", "wire must not import switch"),
    "up from": (UP, "switch/x.py", "from umlab import engine", "switch must not import engine"),
    "up relative": (UP, "engine/x.py", "from ..mconsole import sync", "must not import mconsole"),
    "up relative in package": (UP, "engine/__init__.py", "from .. import cli", "must not import cli"),
    "up in function": (
        UP,
        "guest/x.py",
        "def f():\n    from umlab.lab.plan import p",
        "x.py:2: guest must not",
    ),
    "up for types": (
        UP,
        "wire/x.py",
        "if TYPE_CHECKING:\n    from umlab.lab import Lab",
        "x.py:2: wire must not",
    ),
    "up by name": (UP, "guest/x.py", "import_module('umlab.daemon.place')", "must not import daemon"),
    "up from the bottom": (UP, "errors.py", "import umlab.wire", "errors must not import wire"),
    "up from umlab": (UP, "__init__.py", "from umlab.cli import main", "umlab must not import cli"),
    "floor 3 side": (
        UP,
        "engine/x.py",
        "from umlab.transports import contract",
        "must not import transports",
    ),
    "floor 4 side": (UP, "guest/x.py", "from umlab.mconsole.sync import C", "must not import mconsole"),
    "testing": (UP, "cli/x.py", "import umlab.testing", "cli must not import testing"),
    "clock": (IMPURE, "wire/x.py", "from time import monotonic", "must not import time.monotonic"),
    "socket": (IMPURE, "switch/control/x.py", "import _socket", "must not import _socket"),
    "paths": (IMPURE, "switch/x.py", "import os.path", "must not import os.path"),
    "third party": (
        architecture.third_party_imports,
        "guest/x.py",
        "from rich import box",
        "floor 4 must not",
    ),
    "no module docstring": (DOCSTRING, "wire/_x.py", "A = 1", "the module has no docstring"),
    "no class docstring": (DOCSTRING, "wire/x.py", "'''X.'''\nclass A: pass", "x.py:2: A has no docstring"),
    "no function docstring": (DOCSTRING, "x.py", "'''X.'''\nasync def f(): pass", "f has no docstring"),
    "no method docstring": (
        DOCSTRING,
        "wire/x.py",
        "'''X.'''\nclass A:\n    '''A.'''\n    def f(self): pass",
        "f has no docstring",
    ),
    "long": (architecture.long_files, "wire/x.py", "\n" * 501, "501 lines"),
    "manager": (NAMES, "guest/x.py", "class _GuestManager: pass", "'Manager' says nothing"),
    "base": (NAMES, "guest/x.py", "class BaseGuest: pass", "'Base' says nothing"),
    "I": (NAMES, "guest/x.py", "class IGuest: pass", "an I in front"),
    "utils": (NAMES, "guest/disk_utils.py", "", "'Utils' says nothing"),
}


@pytest.mark.parametrize(("rule", "file", "code", "words"), BAD.values(), ids=BAD)
def test_rule_notices_a_bad_tree(rule: Rule, file: str, code: str, words: str, tmp_path: Path) -> None:
    (violation,) = rule(_tree(tmp_path, {file: code}))
    assert words in violation


def test_circle_of_parts_is_noticed(tmp_path: Path) -> None:
    files = {
        "lab/x.py": "import umlab.daemon",
        "daemon/x.py": "import umlab.keeper",
        "keeper/x.py": "import umlab.lab",
        "console/x.py": "import umlab.lab",
    }
    circular = architecture.circular_parts(_tree(tmp_path, files))
    assert [violation.partition(":")[0] for violation in circular] == ["daemon", "keeper", "lab"]


def test_rules_accept_a_good_tree(tmp_path: Path) -> None:
    files = {
        "__init__.py": "'''U.'''\n__version__ = '1'",
        "wire/x.py": "'''X.'''\nimport struct\nfrom umlab.errors import A\nfrom . import y",
        "engine/_x.py": "'''X.'''\nimport time, select\nfrom umlab.switch import core\ndef f(): pass",
        "lab/x.py": "'''X.'''\nimport pydantic\nfrom umlab.keeper import a\nfrom umlab.guest import b",
        "cli/x.py": "'''X.'''\nimport typer\nfrom umlab import __version__\nclass Database:\n    '''D.'''",
        "wire/ip.py": "'''X.'''\nclass IPv4Header:\n    '''D.'''\n    def _f(self): pass",
        "testing/x.py": "'''X.'''\nimport pytest\nimport umlab.cli",
    }
    found = _tree(tmp_path, files)
    assert len(found) == len(files)
    assert [violation for rule in RULES for violation in rule(found)] == []


# Cut in two, so that this file does not break the rule itself.
FOREIGN = ["see iss" + "ue 12", "fixed (" + "#3)", "in /wor" + "k/main", "pypi.o" + "rg/x", "by an A" + "I"]


@pytest.mark.parametrize("text", FOREIGN)
def test_foreign_text_is_noticed_anywhere(text: str, tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs/x.md").write_text(f"fine\n{text}\n")
    (tmp_path / ".venv").mkdir()
    (tmp_path / ".venv/x.md").write_text(text)
    (tmp_path / "picture.png").write_bytes(b"\x89PNG\xff" + text.encode())
    (found,) = architecture.foreign_text(tmp_path)
    assert "docs/x.md:2" in found


@pytest.mark.parametrize("text", ["it issues 3 commands", "workers/main", "#333", "AIR", "port-helper"])
def test_similar_text_is_not_foreign(text: str, tmp_path: Path) -> None:
    (tmp_path / "x.md").write_text(text)
    assert architecture.foreign_text(tmp_path) == []
