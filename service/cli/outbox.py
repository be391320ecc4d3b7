"""The `outbox` script: see, explain and repair the outbox, while the service runs or not.

Registers the commands; each group lives in its own module. Reading never blocks the service.
"""

from __future__ import annotations

import typer
from dotenv import load_dotenv

from service.cli.outbox_check import check
from service.cli.outbox_reading import audit, list_rows, show, stats

_HELP = """See, explain and repair the outbox.

Works on a live outbox, without a service, and on a copy. Nothing is changed without --yes.

Examples:

* `outbox stats`

* `outbox list --state dead --reason rejected`

* `outbox show 019e…`

* `outbox check --max-age 5m`
"""

app = typer.Typer(
    name="outbox",
    help=_HELP,
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
)
app.command("stats")(stats)
app.command("list")(list_rows)
app.command("show")(show)
app.command("audit")(audit)
app.command("check")(check)


def main() -> None:
    """The entry point of the script. Variables of `.env` count, as they do for the service."""
    load_dotenv(".env")
    app(prog_name="outbox")


if __name__ == "__main__":
    main()
