"""Writes the tables that the documentation takes from the code.

Each table stands between two comments in its page. `--check` writes nothing and exits with 1 when
a page is not current.
"""

from __future__ import annotations

import asyncio
import re
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import typer
import yaml
from prometheus_client import Counter
from pydantic import ByteSize, SecretStr
from typer.main import get_command

from docs.api_description import description
from docs.judges import room_rows, trial_rows
from docs.sizes import size_rows, spelled_size
from inngest_outbox.config.settings import Settings
from inngest_outbox.config.variables import VARIABLES
from inngest_outbox.console.commands import main as outbox_script
from inngest_outbox.observe.metrics import VOCABULARY, Metric
from inngest_outbox.processes import main as service_script

DOCS = Path(__file__).parent
_PROGRAMS = {"python -m inngest_outbox": service_script.app, "outbox": outbox_script.app}
_UNITS = (("d", 86400.0), ("h", 3600.0), ("m", 60.0), ("s", 1.0))


def configuration() -> str:
    """Every variable with its default and its meaning, a table for each group."""
    return "\n\n".join(_group(title, meanings) for title, meanings in VARIABLES.items())


def metrics() -> str:
    """Every metric with its kind, whose figure it is, and its meaning."""
    rows = (
        (
            f"`{_exposed(name, one)}`",
            one.kind.__name__.lower(),
            "outbox" if one.of_outbox else "process",
            one.help,
        )
        for name, one in VOCABULARY.items()
    )
    return _table(("metric", "kind", "of the", "meaning"), rows)


def command_reference() -> str:
    """Every command of both programs with its arguments and its whole help."""
    rows = [row for program, app in _PROGRAMS.items() for row in _commands(program, app)]
    return _table(("command", "what it does"), rows)


def option_reference() -> str:
    """Every option and argument as `--help` has it, with the commands that take it."""
    heads = ("option", "of", "meaning")
    tables = (f"### {name}\n\n{_table(heads, _options(app))}" for name, app in _PROGRAMS.items())
    return "\n\n".join(tables)


def endpoints() -> str:
    """Every endpoint of the API's description: what it does, for whom, and its answers."""
    with tempfile.TemporaryDirectory() as made:
        paths = asyncio.run(description(Path(made)))["paths"]
    rows = (
        (
            f"`{method.upper()} {path}`",
            endpoint["summary"],
            _who(endpoint),
            " ".join(f"`{one['name']}` {one['description']}" for one in _parameters(endpoint)),
            "; ".join(_answers(endpoint["responses"])),
        )
        for path, endpoints in paths.items()
        for method, endpoint in endpoints.items()
    )
    return _table(("endpoint", "what it does", "who", "parameters", "answers"), rows)


def _who(endpoint: Mapping[str, Any]) -> str:
    ways = [name for one in endpoint["security"] for name in one]
    user = "operators" if "description" in endpoint else "users"
    known = {"session": user, "eventKey": "machines", "metricsToken": "monitoring"}
    return ", ".join(known[one] for one in ways if one in known) or "anybody"


def _parameters(endpoint: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    return (one for one in endpoint.get("parameters", ()) if one["description"])


def _answers(responses: Mapping[str, Any]) -> Iterator[str]:
    """The answers beside those that each endpoint may give."""
    for status, answer in responses.items():
        if status not in ("500", "default"):
            named = {*answer["headers"], *answer.get("content", ())} - {"X-Request-Id"}
            codes = [
                code
                for one in answer.get("content", {}).values()
                for code in one.get("examples", ())
            ]
            words = [] if codes else [answer["description"].rstrip(".")]
            yield f"{status} {': '.join(filter(None, [*words, _named(codes or sorted(named))]))}"


def _named(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


def sizes() -> str:
    """Every bound of a request."""
    return _table(("what", "limit"), size_rows())


def decisions() -> str:
    """Every decision with its page, in the order of the site's navigation."""
    parts = yaml.safe_load((DOCS.parent / "mkdocs.yml").read_text(encoding="utf-8"))["nav"]
    [pages] = [part["Decisions"] for part in parts if "Decisions" in part]
    return "\n".join(_decision(DOCS / page) for page in pages if not page.endswith("index.md"))


def trials() -> str:
    """Every trial with the number of planted bugs that it must find."""
    return _table(("trial", "where", "planted bugs that it must find"), trial_rows())


def rooms() -> str:
    """Every room of the service with what judges its tests."""
    heads = ("room of `service/`", "mutants of", "bugs planted by hand")
    return _table(heads, room_rows())


@dataclass(frozen=True, slots=True)
class Table:
    """A part of a page, between its marks `name`."""

    name: str
    page: str
    make: Callable[[], str]


TABLES = (
    Table("configuration", "operate/configuration.md", configuration),
    Table("metrics", "operate/metrics.md", metrics),
    Table("commands", "operate/commands.md", command_reference),
    Table("options", "operate/commands.md", option_reference),
    Table("endpoints", "guide/api.md", endpoints),
    Table("decisions", "decisions/index.md", decisions),
    Table("sizes", "explain/limits.md", sizes),
    Table("trials", "explain/proof.md", trials),
    Table("rooms", "explain/proof.md", rooms),
)


def current(table: Table) -> str:
    """The table's page with the table as the code gives it now."""
    begin, end = f"<!-- begin: {table.name} -->\n", f"<!-- end: {table.name} -->"
    before, rest = written(table).split(begin)
    return f"{before}{begin}\n{table.make()}\n\n{end}{rest.split(end)[1]}"


def written(table: Table) -> str:
    """The table's page as it is."""
    return (DOCS / table.page).read_text(encoding="utf-8")


def main(arguments: list[str]) -> int:
    """Write the pages, or check them; returns the exit status."""
    stale = [table for table in TABLES if current(table) != written(table)]
    if "--check" not in arguments:
        for table in stale:
            (DOCS / table.page).write_text(current(table), encoding="utf-8")
    if "--check" in arguments and stale:
        pages = ", ".join(table.page for table in stale)
        sys.stderr.write(f"Not current: {pages}. Run python -m docs.reference.\n")
        return 1
    return 0


def _commands(program: str, app: typer.Typer) -> Iterator[tuple[str, str]]:
    group: Any = get_command(app)
    yield f"`{program}`", _in_one_line(group.help)
    for name, command in group.commands.items():
        usage = " ".join([program, name, *_arguments(command)])
        yield f"`{usage}`", _in_one_line(command.help)


def _in_one_line(help_text: str) -> str:
    return help_text.replace(":\n\n* ", ": ").replace("\n\n* ", ", ")


def _options(app: typer.Typer) -> Iterator[tuple[str, str, str]]:
    group: Any = get_command(app)
    context = typer.Context(group)
    takers = dict[tuple[str, str], list[str]]()
    for name, command in group.commands.items():
        for one in command.params:
            if not getattr(one, "hidden", False):
                takers.setdefault(one.get_help_record(context), []).append(name)
    for (option, meaning), names in takers.items():
        yield f"`{option}`", _takers(names, list(group.commands)), meaning


def _takers(names: list[str], known: list[str]) -> str:
    others = [name for name in known if name not in names]
    if len(others) > 1:
        return _named(names)
    return f"all but {_named(others)}" if others else "all"


def _arguments(command: Any) -> Iterator[str]:
    for one in command.params:
        if one.param_type_name == "argument":
            word = re.sub(r"\W", "", one.metavar or one.name or "")
            yield f"{word}…" if one.nargs == -1 else word


def _decision(page: Path) -> str:
    text = page.read_text(encoding="utf-8")
    [title] = re.findall(r"^# (.+)$", text, re.MULTILINE)
    if "**Revisit when** " not in text:
        raise ValueError(f"{page} does not say when to revisit it")
    return f"- [{title}]({page.name})"


def _exposed(name: str, metric: Metric) -> str:
    labels = f"{{{','.join(metric.labels)}}}" if metric.labels else ""
    return f"outbox_{name}{'_total' if metric.kind is Counter else ''}{labels}"


def _group(title: str, meanings: Mapping[str, str]) -> str:
    rows = ((f"`{name}`", _default(name), meaning) for name, meaning in meanings.items())
    return f"### {title}\n\n{_table(('variable', 'default', 'meaning'), rows)}"


def _default(variable: str) -> str:
    field = Settings.variables()[variable]
    value = Settings.model_fields[field].default
    if value is None or value == () or isinstance(value, SecretStr):
        return "none"
    if isinstance(value, bool):
        return "on" if value else "off"
    if field.endswith("_seconds"):
        return f"`{_duration(value)}`"
    if isinstance(value, ByteSize):
        return f"`{spelled_size(value)}`"
    return f"`{value:,}`" if isinstance(value, int) and variable != "PORT" else f"`{value}`"


def _duration(seconds: float) -> str:
    return next(f"{seconds / size:g}{unit}" for unit, size in _UNITS if seconds >= size)


def _table(heads: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [f"| {' | '.join(_cell(cell) for cell in line)} |" for line in (heads, *rows)]
    return "\n".join([lines[0], f"|{'---|' * len(heads)}", *lines[1:]])


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
