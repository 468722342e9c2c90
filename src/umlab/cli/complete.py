"""Names for the shell's completion: quick, and never an error, whatever state the labs are in."""

from __future__ import annotations

import json


def lab_names(incomplete: str) -> list[str]:
    """Return the labs that run."""
    return [name for name in _running() if name.startswith(incomplete)]


def switch_names(incomplete: str) -> list[str]:
    """Return the switches that run, each in its shortest form."""
    names = []
    for lab, view in _running().items():
        names += [switch if switch == lab else f"{lab}/{switch}" for switch in view["switches"]]
    return [name for name in names if name.startswith(incomplete)]


def guest_names(incomplete: str) -> list[str]:
    """Return the guests of all labs, each in its shortest form."""
    found = [(lab, guest) for lab, view in _running().items() for guest in view["guests"]]
    plain = [guest for _, guest in found]
    names = [guest if plain.count(guest) == 1 else f"{lab}/{guest}" for lab, guest in found]
    if "/" in incomplete:
        names = [f"{lab}/{guest}" for lab, guest in found]
    return [name for name in names if name.startswith(incomplete)]


def setting_names(incomplete: str) -> list[str]:
    """Return what ``switch set`` can change."""
    from umlab.cli.setting import SETTINGS

    if "=" in incomplete:
        key = incomplete.partition("=")[0]
        values = SETTINGS[key].examples if key in SETTINGS else ()
        return [word for word in (f"{key}={value}" for value in values) if word.startswith(incomplete)]
    return [f"{key}=" for key in SETTINGS if key.startswith(incomplete)]


def _running() -> dict[str, dict[str, list[str]]]:
    """Return the names of switches and guests of every lab that answers."""
    from umlab.client.survey import survey

    found = {}
    for name, answer in survey().answers.items():
        try:
            view = json.loads(answer or b"")[0]
            found[name] = {kind: [str(each) for each in view[kind]] for kind in ("switches", "guests")}
        except (ValueError, LookupError, TypeError):
            # No daemon of this version.
            continue
    return found
