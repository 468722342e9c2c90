"""``umlab guest``: the guests of running labs, and of this machine."""

from __future__ import annotations

import typer

from umlab.cli import attach, device, guest_cp, guest_exec, guest_ls, kernel, logs
from umlab.cli.option import WatchCommand

app = typer.Typer(help="Guests of running labs.", no_args_is_help=True)
app.command("ls", cls=WatchCommand, epilog=guest_ls.EPILOG)(guest_ls.ls)
app.command("attach", epilog=attach.EPILOG)(attach.attach)
app.command("exec", cls=guest_exec.ExecCommand, epilog=guest_exec.EPILOG)(guest_exec.execute)
app.command("cp", epilog=guest_cp.EPILOG)(guest_cp.copy)
app.command("logs", epilog=logs.EPILOG)(logs.logs)
app.command("stack", epilog=kernel.STACK_EPILOG)(kernel.stack)
app.command("sysrq", epilog=kernel.SYSRQ_EPILOG)(kernel.sysrq)
app.add_typer(device.app, name="device")
