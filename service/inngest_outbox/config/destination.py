"""The destination of events, and whether delivery waits until Inngest holds them.

The invariant: what the banner, the commands and the probes say of both comes from here.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

from inngest_outbox.config.settings import Settings


class Destination(enum.StrEnum):
    """The kind of Inngest that takes the events."""

    FAKE = "fake"
    DEV_SERVER = "dev server"
    SELF_HOSTED = "self-hosted"
    CLOUD = "cloud"


@dataclass(frozen=True, slots=True)
class ConfirmationMode:
    """The mode of confirmation: on when a row waits until Inngest holds its event, and why.

    `can_ask` is true where Inngest's REST API can be asked at all.
    """

    on: bool
    why: str
    can_ask: bool

    def __str__(self) -> str:
        return f"{'on' if self.on else 'off'} ({self.why})"


_WHY = {
    Destination.FAKE: "a fake Inngest keeps nothing",
    Destination.DEV_SERVER: "a dev server keeps nothing by design",
    Destination.CLOUD: "Inngest's cloud",
}


def destination(settings: Settings) -> Destination:
    """The kind of Inngest that `settings` name."""
    if settings.fake_inngest_url:
        return Destination.FAKE
    own = settings.inngest_base_url or settings.inngest_event_api_base_url
    if own and settings.inngest_signing_key and settings.inngest_dev is None:
        return Destination.SELF_HOSTED  # a dev server needs no signing key
    if settings.inngest_dev_mode:
        return Destination.DEV_SERVER
    return Destination.SELF_HOSTED if own else Destination.CLOUD


def confirmation_mode(settings: Settings) -> ConfirmationMode:
    """The mode that OUTBOX_CONFIRM chooses."""
    keyed = settings.inngest_signing_key is not None
    can_ask = keyed or settings.inngest_dev_mode
    if settings.confirm != "auto":
        return ConfirmationMode(settings.confirm == "on", "OUTBOX_CONFIRM", can_ask)
    kind = destination(settings)
    if kind is not Destination.SELF_HOSTED:
        return ConfirmationMode(on=False, why=_WHY[kind], can_ask=can_ask)
    why = "self-hosted Inngest" if keyed else "INNGEST_SIGNING_KEY is not set"
    return ConfirmationMode(on=keyed, why=why, can_ask=can_ask)
