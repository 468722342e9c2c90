"""Command lines as the C library's ``getopt_long_only`` reads them, with its messages.

Long options may have one hyphen or two, and may be cut as long as one option only begins so.  Options and
other words may come in any order.  An error costs a message and not more, as the original has it.

Source: getopt(3).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence


class OptionReader:
    """Reads a command line.

    Args:
        program: The name that messages begin with.
        long: Whether each long option takes an argument.
        short: The long option that each letter stands for.
        complain: Takes a message.

    Attributes:
        words: Words that are no options.
    """

    def __init__(
        self,
        program: str,
        long: Mapping[str, bool],
        short: Mapping[str, str],
        complain: Callable[[str], None],
    ) -> None:
        self.words: list[str] = []
        self._program = program
        self._long = long
        self._short = short
        self._complain = complain
        self._found: list[tuple[str, str]] = []

    def read(self, words: Sequence[str]) -> list[tuple[str, str]]:
        """Return the long names of the options that are there, each with its argument or nothing."""
        waiting = list(words)
        while waiting:
            word = waiting.pop(0)
            if word == "--":
                self.words += waiting
                break
            if len(word) < 2 or word[0] != "-":
                self.words.append(word)
            elif not self._is_long(word) or not self._read_long(word, waiting):
                self._read_letters(word[1:], waiting)
        return self._found

    def _is_long(self, word: str) -> bool:
        return word.startswith("--") or len(word) > 2 or word[1] not in self._short

    def _read_long(self, word: str, waiting: list[str]) -> bool:
        """Take a long option; return whether it was one, or an error of its own."""
        dashes = "--" if word.startswith("--") else "-"
        name, equals, value = word[len(dashes) :].partition("=")
        matches = [name] if name in self._long else [each for each in self._long if each.startswith(name)]
        if len(matches) > 1:
            possible = " ".join(f"'{dashes}{each}'" for each in matches)
            self._say(f"option '{word}' is ambiguous; possibilities: {possible}")
        elif not matches:
            if dashes == "-" and word[1] in self._short:
                return False
            self._say(f"unrecognized option '{word}'")
        elif not self._long[matches[0]]:
            if equals:
                self._say(f"option '{dashes}{matches[0]}' doesn't allow an argument")
            else:
                self._found.append((matches[0], ""))
        elif equals or waiting:
            self._found.append((matches[0], value if equals else waiting.pop(0)))
        else:
            self._say(f"option '{dashes}{matches[0]}' requires an argument")
        return True

    def _read_letters(self, letters: str, waiting: list[str]) -> None:
        for index, letter in enumerate(letters):
            name = self._short.get(letter)
            rest = letters[index + 1 :]
            if name is None:
                self._say(f"invalid option -- '{letter}'")
            elif not self._long[name]:
                self._found.append((name, ""))
            elif rest or waiting:
                self._found.append((name, rest or waiting.pop(0)))
                return
            else:
                self._say(f"option requires an argument -- '{letter}'")

    def _say(self, text: str) -> None:
        self._complain(f"{self._program}: {text}")
