"""``umlab switch``: the map of its commands."""

from __future__ import annotations

import typer

from umlab.cli import switch_args, switch_change, switch_run, switch_show
from umlab.cli.option import WatchCommand

app = typer.Typer(help="Virtual Ethernet switches.", no_args_is_help=True)
app.command("run", cls=switch_run.RunCommand, epilog=switch_run.EPILOG)(switch_run.run)
app.command("ls", cls=WatchCommand, epilog=switch_show.LS_EPILOG)(switch_show.ls)
app.command("show", cls=WatchCommand, epilog=switch_show.SHOW_EPILOG)(switch_show.show)
app.command("set", epilog=switch_change.SET_EPILOG)(switch_change.set_)
app.command("stop", epilog=switch_change.STOP_EPILOG)(switch_change.stop)
app.command("args", epilog=switch_args.EPILOG)(switch_args.args)
