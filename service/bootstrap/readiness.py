"""What the store part of a service says about itself in /readyz."""

from __future__ import annotations

from service.bootstrap.stores import Outbox
from service.bootstrap.web_outbox import StoreReadiness, store_faults
from service.config.inngest_address import InngestAddress
from service.outbox.link.messages import REASON_KEY, Status
from service.relay.relay import Relay


def store_readiness(outbox: Outbox, relay: Relay | None) -> StoreReadiness:
    """What this process knows. `relay` is None where another process delivers."""
    return StoreReadiness(
        faults=lambda: store_faults(outbox),
        detail=lambda: _detail(outbox, relay),
    )


def store_status(
    outbox: Outbox, relay: Relay | None, faults: list[str], inngest: InngestAddress | None = None
) -> Status:
    """The status that front processes get. `faults` are those of this process' tasks."""
    return Status(
        failure=outbox.failure,
        undelivered=outbox.undelivered,
        settings_revision=outbox.settings.scope_revision,
        faults=tuple(faults),
        detail=_detail(outbox, relay),
        inngest=inngest,
    )


def _detail(outbox: Outbox, relay: Relay | None) -> dict[str, object]:
    detail: dict[str, object] = {"undelivered": outbox.undelivered}
    if relay:
        breaker = relay.breaker
        state = "paused" if breaker.paused else breaker.state.value
        detail["delivery"] = {"state": state, REASON_KEY: breaker.reason or None}
        if relay.confirmation_fault:
            detail["confirmation"] = {"state": "failing", REASON_KEY: relay.confirmation_fault}
        detail["deliveredPerSecond"] = round(relay.rate, 1)
    return detail
