"""The picture of `outbox watch`: fits a terminal of 80 columns and 24 lines."""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from service.console.commands.tables import age, delivery_text, destination_text, plain, state_text
from service.console.operations.explain import spoken_duration
from service.console.operations.rates import Movement
from service.console.operations.views import StatsView
from service.outbox.model import State

_BAR_COLUMNS = 60


def picture(address: str, moving: Movement, fault: str = "") -> RenderableType:
    """The figures of one sample. `fault` says why they are not current."""
    return Group(*_parts(address, moving, fault))


def _parts(address: str, moving: Movement, fault: str) -> Iterator[RenderableType]:
    view = moving.view
    yield plain(address)
    if fault:
        yield Text.assemble(("not current: ", "bold red"), plain(fault))
    yield Text()
    yield _figures(moving)
    yield Text()
    yield Text.assemble(("delivery      ", "bold"), delivery_text(view))
    if view.destination:
        destination = destination_text(view.destination)
        yield Text.assemble(("events go to  ", "bold"), destination)
    if moving.waiting:
        yield Text()
        yield _bar(moving)
    yield Text("Ctrl-C ends this.", style="dim")


def _figures(moving: Movement) -> Table:
    """The states on the left, the movement on the right."""
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="bold", min_width=10)
    grid.add_column(justify="right", min_width=9)
    grid.add_column(style="bold", min_width=14)
    grid.add_column()
    for state, (label, value) in zip(State, _movement(moving), strict=True):
        count = getattr(moving.view, state.value)
        number = Text(f"{count:,}")
        if count:
            number.stylize(state_text(state).style)
        grid.add_row(state.value, number, label, value)
    return grid


def _movement(moving: Movement) -> tuple[tuple[str, str], ...]:
    view = moving.view
    return (
        ("accepted", f"{moving.accepted_rate:,.0f}/s"),
        ("delivered", f"{moving.delivered_rate:,.0f}/s"),
        ("oldest pending", age(view.oldest_pending_seconds)),
        ("oldest due", age(view.oldest_due_seconds)),
        ("service", _service(view)),
    )


def _service(view: StatsView) -> str:
    if view.serving is None:
        return "-"
    return "running" if view.serving else "not running"


def _bar(moving: Movement) -> Table:
    done = moving.peak - moving.waiting
    rows = Table.grid()
    rows.add_row(ProgressBar(total=max(1, moving.peak), completed=max(0, done), width=_BAR_COLUMNS))
    rows.add_row(Text(f"{moving.waiting:,} waiting, {_time_left(moving)}"))
    return rows


def _time_left(moving: Movement) -> str:
    gain = moving.delivered_rate - moving.accepted_rate
    if gain <= 0:
        return "not draining"
    return f"drained in about {spoken_duration(moving.waiting / gain)}"
