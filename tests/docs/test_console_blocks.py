"""The runner of documents' commands notices what is wrong with a document."""

from __future__ import annotations

from pathlib import Path

import pytest

from support import console_blocks
from support.console_blocks import Command, DocumentError, output_matches, parse_commands, run_document


def _block(*lines: str, language: str = "console") -> str:
    return "\n".join(["# Title", "", f"```{language}", *lines, "```", ""])


def test_commands_and_outputs_are_told_apart() -> None:
    text = (
        _block("$ echo a \\", "    b", "a b", "", "$ cat <<X", "> one", "> X", "$ true")
        + "\n```text\nplain\n```\n"
    )
    assert parse_commands(text) == [
        Command(4, "echo a \\\n    b", "a b\n"),
        Command(8, "cat <<X\none\nX", None),
        Command(11, "true", None),
    ]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (_block("echo a"), "line 4: a console block begins with a command"),
        (_block("$ true", language="sh"), "line 3: commands belong in a console block"),
        (_block("$ true", language=""), "line 3: commands belong in a console block"),
        ("```console\n$ true\n", "line 1: the block never ends"),
    ],
)
def test_commands_that_nobody_would_run_are_refused(text: str, words: str) -> None:
    with pytest.raises(DocumentError, match=words):
        parse_commands(text)


@pytest.mark.parametrize(
    ("shown", "printed", "same"),
    [
        ("a", "a\n", True),
        ("a", "b\n", False),
        ("a", "a\nb\n", False),
        ("a ... c", "a b c", True),
        ("a\n...\nd", "a\nb\nc\nd\n", True),
        ("a.c", "abc", False),
    ],
)
def test_dots_stand_for_anything(shown: str, printed: str, same: bool) -> None:
    assert output_matches(shown, printed) is same


def test_commands_share_one_shell_and_directory(short_dir: Path) -> None:
    text = _block("$ mkdir d && cd d", "$ x=1", "$ touch f$x") + _block("$ ls; pwd", "f1", f"{short_dir}/d")
    assert run_document(text, short_dir) == 4
    assert (short_dir / "d/f1").exists()


def test_umlab_is_the_one_of_this_checkout(short_dir: Path) -> None:
    assert run_document(
        _block("$ command -v umlab uml_switch python", ".../umlab\n.../uml_switch\n..."), short_dir
    )


def test_make_runs_in_the_checkout_but_never_the_tests(short_dir: Path) -> None:
    text = _block("$ make help", "...make demo...", "$ make test", "(these tests are running already)")
    assert run_document(text, short_dir) == 2


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (["$ ls /nowhere"], r"line 4: status 2: \$ ls /nowhere\nls: cannot access"),
        (["$ echo b", "a"], r"line 4: \$ echo b\nshown:\na\nprinted:\nb"),
        (["$ exit 0"], "line 4: ended the shell"),
        (["$ true", "$ printf 'no newline'", "with"], r"line 5: .*\nshown:\nwith\nprinted:\nno newline$"),
    ],
)
def test_wrong_command_is_noticed(command: list[str], words: str, short_dir: Path) -> None:
    with pytest.raises(DocumentError, match=words):
        run_document(_block(*command), short_dir)


def test_hanging_command_is_noticed_and_ended(short_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(console_blocks, "COMMAND_TIMEOUT", 0.2)
    with pytest.raises(DocumentError, match="not finished"):
        run_document(_block("$ sleep 1000"), short_dir)


def test_background_process_ends_with_the_document(short_dir: Path) -> None:
    assert run_document(_block("$ sleep 1000 &", "$ kill -0 $!"), short_dir) == 2
