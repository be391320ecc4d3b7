"""The conditions of an outbox that raise an alarm. Pure."""

from __future__ import annotations

import enum
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from inngest_outbox.console.operations.explain import spoken_duration, spoken_time
from inngest_outbox.console.operations.key_needs import KeyNeeds
from inngest_outbox.console.operations.views import PAUSED, StatsView
from inngest_outbox.runs.figures import NameView


class Severity(enum.IntEnum):
    """The severity; its value is the exit code of a Nagios plugin."""

    OK = 0
    WARNING = 1
    CRITICAL = 2
    UNKNOWN = 3


@dataclass(frozen=True, slots=True)
class Alarm:
    """One condition that is wrong, as a sentence. `key` names the condition.

    `told` is the sentence for other services: without words of Inngest's, which may quote an event.
    """

    severity: Severity
    key: str
    words: str
    told: str


def alarms(
    view: StatsView,
    faults: Sequence[str],
    *,
    max_age_seconds: float,
    critical_age_seconds: float,
    without_runs: Sequence[NameView] = (),
    keys: KeyNeeds | None = None,
) -> list[Alarm]:
    """Every alarm.

    `faults` are the reasons why the service can't store events, `without_runs` the names that miss
    their runs, `keys` the encryption keys that waiting events need.
    """
    stored = (f"events can't be stored: {fault}" for fault in faults)
    return [
        *(_alarm(Severity.CRITICAL, "not_stored", words) for words in stored),
        *_delivery(view),
        *_confirmation(view),
        *_age(view, max_age_seconds, critical_age_seconds),
        *_dead(view),
        *([_alarm(Severity.WARNING, "no_key", keys.fault)] if keys and keys.fault else []),
        *(_alarm(Severity.WARNING, f"no_runs {one.name}", _no_runs(one)) for one in without_runs),
    ]


def _alarm(severity: Severity, key: str, words: str, told: str | None = None) -> Alarm:
    return Alarm(severity, key, words, told or words)


def _delivery(view: StatsView) -> Iterator[Alarm]:
    delivery = view.delivery
    waiting = view.pending + view.delivering
    if delivery.state == "healthy":
        return
    misconfigured = delivery.state == "misconfigured"
    if not (waiting or misconfigured):
        return
    reason = f" ({delivery.reason})" if delivery.reason else ""
    words = delivery.reason if delivery.state == PAUSED else f"{delivery.state}{reason}"
    severity = Severity.CRITICAL if misconfigured else Severity.WARNING
    told = f"{waiting} wait and delivery is {delivery.state}"
    yield _alarm(severity, delivery.state, f"{waiting} wait and delivery is {words}", told)


def _confirmation(view: StatsView) -> Iterator[Alarm]:
    if view.confirmation_fails:
        words = f"{view.sent} sent and confirmation is {view.confirmation}"
        told = f"{view.sent} sent and confirmation is failing"
        yield _alarm(Severity.WARNING, "not_confirmed", words, told)


def _age(view: StatsView, max_age_seconds: float, critical_age_seconds: float) -> Iterator[Alarm]:
    oldest = view.oldest_due_seconds
    if oldest is None or oldest <= min(max_age_seconds, critical_age_seconds):
        return
    critical = oldest > critical_age_seconds
    limit = critical_age_seconds if critical else max_age_seconds
    yield _alarm(
        Severity.CRITICAL if critical else Severity.WARNING,
        "late",
        f"the oldest due row has waited {spoken_duration(oldest)}, "
        f"more than {spoken_duration(limit)}",
    )


def _dead(view: StatsView) -> Iterator[Alarm]:
    if view.dead:
        yield _alarm(Severity.WARNING, "dead", f"{view.dead} dead (see `outbox list --state dead`)")


def _no_runs(view: NameView) -> str:
    since = spoken_time(view.no_run_since or 0)
    return f"{view.name} starts no run since {since} (see `outbox explain {view.name}`)"
