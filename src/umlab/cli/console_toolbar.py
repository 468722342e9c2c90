"""What the toolbar of the console's shell says of the present guest."""

from __future__ import annotations

from umlab.cli.console_page import shown_name
from umlab.client.console import GuestConsole
from umlab.daemon.view import GuestVitals

#: Characters of a release that there is room for.
_MAX_RELEASE = 32


def toolbar(name: str, guest: GuestConsole | None, vitals: GuestVitals | None) -> list[tuple[str, str]]:
    """Return what the toolbar says, as pieces of text with their styles.

    Args:
        name: The guest's, as it is called here.
        guest: The present guest, ``None`` for none.
        vitals: How it is, ``None`` before anything is known.
    """
    if guest is None:
        return [("", " no guest; choose one with: switch NAME ")]
    lab = f"lab {shown_name(guest.lab)}" if guest.lab else "no lab"
    state = "?" if vitals is None else vitals.state
    style = {"answers": "class:state.ok", "?": ""}.get(state, "class:state.bad")
    parts = [("bold", f" {shown_name(name)} "), ("", f" {lab} "), (style, f" {state} ")]
    if vitals is not None and vitals.is_current:
        if vitals.release:
            parts.append(("", f" {shown_name(vitals.release[:_MAX_RELEASE])} "))
        if vitals.load is not None:
            parts.append(("", f" load {' '.join(f'{average:.2f}' for average in vitals.load)} "))
    return parts
