"""Functions that the fake Inngest has: which event starts one, and how its run goes.

Without any, every event starts a run that ends at once.
"""

from __future__ import annotations

from typing import Any

import msgspec


class Function(msgspec.Struct, frozen=True, kw_only=True):
    """One function, as an app would register it.

    Its run lasts `lasts_ms`, then returns `returns`, or the id, name, ts and data of its event when
    that is UNSET. With `sends` it sends that event, with the data of its own, and returns its ids.
    With `error` each attempt fails so, and `retries` more follow `retry_ms` apart.
    `cancel_on` and `wait_for` name events; they match where `data.key` is the run's. A wait ends
    after `lasts_ms`. A batch is full at `batch_size` events or `batch_ms` after its first.
    A run follows the last one's start by `rate_limit_ms` at least; other events start none.
    While it is `paused`, its runs are queued without end.
    `old_output` False leaves the output out of the first API, as for the JavaScript SDK 4.
    """

    id: str
    trigger: str
    app: str = "fake"
    lasts_ms: int = 0
    returns: Any = msgspec.UNSET
    sends: str | None = None
    error: dict[str, str] | None = None
    retries: int = 0
    retry_ms: int = 0
    cancel_on: str | None = None
    wait_for: str | None = None
    batch_size: int = 0
    batch_ms: int = 0
    debounce_ms: int = 0
    rate_limit_ms: int = 0
    paused: bool = False
    old_output: bool = True


ANY = Function(id="fake-function", trigger="", returns=None)
"""The function of every event."""
