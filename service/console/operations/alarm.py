"""Which conditions of an outbox raise an alarm. Pure."""

from __future__ import annotations

import enum
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from service.console.operations.explain import spoken_duration
from service.console.operations.views import PAUSED, StatsView


class Severity(enum.IntEnum):
    """The severity; its value is the exit code of a Nagios plugin."""

    OK = 0
    WARNING = 1
    CRITICAL = 2
    UNKNOWN = 3


@dataclass(frozen=True, slots=True)
class Alarm:
    """One condition that is wrong, as a sentence."""

    severity: Severity
    words: str


def alarms(
    view: StatsView,
    faults: Sequence[str],
    *,
    max_age_seconds: float,
    critical_age_seconds: float,
) -> list[Alarm]:
    """Every alarm. `faults` are the reasons why the service can't store events."""
    return [
        *(Alarm(Severity.CRITICAL, f"events can't be stored: {fault}") for fault in faults),
        *_delivery(view),
        *_confirmation(view),
        *_age(view, max_age_seconds, critical_age_seconds),
        *_dead(view),
    ]


def _delivery(view: StatsView) -> Iterator[Alarm]:
    delivery = view.delivery
    waiting = view.pending + view.delivering
    if delivery is None or delivery.state == "healthy":
        return
    misconfigured = delivery.state == "misconfigured"
    if not (waiting or misconfigured):
        return
    reason = f" ({delivery.reason})" if delivery.reason else ""
    words = delivery.reason if delivery.state == PAUSED else f"{delivery.state}{reason}"
    severity = Severity.CRITICAL if misconfigured else Severity.WARNING
    yield Alarm(severity, f"{waiting} wait and delivery is {words}")


def _confirmation(view: StatsView) -> Iterator[Alarm]:
    if view.confirmation_fails:
        yield Alarm(Severity.WARNING, f"{view.sent} sent and confirmation is {view.confirmation}")


def _age(view: StatsView, max_age_seconds: float, critical_age_seconds: float) -> Iterator[Alarm]:
    oldest = view.oldest_pending_seconds
    if oldest is None or oldest <= min(max_age_seconds, critical_age_seconds):
        return
    critical = oldest > critical_age_seconds
    limit = critical_age_seconds if critical else max_age_seconds
    yield Alarm(
        Severity.CRITICAL if critical else Severity.WARNING,
        f"the oldest pending row is {spoken_duration(oldest)} old, "
        f"more than {spoken_duration(limit)}",
    )


def _dead(view: StatsView) -> Iterator[Alarm]:
    if view.dead:
        yield Alarm(Severity.WARNING, f"{view.dead} dead (see `outbox list --state dead`)")
