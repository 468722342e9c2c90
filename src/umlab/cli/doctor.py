"""``umlab doctor``: what this machine lacks or blocks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from umlab.cli import complete
from umlab.cli.output import Output

if TYPE_CHECKING:
    from umlab.lab.doctor.finding import Finding

EPILOG = """
Examples:

  umlab doctor

  umlab doctor --json

  umlab doctor --kernel ./linux
"""


def doctor(
    kernel: Annotated[
        str,
        typer.Option(metavar="KERNEL", help="The kernel to look at.", autocompletion=complete.kernel_names),
    ] = "debian",
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as one JSON object.")] = False,
) -> None:
    """Look at everything that guests and labs need from this machine, and say how to fix what is wrong.

    Boots no guest and leaves nothing behind. The status is 0 if nothing fails; warnings do not count.
    """
    import dataclasses

    from umlab.daemon.place import runtime_base, state_base
    from umlab.guest.kernel.store import kernel_program
    from umlab.lab.doctor.finding import Status, Subject
    from umlab.lab.doctor.registry import run_checks

    output = Output(as_json=as_json)
    findings = run_checks(Subject(kernel_program(kernel), str(runtime_base()), str(state_base())))
    ok = all(each.status is not Status.FAIL for each in findings)
    record = {"ok": ok, "findings": [dataclasses.asdict(each) for each in findings]}
    output.record(record, _table(findings))
    if not ok:
        raise typer.Exit(1)


def _table(findings: list[Finding]) -> str:
    width = max(len(each.name) for each in findings)
    lines = []
    for each in findings:
        lines.append(f"{each.status.upper():<4}  {each.name:<{width}}  {each.detail}")
        if each.fix:
            lines.append(f"{'':<4}  {'':<{width}}  fix: {each.fix}")
    return "\n".join([*lines, _verdict({each.status.value for each in findings})])


def _verdict(found: set[str]) -> str:
    if "fail" in found:
        return "not everything runs here: see what is marked FAIL"
    return "guests and labs run here" + (", but see what is marked WARN" if "warn" in found else "")
