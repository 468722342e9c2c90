"""What the shell knows of commands: what is deadly, and help with examples."""

from __future__ import annotations

import pytest

from umlab.cli.console_line import parse_line
from umlab.cli.console_verb import VERBS, danger, help_lines


@pytest.mark.parametrize(
    "text",
    [
        "halt",
        "reboot",
        "cad",
        "halting",
        "sysrq b",
        "sysrqb",
        "sysrq  c now",
        "sysrq o",
        "sysrq t",
        "sysrq e",
        "remove ubda",
        "removeubd0",
    ],
)
def test_deadly_commands_are_known_as_the_kernel_reads_them(text: str) -> None:
    assert danger(text)


@pytest.mark.parametrize(
    "text",
    ["version", "stop", "log halt", "sysrq", "sysrq m", "sysrq B", " halt", "remove ubdb", "config ubda", ""],
)
def test_others_are_not(text: str) -> None:
    assert danger(text) is None


def test_sysrq_t_is_deadly_where_a_kernel_is_old_or_unknown() -> None:
    assert danger("sysrq t", ["6.12.3"]) is None
    assert danger("sysrq t", ["6.12.3", "6.1.176"])
    assert danger("sysrq t", ["6.12.3", ""])
    assert danger("sysrq b", ["6.12.3"])


def test_every_command_has_help_with_examples_of_itself() -> None:
    overview = "\n".join(help_lines())
    for name, verb in VERBS.items():
        assert verb.usage in overview
        lines = help_lines(name)
        assert f"    {verb.does}" in lines
        assert verb.examples
        for example in verb.examples:
            assert f"    {example}" in lines
            assert parse_line(example).verb == name
    with pytest.raises(KeyError):
        help_lines("dance")
