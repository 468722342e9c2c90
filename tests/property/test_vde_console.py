"""Whatever is said to a console, it means one command at most, and every reply can be told from its end."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from umlab.wire.vde_console import find_command, format_help, menu, read_command, serialize_reply

READS = st.binary(max_size=128).map(lambda data: data.decode("utf-8", "surrogateescape"))
PATHS = st.lists(st.text("abc/", min_size=1, max_size=6), max_size=6)


@given(READS)
def test_command_is_one_line_without_its_frame(text: str) -> None:
    command = read_command(text)
    assert command in text
    assert "\n" not in command
    assert "\0" not in command
    assert read_command(command) == command


@given(READS, READS)
def test_what_follows_the_line_end_is_nobodys(first: str, second: str) -> None:
    assert read_command(f"{first}\n{second}") == read_command(first)


@given(st.text("abc/ 1", max_size=12), PATHS)
def test_first_path_that_fits_is_found(line: str, paths: list[str]) -> None:
    fitting = [path for path in paths if line[: len(path)] == path]
    found = find_command(line, paths)
    if found is None:
        assert not fitting
    else:
        path, argument = found
        assert path == fitting[0]
        assert argument == line[len(path) :].strip(" ")


@given(st.integers(0, 999), st.lists(READS.map(lambda text: "x" + text.replace("\n", ""))))
def test_reply_is_told_from_its_end(code: int, lines: list[str]) -> None:
    data = "".join(f"{line}\n" for line in lines)
    reply = serialize_reply(code, "Text", data)
    head, *rest = reply.split(b"\n")
    assert head == b"0000 DATA END WITH '.'"
    end = rest.index(b".")
    assert rest[:end] == [line.encode("utf-8", "surrogateescape") for line in lines]
    assert rest[end + 1 :] == [b"1%03d Text" % code, b""]


@given(PATHS, st.text("abc/", max_size=3))
def test_help_has_a_line_for_each_command_that_begins_so(paths: list[str], start: str) -> None:
    lines = format_help([menu(path, "A") for path in paths], start).splitlines()[2:]
    assert [line.split()[0] for line in lines] == [path for path in paths if path.startswith(start)]
