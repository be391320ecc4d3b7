"""The output of the `outbox` commands: JSON for programs, tables and lists of rows for people.

Colours appear on a terminal only. In a pipe a table is plain and as wide as it needs, for `grep`
and `awk`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import msgspec
from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.progress import Progress
from rich.table import Table
from rich.text import Text

from inngest_outbox.config.destination import Destination
from inngest_outbox.console.operations.explain import spoken_duration, spoken_size, spoken_time
from inngest_outbox.console.operations.views import PAUSED, RowView, StatsView
from inngest_outbox.console.terminal.command import exit_on_fault
from inngest_outbox.observe.printable import escaped_json, printable
from inngest_outbox.outbox.figures import DeadGroup, OwnerShare
from inngest_outbox.outbox.model import State
from inngest_outbox.runs.figures import NameView

_PIPE_WIDTH = 10_000
_STATE_STYLES = {
    State.PENDING: "yellow",
    State.DELIVERING: "cyan",
    State.SENT: "blue",
    State.DELIVERED: "green",
    State.DEAD: "bold red",
}
_DELIVERY_STYLES = {"healthy": "green", "recovering": "yellow"}
_WIDE = 140
_INDENT = (0, 0, 0, 2)


def console() -> Console:
    """A console on the current standard output."""
    wide = None if sys.stdout.isatty() else _PIPE_WIDTH
    return Console(width=wide, highlight=False)


def show_lines(renderable: RenderableType) -> None:
    """Print on standard output; in a pipe without the spaces that fill up a line."""
    screen = console()
    if screen.is_terminal:
        screen.print(renderable)
        return
    with screen.capture() as capture:
        screen.print(renderable)
    lines = (line.rstrip() for line in capture.get().splitlines())
    sys.stdout.write("".join(f"{line}\n" for line in lines))
    sys.stdout.flush()


def print_json(value: object) -> None:
    """Print `value` as indented JSON. Exits with 2 for a word of an argument that is no text."""
    with exit_on_fault():
        text = msgspec.json.format(msgspec.json.encode(value), indent=2).decode()
    sys.stdout.write(f"{escaped_json(text)}\n")
    sys.stdout.flush()


def stats_table(view: StatsView) -> Table:
    """The figures, one a line."""
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="bold")
    table.add_column()
    for state in State:
        count = getattr(view, state.value)
        table.add_row(state.value, Text(f"{count:,}", style=_STATE_STYLES[state] if count else ""))
    table.add_row("oldest pending", age(view.oldest_pending_seconds))
    table.add_row("oldest due", age(view.oldest_due_seconds))
    table.add_row("delivery", delivery_text(view))
    if view.destination:
        table.add_row("events go to", destination_text(view.destination))
        table.add_row("confirmation", plain(view.confirmation or "unknown"))
    table.add_row("rate", f"{view.rate:,.1f} events/s")
    table.add_row("drained in", "unknown" if view.eta_seconds is None else age(view.eta_seconds))
    table.add_row("database", spoken_size(view.database_bytes))
    if view.wal_bytes is not None:
        table.add_row("write-ahead log", spoken_size(view.wal_bytes))
    if view.serving is not None:
        table.add_row("service", "running" if view.serving else "not running")
    return table


def destination_text(name: str) -> Text:
    """The destination of events; a fake Inngest stands out."""
    if name == Destination.FAKE:
        return Text("a fake Inngest", style="bold yellow")
    return plain(f"Inngest ({name})")


def owners_table(shares: Sequence[OwnerShare]) -> Table:
    """The shares of the owners, one owner a line."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("OWNER", "ROWS", "BYTES"):
        table.add_column(heading, justify="left" if heading == "OWNER" else "right")
    for share in shares:
        table.add_row(plain(share.owner), f"{share.rows:,}", f"{share.bytes:,}")
    return table


def groups_table(groups: Sequence[DeadGroup]) -> Table:
    """The dead rows by name and reason, one group a line."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("DEAD", "NAME", "REASON", "LATEST"):
        table.add_column(heading, justify="right" if heading == "DEAD" else "left")
    for one in groups:
        latest = spoken_time(one.latest_ms)
        table.add_row(f"{one.rows:,}", plain(one.name), plain(one.reason), latest)
    return table


def names_table(names: Sequence[NameView]) -> Table:
    """The runs of each name, one name a line."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("NAME", "PER S", "HELD", "START", "WITH RUN", "FAILED", "DEAD", "RUNS"):
        table.add_column(heading, justify="left" if heading in ("NAME", "RUNS") else "right")
    for one in names:
        table.add_row(
            plain(one.name),
            f"{one.per_second:,.1f}",
            age(one.held_median_seconds),
            age(one.start_median_seconds),
            f"{one.with_run} of {one.sampled}",
            f"{one.failed} of {one.runs}",
            str(one.dead),
            Text("missing", style="bold red") if one.no_run_since else Text("-"),
        )
    return table


def delivery_text(view: StatsView) -> Text:
    """The state of delivery and its reason."""
    delivery = view.delivery
    style = _DELIVERY_STYLES.get(delivery.state, "bold red")
    if delivery.state == PAUSED:
        return Text(printable(delivery.reason or PAUSED), style=style)
    text = Text(delivery.state, style=style)
    if delivery.reason:
        text.append(f" ({printable(delivery.reason)})", style="default")
    return text


def row_table(view: RowView, explanation: str) -> Table:
    """One row with everything but its payload."""
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column()
    table.add_row("id", plain(view.id))
    if view.inngest_id:
        table.add_row("id in Inngest", plain(view.inngest_id))
    if view.wire_id:
        table.add_row("sender's id", plain(view.wire_id))
    if view.environment:
        table.add_row("environment", plain(view.environment))
    table.add_row("state", state_text(view.state))
    table.add_row("why", plain(explanation))
    table.add_row("name", plain(view.name))
    table.add_row("user", plain(view.user_id))
    table.add_row("attempts", f"{view.attempts} (an outage adds none)")
    table.add_row("sends", str(view.sends))
    table.add_row("accepted", spoken_time(view.accepted_at))
    for label, moment in (
        ("first sent", view.first_sent_at),
        ("delivered", view.delivered_at),
        ("dead", view.dead_at),
    ):
        if moment is not None:
            table.add_row(label, spoken_time(moment))
    if view.reason:
        table.add_row("reason", plain(f"{view.reason}: {view.detail}"))
    table.add_row("payload", f"{view.payload_bytes:,} bytes" if view.payload_bytes else "removed")
    for note in view.history:
        table.add_row("history", plain(f"{spoken_time(note.at)}  {note.note}"))
    return table


def state_text(state: State, *, width: int = 0) -> Text:
    """A state in its colour, filled up with spaces to `width`."""
    return Text(state.value.ljust(width), style=_STATE_STYLES[state])


def plain(text: str) -> Text:
    """Text from elsewhere, without markup and without control characters for a terminal."""
    return Text(printable(text))


def age(seconds: float | None) -> str:
    """A duration as text, a dash where there is none."""
    return "-" if seconds is None else spoken_duration(seconds)


@contextmanager
def progress_bar(action: str) -> Iterator[Callable[[int, int], None]]:
    """A bar on a terminal, nothing elsewhere. Call it with what is done and the whole."""
    console = Console(file=sys.stderr)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(action, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def row_list(views: Sequence[RowView], now_ms: int, width: int) -> RenderableType:
    """The rows, on a screen of `width` columns. A pipe is wide: each row is one line there."""
    if width >= _WIDE:
        return _table(views, now_ms)
    return Group(*_narrow(views, now_ms))


def _table(views: Sequence[RowView], now_ms: int) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("ID", "STATE", "ATTEMPTS", "AGE", "USER", "NAME", "REASON"):
        table.add_column(heading, no_wrap=heading in ("ID", "STATE"))
    for view in views:
        table.add_row(
            plain(view.id),
            state_text(view.state),
            str(view.attempts),
            _age(view, now_ms),
            plain(view.user_id),
            plain(view.name),
            plain(_reason(view)),
        )
    return table


def _narrow(views: Sequence[RowView], now_ms: int) -> Iterator[RenderableType]:
    columns = max(len(view.id) for view in views)
    heading = f"{'ID':{columns}}  {'STATE':10}  {'AGE':8}  USER, NAME; REASON"
    yield Text(heading, style="bold", no_wrap=True, overflow="ellipsis")
    for view in views:
        line = Text(no_wrap=True, overflow="ellipsis")
        line.append_text(plain(f"{view.id:{columns}}"))
        line.append("  ")
        line.append_text(state_text(view.state, width=10))
        line.append(f"  {_age(view, now_ms):8}  ")
        line.append_text(plain(view.user_id))
        yield line
        yield Padding(plain("; ".join(one for one in (view.name, _reason(view)) if one)), _INDENT)


def _reason(view: RowView) -> str:
    """The reason with what was said."""
    words = [one for one in (view.reason, view.detail) if one]
    return ": ".join(words) or ("" if view.payload_bytes else "payload removed")


def _age(view: RowView, now_ms: int) -> str:
    return age(max(0, now_ms - view.accepted_at) / 1000)


def searched_to(at_ms: int, rest: str) -> str:
    """A sentence about a search that has not ended; `rest` says how it continues.

    >>> searched_to(1795559419447, "12 rows found")
    'Searched back to rows of 2026-11-24 22:30:19 UTC; 12 rows found.'
    """
    return f"Searched back to rows of {spoken_time(at_ms)}; {rest}."
