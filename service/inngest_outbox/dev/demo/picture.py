"""The demo's picture: drawn over on a terminal, plain lines elsewhere."""

from __future__ import annotations

import contextlib
import sys
import time
from collections import deque
from collections.abc import Iterator

from rich.console import Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from inngest_outbox.console.operations.views import Movement
from inngest_outbox.console.terminal.tables import console, delivery_text

_BLOCKS = " ▁▂▃▄▅▆▇█"
_WIDTH = 60
_LINE_SECONDS = 1.0


class DemoPicture:
    """Takes what happens and how the outbox looks; made by `demo_picture`."""

    def __init__(self, live: Live | None) -> None:
        self._live = live
        self._began = time.monotonic()
        self._told: list[str] = []
        self._waiting: deque[int] = deque(maxlen=_WIDTH)
        self._line_at = 0.0

    def tell(self, sentence: str) -> None:
        """Something happens."""
        at = time.monotonic() - self._began
        self._told.append(f"{at:5.1f} s  {sentence}")
        if self._live is None:
            self._write(self._told[-1])

    def show(self, moving: Movement, accepted: int, arrived: int) -> None:
        """The picture as text."""
        self._waiting.append(moving.view.waiting)
        if self._live is not None:
            self._live.update(self._draw(moving, accepted, arrived), refresh=True)
            return
        now = time.monotonic()
        if now - self._line_at >= _LINE_SECONDS:
            self._line_at = now
            view = moving.view
            self._write(
                f"{now - self._began:5.1f} s    accepted={accepted} held={arrived} "
                f"waiting={view.waiting} dead={view.dead} delivery={delivery_text(view)}"
            )

    def _draw(self, moving: Movement, accepted: int, arrived: int) -> RenderableType:
        view = moving.view
        figures = Table.grid(padding=(0, 3))
        figures.add_row("accepted", f"{accepted:,}", Text(f"{moving.accepted_rate:,.0f}/s"))
        figures.add_row("held by Inngest", f"{arrived:,}", Text(f"{moving.delivered_rate:,.0f}/s"))
        figures.add_row("waiting", f"{view.waiting:,}", Text(sparkline(self._waiting), "yellow"))
        figures.add_row("dead", Text(f"{view.dead}", "bold red" if view.dead else ""), "")
        figures.add_row("delivery", delivery_text(view), "")
        return Group(*(Text(line) for line in self._told), Text(), figures)

    def _write(self, line: str) -> None:
        sys.stdout.write(f"{line}\n")
        sys.stdout.flush()


def sparkline(values: deque[int]) -> str:
    """The values as blocks, the largest at full height.

    >>> sparkline(deque([0, 4, 8]))
    ' ▄█'
    """
    most = max(values, default=0) or 1
    steps = len(_BLOCKS) - 1
    return "".join(_BLOCKS[-(-value * steps // most)] for value in values)


@contextlib.contextmanager
def demo_picture() -> Iterator[DemoPicture]:
    """The picture, or lines without a terminal."""
    if not sys.stdout.isatty():
        yield DemoPicture(None)
        return
    with Live(console=console(), auto_refresh=False) as live:
        yield DemoPicture(live)
