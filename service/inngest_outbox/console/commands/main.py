"""The `outbox` script: see, explain and repair the outbox, while the service runs or not.

Each command has a module of its name. Reading never blocks the service.
"""

from __future__ import annotations

import sys
import traceback

import structlog
import typer
from structlog.typing import EventDict

from inngest_outbox.config.env_file import read_env_file
from inngest_outbox.console.commands.audit import audit
from inngest_outbox.console.commands.check import CheckCommand, check
from inngest_outbox.console.commands.copies import backup, move, recover
from inngest_outbox.console.commands.events import list_command, show
from inngest_outbox.console.commands.journal import journal
from inngest_outbox.console.commands.owners import erase_command, sign_out
from inngest_outbox.console.commands.repairs import discard, purge, replay
from inngest_outbox.console.commands.serving import pause, resume, upgrade
from inngest_outbox.console.commands.stats import explain_command, stats
from inngest_outbox.console.commands.tail import tail
from inngest_outbox.console.commands.verify import verify_command
from inngest_outbox.console.terminal.command import UNKNOWN
from inngest_outbox.errors import ConfigurationError
from inngest_outbox.observe.logs import for_people
from inngest_outbox.observe.printable import printable_lines
from inngest_outbox.version import add_version

_HELP = """See, explain and repair the outbox.

Reading works while the service runs, without it, and on a copy. It never holds the service up.
Changes go through the running service, or are made directly when none runs. Each writes an audit
row. `replay`, `discard`, `erase` and `purge` only say what they would do unless you give --yes.

Examples:

* `outbox stats`

* `outbox list --state dead --reason rejected`

* `outbox show 019e…`

* `outbox replay --reason rejected`

* `outbox backup /backups/outbox.db`

* `outbox check --max-age 5m`

* `outbox verify --since 1h`
"""

app = typer.Typer(
    name="outbox",
    no_args_is_help=True,
    rich_markup_mode="markdown",
)
add_version(app, "outbox", _HELP)
app.command("stats")(stats)
app.command("list")(list_command)
app.command("show")(show)
app.command("explain")(explain_command)
app.command("audit")(audit)
app.command("tail")(tail)
app.command("check", cls=CheckCommand)(check)
app.command("verify")(verify_command)
app.command("replay")(replay)
app.command("discard")(discard)
app.command("erase")(erase_command)
app.command("purge")(purge)
app.command("pause")(pause)
app.command("resume")(resume)
app.command("sign-out")(sign_out)
app.command("upgrade")(upgrade)
app.command("journal")(journal)
app.command("backup")(backup)
app.command("move")(move)
app.command("recover")(recover)


_TOLD = ("database_lost", "database_still_lost", "database_back", "statement_failed")


def _without_faults(_: object, __: str, event: EventDict) -> EventDict:
    """Drop the log lines of what the command itself says on standard error."""
    if event.get("event") in _TOLD:
        raise structlog.DropEvent
    return event


def main() -> None:
    """The entry point of the script. Variables of `.env` count, as they do for the service."""
    try:
        read_env_file()
    except ConfigurationError as error:
        typer.echo(f"outbox: {error}", err=True)
        sys.exit(UNKNOWN)
    # Standard output is for answers only, and a command tells its own faults.
    structlog.configure(
        processors=[_without_faults, *for_people(sys.stderr)],
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
    try:
        app(prog_name="outbox")
    except Exception:  # noqa: BLE001
        typer.echo(printable_lines(traceback.format_exc()), err=True)
        sys.exit(UNKNOWN)  # 1 has a meaning of its own for each command


if __name__ == "__main__":
    main()
