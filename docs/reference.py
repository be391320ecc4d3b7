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
from service.config.settings import Settings
from service.config.variables import VARIABLES
from service.console.commands import main as outbox_script
from service.observe.metrics import VOCABULARY, Metric
from service.processes import main as service_script

DOCS = Path(__file__).parent
SHARED_BY = 3  # commands
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
    """Every command of both programs with its arguments and options."""
    parts = [
        *_commands("python -m service", service_script.app),
        *_commands("outbox", outbox_script.app),
    ]
    return "\n\n".join(parts)


def endpoints() -> str:
    """Every endpoint of the API's description with what it does."""
    with tempfile.TemporaryDirectory() as made:
        paths = asyncio.run(description(Path(made)))["paths"]
    rows = (
        (f"`{method.upper()} {path}`", endpoint["summary"])
        for path, endpoints in paths.items()
        for method, endpoint in endpoints.items()
    )
    return _table(("endpoint", "what it does"), rows)


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
    """What stands between the marks `name` of a page."""

    name: str
    page: str
    make: Callable[[], str]


TABLES = (
    Table("configuration", "operate/configuration.md", configuration),
    Table("metrics", "operate/metrics.md", metrics),
    Table("commands", "operate/commands.md", command_reference),
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
        sys.stderr.write(f"Not current: {pages}. Run python docs/reference.py.\n")
        return 1
    return 0


def _commands(program: str, app: typer.Typer) -> Iterator[str]:
    """Every command; options that are the same in several stand once, before them."""
    group: Any = get_command(app)
    options = {
        name: [_option(one) for one in command.params if _is_shown(one)]
        for name, command in group.commands.items()
    }
    every = [one for some in options.values() for one in some]
    shared = [one for one in dict.fromkeys(every) if every.count(one) >= SHARED_BY]
    yield f"### {program}"
    if shared:
        rows = ((*one, _of(one, options)) for one in shared)
        yield _table(("option of several commands", "meaning", "commands"), rows)
    for name, command in group.commands.items():
        usage = " ".join([program, name, *_arguments(command)])
        own = "\n".join(
            f"- {names}: {words}" for names, words in options[name] if (names, words) not in shared
        )
        yield "\n\n".join(part for part in (f"#### {usage}", _help(command), own) if part)


def _of(option: tuple[str, str], options: Mapping[str, list[tuple[str, str]]]) -> str:
    """The commands that have an option, or those that lack it, whichever are fewer."""
    having = [name for name, some in options.items() if option in some]
    lacking = [name for name in options if name not in having]
    if len(having) <= len(lacking):
        return ", ".join(having)
    return f"all but {', '.join(lacking)}" if lacking else "all"


def _arguments(command: Any) -> Iterator[str]:
    for one in command.params:
        if one.param_type_name == "argument":
            word = re.sub(r"\W", "", one.metavar or one.name or "")
            yield f"{word}…" if one.nargs == -1 else word


def _is_shown(one: Any) -> bool:
    return one.param_type_name == "option" and not getattr(one, "hidden", False)


def _option(one: Any) -> tuple[str, str]:
    names = ", ".join(f"`{name}`" for name in (*one.opts, *one.secondary_opts))
    words = str(getattr(one, "help", "") or "")
    if one.default in (None, False, True, (), ""):
        return names, words
    return names, f"{words} Default: `{one.default}`."


def _help(command: Any) -> str:
    """The help text, its examples as code."""
    paragraphs = (command.help or "").split("\n\n")
    text = "\n\n".join(" ".join(paragraph.split()) for paragraph in paragraphs)
    found = re.fullmatch(r"(?s)(.*?)\s*Examples?: (.*)", text)
    if not found:
        return text
    examples = found.group(2).rstrip(".").replace("`", "").split(", ")
    return "\n".join([found.group(1), "", "```sh", *examples, "```"])


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
