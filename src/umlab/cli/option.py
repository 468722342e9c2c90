"""Options and arguments that several commands have."""

from __future__ import annotations

import re
from itertools import pairwise
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from umlab.cli import complete

_WORDS = "umlab.words"
_SECONDS = re.compile(r"\d+(\.\d*)?|\.\d+")
_DEFAULT_SECONDS = "2"

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object per line.")]
Watch = Annotated[
    float | None,
    typer.Option(
        "--watch",
        metavar="[SECONDS]",
        min=0.1,
        help=f"Show it again every so many seconds, {_DEFAULT_SECONDS} unless given, until interrupted.",
        show_default=False,
    ),
]
LabNames = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="LAB",
        help="Labs; all that run now unless given.",
        autocompletion=complete.lab_names,
        show_default=False,
    ),
]
SwitchName = Annotated[
    str,
    typer.Argument(
        metavar="NAME",
        help="The switch, or LAB/SWITCH in a lab with several.",
        autocompletion=complete.switch_names,
        show_default=False,
    ),
]
GuestName = Annotated[
    str,
    typer.Argument(
        metavar="NAME",
        help="The guest, or LAB/GUEST where several labs have one of that name.",
        autocompletion=complete.guest_names,
        show_default=False,
    ),
]
UmlDirs = Annotated[
    list[str] | None,
    typer.Option(
        "--uml-dir",
        metavar="DIR",
        help="Look for guests in this directory as well; may be repeated.",
        show_default=False,
    ),
]


class WatchCommand(TyperCommand):
    """A command whose ``--watch`` takes its seconds or leaves them out."""

    def parse_args(self, ctx: typer.Context, args: list[str]) -> list[str]:  # type: ignore[override]
        """Parse the arguments, the left out seconds put in."""
        full = []
        for word, following in pairwise([*args, ""]):
            full.append(word)
            if word == "--watch" and not _SECONDS.fullmatch(following):
                full.append(_DEFAULT_SECONDS)
        return super().parse_args(ctx, full)


class CommandWords(TyperCommand):
    """A command whose words behind ``--`` are another one's, as :func:`command_words` tells.

    Attributes:
        words_usage: How the usage line shows them.
    """

    words_usage = "-- COMMAND..."

    def parse_args(self, ctx: typer.Context, args: list[str]) -> list[str]:  # type: ignore[override]
        """Parse the arguments before ``--``."""
        if "--" in args:
            at = args.index("--")
            args, ctx.meta[_WORDS] = args[:at], args[at + 1 :]
        return super().parse_args(ctx, args)

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        """Return the pieces of the usage line."""
        return [*super().collect_usage_pieces(ctx), self.words_usage]


def command_words(ctx: typer.Context) -> list[str] | None:
    """Return the words behind ``--``, ``None`` where there is no ``--``."""
    words: list[str] | None = ctx.meta.get(_WORDS)
    return words
