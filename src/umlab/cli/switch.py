"""``umlab switch``: virtual Ethernet switches."""

from __future__ import annotations

import typer

from umlab.cli import run

app = typer.Typer(help="Virtual Ethernet switches.", no_args_is_help=True)
app.command("run", epilog=run.EPILOG)(run.run)
