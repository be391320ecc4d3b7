"""The reason for an event's state and its next step, in one sentence. Pure.

Uses only the row and the delivery record. Inngest forgets an event's id after 24 hours, so the
sentence about a row that may have been sent longer ago says what another send can do.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import NamedTuple, Self

from inngest_outbox.outbox.event_ids import is_forgotten
from inngest_outbox.outbox.model import DeliveryRecord, Row, State
from inngest_outbox.runs.figures import NameView

_SENT = (
    "sent: Inngest has answered; a running service asks it until it holds the event, and sends it "
    "again under the same ids if Inngest loses it"
)
_UNSEEN = "No event of this name was seen to be held lately, or Inngest can't be asked for runs"
_ASK_WHETHER = ": `python -m inngest_outbox check` says whether it can."
_UNITS = ((86400.0, "d"), (3600.0, "h"), (60.0, "min"), (1.0, "s"))
_WHY_DEAD = {
    "payload_damaged": "its stored payload can't be read any more",
    "rejected": "Inngest refused it",
    "too_large": "Inngest takes no event of this size",
    "undeliverable": "every try to send it met trouble while others passed",
}


def explain(
    row: Row,
    delivery: DeliveryRecord,
    *,
    now_ms: int,
    serving: bool | None = None,
    commands: bool = True,
) -> str:
    """One sentence about `row`. `serving` is true while a service runs, None: unknown.

    Without `commands` it names what a person can do and not the command for it.
    """
    if row.state is State.DELIVERED:
        return _delivered(row)
    if row.state is State.SENT:
        return f"{_SENT}."
    if row.state is State.DEAD:
        return _dead(row, commands=commands) + _horizon(row, now_ms)
    holds = _Holds.of(delivery, serving=serving, commands=commands)
    if row.state is State.DELIVERING:
        return _delivering(row, holds.ends, serving=serving) + _horizon(row, now_ms)
    return _pending(row, delivery, holds.held_up(delivery)) + _horizon(row, now_ms)


def explain_name(
    name: str,
    view: NameView | None,
    delivery: DeliveryRecord,
    *,
    serving: bool | None,
    commands: bool = True,
) -> list[str]:
    """Sentences about the way of the events of a name. `view` is None where nothing is known.

    Without `commands` none names a command.
    """
    held_up = _Holds.of(delivery, serving=serving, commands=commands).held_up(delivery)
    first = [f"A pending {name} event waits: {held_up}."] if held_up else []
    dead = _name_dead(name, view) if commands else ()
    if view is None or not (view.sampled or view.no_run_since):
        return [*first, _UNSEEN + (_ASK_WHETHER if commands else "."), *dead]
    return [*first, *_name_pace(view), *_name_runs(view), *dead]


def _name_pace(view: NameView) -> Iterator[str]:
    if view.held_median_seconds is not None and view.held_p95_seconds is not None:
        yield (
            f"Inngest holds about {view.per_second:g} events a second. An event is held "
            f"{spoken_duration(view.held_median_seconds)} after its acceptance in the median, 95 % "
            f"within {spoken_duration(view.held_p95_seconds)}."
        )


def _name_runs(view: NameView) -> Iterator[str]:
    if view.sampled:
        yield (
            f"{view.with_run} of {view.sampled} events that were asked about within 15 minutes "
            "have a run."
        )
    if view.start_median_seconds is not None and view.start_p95_seconds is not None:
        yield (
            f"The first run starts {spoken_duration(view.start_median_seconds)} after its event is "
            f"held in the median, 95 % within {spoken_duration(view.start_p95_seconds)}."
        )
    if view.outcomes:
        counted = ", ".join(f"{count} {word}" for word, count in view.outcomes.items())
        yield f"Of the runs are {counted}."
    if view.outcomes.get("queued"):
        yield (
            "A queued run has not started: its function is paused, or it waits for its concurrency "
            "or throttle."
        )
    if view.no_run_since is not None:
        yield (
            f"No event since {spoken_time(view.no_run_since)} has a run, and it should: see that "
            "the app is synced, the function is not paused, and its trigger has this name."
        )
    elif view.without_run and view.expected:
        yield (
            "A function that debounces, batches or has a rate limit runs for some of its events "
            "only; otherwise those were held while the app was not synced or the function paused."
        )
    elif view.without_run and view.ran:
        yield "Its functions may leave an event without a run, so this raises no alarm."
    elif view.without_run:
        yield "None is expected: no event of this name had a run, and `expects_run` is not set."


def _name_dead(name: str, view: NameView | None) -> Iterator[str]:
    if view and view.dead:
        dead = "1 is dead" if view.dead == 1 else f"{view.dead:,} are dead"
        yield f"{dead}: `outbox list --state dead --name {name}` shows why."


def counted(count: int, noun: str) -> str:
    """A number of things in words.

    >>> counted(1, "row"), counted(1200, "row")
    ('1 row', '1,200 rows')
    """
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def spoken_size(size_bytes: int) -> str:
    """A size as text.

    >>> spoken_size(3 * 1024**2), spoken_size(3 * 1024**3)
    ('3.0 MiB', '3,072.0 MiB')
    """
    return f"{size_bytes / 1_048_576:,.1f} MiB"


def spoken_duration(seconds: float) -> str:
    """A duration as text.

    >>> [spoken_duration(seconds) for seconds in (0.25, 12.34, 60, 90, 7200, 200000)]
    ['0.25 s', '12.3 s', '1 min', '1.5 min', '2 h', '2.3 d']
    """
    for size, unit in _UNITS:
        if seconds >= size:
            return f"{round(seconds / size, 1):g} {unit}"
    return f"{round(seconds, 2):g} s"


def spoken_time(at_ms: int) -> str:
    """A time as text, in UTC.

    >>> spoken_time(1795559419447)
    '2026-11-24 22:30:19 UTC'
    """
    return datetime.fromtimestamp(at_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def _delivered(row: Row) -> str:
    settled = row.settled_at_ms or row.accepted_at_ms
    after = spoken_duration(max(0, settled - row.accepted_at_ms) / 1000)
    times = "" if row.sends <= 1 else f", the answer to send {row.sends}"
    return (
        f"delivered: Inngest took it at {spoken_time(settled)}, {after} after its "
        f"acceptance{times}; the row is removed after the retention."
    )


def _dead(row: Row, *, commands: bool) -> str:
    reason = row.reason or ""
    why = _WHY_DEAD.get(reason, reason)
    words = f" ({row.detail})" if row.detail else ""
    tries = f"after {row.attempts} attempts" if row.attempts != 1 else "at its only attempt"
    at = spoken_time(row.settled_at_ms or row.accepted_at_ms)
    replay, discard = "a replay", "somebody"
    if commands:
        replay, discard = f"`outbox replay {row.id} --yes`", f"`outbox discard {row.id} --yes`"
    return (
        f"dead: {why}{words} {tries}, at {at}; it stays until {replay} sends it again under the "
        f"same id or {discard} removes it"
    )


def _delivering(row: Row, ends: str, *, serving: bool | None) -> str:
    if serving is False:
        return f"delivering: its service ended while it was being sent; it is sent again {ends}"
    lease = spoken_duration(row.lease_in_seconds or 0.0)
    return f"delivering: it is being sent; without an answer it is due again in {lease}"


def _pending(row: Row, delivery: DeliveryRecord, held_up: str | None) -> str:
    wait = spoken_duration(row.due_in_seconds) if row.due_in_seconds else None
    if held_up:
        return f"pending: {f'it is due in {wait}, and ' if wait else ''}{held_up}"
    if wait:
        alone = ", alone," if row.isolated else ""
        return (
            f"pending: it is sent{' again' if row.sends else ''}{alone} in {wait}{_last_note(row)}"
        )
    if row.isolated:
        return f"pending: it is due and waits for its turn to be sent alone{_last_note(row)}"
    if delivery.state == "recovering":
        return (
            f"pending: Inngest recovers ({delivery.reason}), "
            f"events are sent {delivery.window} at a time; "
            "it is sent when its turn comes"
        )
    return "pending: it is due and is sent with the next batch"


class _Holds(NamedTuple):
    """The reasons why the service sends no row, and what ends them. Both are empty: it sends."""

    why: str
    ends: str

    @classmethod
    def of(cls, delivery: DeliveryRecord, *, serving: bool | None, commands: bool) -> Self:
        why, ends = list[str](), list[str]()
        if serving is False:
            why.append("no service runs on this outbox")
            ends.append("when one starts")
        if delivery.paused_by:
            said = f" ({delivery.pause_reason})" if delivery.pause_reason else ""
            why.append(f"delivery is paused by {delivery.paused_by}{said}")
            ends.append(f"after {'`outbox resume`' if commands else 'somebody resumes delivery'}")
        return cls(" and ".join(why), " and ".join(ends))

    def held_up(self, delivery: DeliveryRecord) -> str | None:
        """The reason why no row is sent now, None when rows are sent."""
        return f"{self.why}; it is sent {self.ends}" if self.why else _trouble(delivery)


def _trouble(delivery: DeliveryRecord) -> str | None:
    retry = spoken_duration(delivery.reopens_in_seconds)
    if delivery.state == "misconfigured":
        return (
            f"Inngest refuses our configuration ({delivery.reason}); repair it; one event is tried "
            f"in {retry} and the rest follow"
        )
    if delivery.state == "backing_off":
        return (
            f"Inngest is in trouble ({delivery.reason}); one event is tried in {retry} and the "
            "rest follow when it passes"
        )
    return None


def _last_note(row: Row) -> str:
    return f" ({row.history[-1].note})" if row.history else ""


def _horizon(row: Row, now_ms: int) -> str:
    first = row.first_sent_at_ms
    if first is None or not is_forgotten(first, now_ms):
        return "."
    ago = spoken_duration((now_ms - first) / 1000)
    return (
        f"; it may first have been sent {ago} ago and Inngest forgets an id after 24 h, so another "
        "send may run its functions a second time."
    )
