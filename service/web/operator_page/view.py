"""The operators' page as HTML, from the outbox's figures and rows. Pure but for its templates.

Everything that comes from rows is escaped here, and nothing of a payload is shown. Scripts and
styles are inline and named by digest in the page's policy.
"""

from __future__ import annotations

import html
from collections.abc import Sequence
from pathlib import Path
from string import Template

from service.operations.explain import explain, spoken_duration, spoken_time
from service.operations.rates import Movement
from service.operations.sampler import Point
from service.operations.views import StatsView
from service.outbox.model import Row
from service.web.operator_page.charts import backlog_chart, rates_chart
from service.web.security_headers import page_policy

_LABELS = {"replay": "Replay it", "discard": "Discard it for good"}


class OperatorView:
    """The page's templates, read once."""

    def __init__(self) -> None:
        folder = Path(__file__).parent
        self._page = Template((folder / "page.html").read_text(encoding="utf-8"))
        self._confirmation = Template((folder / "confirmation.html").read_text(encoding="utf-8"))
        self._style = (folder / "page.css").read_text(encoding="utf-8")
        self._script = (folder / "page.js").read_text(encoding="utf-8")
        self.policy = page_policy(self._script, self._style, forms=True)

    def page(
        self,
        latest: Movement | None,
        hour: Sequence[Point],
        dead: Sequence[Row],
        *,
        now_ms: int,
        notice: str = "",
    ) -> str:
        """The whole page. `notice` is a sentence about what was just done."""
        count = latest.view.dead if latest else len(dead)
        return self._page.substitute(
            style=self._style,
            script=self._script,
            title=f"{count} dead" if count else "nothing is dead",
            notice=f'<p class="notice" role="status">{html.escape(notice)}</p>' if notice else "",
            delivery=html.escape(delivery_words(latest.view)) if latest else "not known yet",
            figures=figures(latest, hour, now_ms),
            now=spoken_time(now_ms),
            dead=_dead_table(dead, count, now_ms),
            dead_count=count,
        )

    def confirmation(self, action: str, row: Row, *, now_ms: int) -> str:
        """The page that asks whether `action` is meant."""
        return self._confirmation.substitute(
            style=self._style,
            question=html.escape(f"{action.capitalize()} event {row.id}?"),
            explanation=html.escape(f"It is {explain(row, None, now_ms=now_ms)}"),
            action=action,
            id=html.escape(row.id),
            label=_LABELS[action],
        )


def figures(latest: Movement | None, hour: Sequence[Point], now_ms: int) -> str:
    """The figures and the pictures: the part of the page that is live."""
    if latest is None:
        return "<p>The outbox has not been looked at yet; reload in a moment.</p>"
    view = latest.view
    eta = "nothing moves" if view.eta_seconds is None else spoken_duration(view.eta_seconds)
    shown = [
        ("Pending", f"{view.pending:,}", ""),
        ("Being sent", f"{view.delivering:,}", ""),
        ("Not yet held by Inngest", f"{view.sent:,}", ""),
        ("Delivered", f"{view.delivered:,}", "good"),
        ("Dead", f"{view.dead:,}", "bad" if view.dead else ""),
        ("Oldest pending", _age(view.oldest_pending_seconds), ""),
        ("Accepted per second", f"{latest.accepted_rate:,.1f}", ""),
        ("Delivered per second", f"{latest.delivered_rate:,.1f}", ""),
        ("Drained in", eta, ""),
        ("Database", _size(view.database_bytes), ""),
    ]
    cells = "".join(
        f'<div><dt>{label}</dt><dd class="{kind}">{html.escape(value)}</dd></div>'
        for label, value, kind in shown
    )
    charts = backlog_chart(hour, now_ms) + rates_chart(hour, now_ms)
    return f'<dl class="figures">{cells}</dl><h2>The last hour</h2>{charts}'


def delivery_words(view: StatsView) -> str:
    """The delivery in words."""
    delivery = view.delivery
    if delivery is None:
        return "not known yet"
    words = delivery.state
    if view.destination == "fake":
        words += " to a fake Inngest"
    if delivery.reason:
        words += f" ({delivery.reason})"
    if delivery.reopens_in_seconds:
        words += f", asks Inngest again in {spoken_duration(delivery.reopens_in_seconds)}"
    return words


def _dead_table(rows: Sequence[Row], count: int, now_ms: int) -> str:
    if not rows:
        return "<p>None.</p>"
    more = f"<p>The newest {len(rows)} of {count:,} are shown.</p>" if count > len(rows) else ""
    body = "".join(_dead_row(row, now_ms) for row in rows)
    return (
        f'{more}<div class="scroll" tabindex="0" role="region" aria-labelledby="dead-heading">'
        '<table><thead><tr><th scope="col">Event</th><th scope="col">Died</th>'
        '<th scope="col">Why, and what then</th><th scope="col">Repair</th></tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )


def _dead_row(row: Row, now_ms: int) -> str:
    event_id = html.escape(row.id)
    buttons = "".join(
        f'<form method="post" action="/outbox/{action}">'
        f'<input type="hidden" name="id" value="{event_id}">'
        f'<button type="submit" aria-label="{action.capitalize()} event {event_id}">'
        f"{action.capitalize()}</button></form> "
        for action in ("replay", "discard")
    )
    died = spoken_time(row.settled_at_ms or row.accepted_at_ms)
    return (
        f'<tr><th scope="row"><code>{event_id}</code><br>{html.escape(row.name)}<br>'
        f"user {html.escape(row.user_id)}</th><td>{died}</td>"
        f"<td><strong>{html.escape(row.reason or '')}</strong><br>"
        f"{html.escape(explain(row, None, now_ms=now_ms))}</td><td>{buttons}</td></tr>"
    )


def _age(seconds: float | None) -> str:
    return "none" if seconds is None else spoken_duration(seconds)


def _size(size_bytes: int | None) -> str:
    return "not known" if size_bytes is None else f"{size_bytes / 1_048_576:,.1f} MiB"
