"""The `outbox` script: see, explain and repair the outbox, while the service runs or not.

Each command has a module of its name. Reading never blocks the service.
"""

from __future__ import annotations

import sys

import structlog
import typer
from dotenv import load_dotenv
from structlog.typing import EventDict

from service.console.commands.changing.discard import discard
from service.console.commands.changing.erase import erase_command
from service.console.commands.changing.journal import journal
from service.console.commands.changing.pause import pause, resume
from service.console.commands.changing.purge import purge
from service.console.commands.changing.replay import replay
from service.console.commands.changing.sign_out import sign_out
from service.console.commands.changing.upgrade import upgrade
from service.console.commands.files.backup import backup
from service.console.commands.files.move import move
from service.console.commands.files.recover import recover
from service.console.commands.reading.audit import audit
from service.console.commands.reading.check import check
from service.console.commands.reading.explain import explain_command
from service.console.commands.reading.list import list_command
from service.console.commands.reading.show import show
from service.console.commands.reading.stats import stats
from service.console.commands.reading.tail import tail
from service.console.commands.reading.verify import verify_command
from service.version import add_version

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
    pretty_exceptions_enable=False,
)
add_version(app, "outbox", _HELP)
app.command("stats")(stats)
app.command("list")(list_command)
app.command("show")(show)
app.command("explain")(explain_command)
app.command("audit")(audit)
app.command("tail")(tail)
app.command("check")(check)
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
    load_dotenv(".env")
    # Standard output is for answers only, and a command tells its own faults.
    structlog.configure(
        processors=[_without_faults, *structlog.get_config()["processors"]],
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
    app(prog_name="outbox")


if __name__ == "__main__":
    main()
