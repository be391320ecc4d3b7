"""Where Inngest is, as its SDK reads the INNGEST_* variables."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class InngestAddress:
    """Absolute URLs of the Event API and the REST API, the event key, a branch environment."""

    event_api_origin: str
    api_origin: str
    event_key: str = field(repr=False)
    environment: str | None
