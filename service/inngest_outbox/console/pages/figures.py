"""The figures of the overview, as texts."""

from __future__ import annotations

from dataclasses import dataclass

from inngest_outbox.console.operations.explain import spoken_duration, spoken_size
from inngest_outbox.console.operations.views import PAUSED, Movement, StatsView
from inngest_outbox.outbox.model import State

_LABELS = {
    State.PENDING: "Pending",
    State.DELIVERING: "Delivering",
    State.SENT: "Sent",
    State.DELIVERED: "Delivered",
    State.DEAD: "Dead",
}
_DELIVERY = {
    "healthy": "Events are sent as they come.",
    "recovering": "Inngest takes events again. Batches grow step by step.",
    "backing_off": "Inngest is in trouble. It is tried again and again. What waits is kept.",
    "misconfigured": "Inngest refuses the key or the address. It is tried again every 5 s.",
    "paused": "Nothing is sent until somebody resumes delivery. Posts are still accepted.",
}
_STANDSTILL = {
    PAUSED: "not while paused",
    "backing_off": "when Inngest is back",
    "misconfigured": "when Inngest agrees",
}


@dataclass(frozen=True, slots=True)
class Figure:
    """One figure. `state` is the list that it counts."""

    key: str
    label: str
    text: str
    state: State | None = None
    alarming: bool = False


@dataclass(frozen=True, slots=True)
class Figures:
    """The counts of rows by state, and the other figures."""

    states: tuple[Figure, ...]
    rest: tuple[Figure, ...]

    def texts(self) -> dict[str, str]:
        """The text of each figure by its key."""
        return {one.key: one.text for one in (*self.states, *self.rest)}


def figures(latest: Movement) -> Figures:
    """The figures of the latest sample."""
    view = latest.view
    return Figures(
        states=tuple(
            Figure(
                state.value,
                label,
                f"{getattr(view, state.value):,}",
                state,
                alarming=state is State.DEAD and view.dead > 0,
            )
            for state, label in _LABELS.items()
            if state is not State.SENT or view.sent or (view.confirmation or "").startswith("on")
        ),
        rest=(
            Figure("oldest", "Oldest pending", _age(view.oldest_pending_seconds)),
            Figure("accepted_rate", "Accepted per second", f"{latest.accepted_rate:,.1f}"),
            Figure("delivered_rate", "Delivered per second", f"{latest.delivered_rate:,.1f}"),
            Figure("drained", "Drained in", _eta(view)),
            Figure("retry", "Next send", _retry(view)),
            Figure("database", "Database", spoken_size(view.database_bytes)),
        ),
    )


def delivery_words(view: StatsView) -> str:
    """The state of delivery in sentences. They change only when the state does."""
    delivery = view.delivery
    name = delivery.state.replace("_", " ")
    to = " to a fake Inngest" if view.destination == "fake" else ""
    reason = f" ({delivery.reason})" if delivery.reason else ""
    fails = f" Confirmation is {view.confirmation}." if view.confirmation_fails else ""
    return f"Delivery{to} is {name}{reason}. {_DELIVERY.get(delivery.state, '')}{fails}"


def _age(seconds: float | None) -> str:
    return "none" if seconds is None else spoken_duration(seconds)


def _eta(view: StatsView) -> str:
    if not view.waiting:
        return "nothing waits"
    if (standstill := _STANDSTILL.get(view.delivery.state)) is not None:
        return standstill
    if _is_delayed(view):
        return "when all are due"
    return "not known yet" if view.eta_seconds is None else spoken_duration(view.eta_seconds)


def _retry(view: StatsView) -> str:
    if view.delivery.state == PAUSED:
        return "after the resume"
    if not view.pending:
        return "with the next event"
    if _is_delayed(view):
        return "when one is due"
    wait = view.delivery.reopens_in_seconds
    return f"in {spoken_duration(wait)}" if wait else "at once"


def _is_delayed(view: StatsView) -> bool:
    """True while events are pending and none of them is due."""
    return view.pending > 0 and view.oldest_due_seconds is None
