"""The receivers of alarms: a webhook, signed by Standard Webhooks, or an event through the outbox.

The invariant: no redirect is followed, and a body that was signed is sent as it is.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import time
from datetime import UTC, datetime
from typing import Protocol

import aiohttp
import msgspec

from inngest_outbox.alarms.changes import Notice
from inngest_outbox.config.values import webhook_secret
from inngest_outbox.errors import OutboxError, RefusedError
from inngest_outbox.identity.user import User
from inngest_outbox.outbox.clock import wall_now_ms
from inngest_outbox.outbox.event import encode_event
from inngest_outbox.outbox.keys import IdempotencyKey, plain_digests
from inngest_outbox.outbox.ports import Intake
from inngest_outbox.runs.figures import ALARM_EVENT

SENDER = User("outbox", "alarm")
"""The sender of the service's own event."""
_TAKEN = range(200, 300)


class Target(Protocol):
    """A receiver of alarms."""

    async def tell(self, notice: Notice) -> str | None:
        """Tell a change once; why it was not taken, None when it was. Safe to repeat."""
        ...


class Webhook:
    """An address that takes one POST of JSON for each change within `seconds`."""

    def __init__(self, http: aiohttp.ClientSession, url: str, secret: str, seconds: float) -> None:
        self._http = http
        self._url = url
        self._timeout = aiohttp.ClientTimeout(total=seconds)
        self._key = webhook_secret(secret)

    async def tell(self, notice: Notice) -> str | None:
        """See Target.tell. A redirect is a failure."""
        at = datetime.fromtimestamp(notice.at / 1000, UTC).isoformat(timespec="milliseconds")
        content = {"type": f"outbox.alarm.{notice.state}", "timestamp": at, "data": _data(notice)}
        body = msgspec.json.encode(content)
        headers = {"content-type": "application/json", **self._signed(notice.id, body)}
        try:
            async with self._http.post(
                self._url, data=body, headers=headers, timeout=self._timeout, allow_redirects=False
            ) as answer:
                return None if answer.status in _TAKEN else f"HTTP {answer.status}"
        except (aiohttp.ClientError, OSError) as error:
            return type(error).__name__

    def _signed(self, notice_id: str, body: bytes) -> dict[str, str]:
        at = str(int(time.time()))
        message = b"%b.%b.%b" % (notice_id.encode(), at.encode(), body)
        digest = hmac.digest(self._key, message, hashlib.sha256)
        signature = f"v1,{base64.b64encode(digest).decode()}"
        return {
            "webhook-id": notice_id,
            "webhook-timestamp": at,
            "webhook-signature": signature,
        }


class AlarmEvents:
    """The outbox itself: each change is an event `outbox/alarm` for functions."""

    def __init__(self, intake: Intake) -> None:
        self._intake = intake

    async def tell(self, notice: Notice) -> str | None:
        """See Target.tell."""
        event = encode_event(ALARM_EVENT, _data(notice), SENDER, wall_now_ms())
        key = IdempotencyKey.of(notice.id, notice.id.encode(), plain_digests)
        try:
            await self._intake.append(event, key=key)
        except (OutboxError, RefusedError) as error:
            return str(error)
        return None


def _data(notice: Notice) -> dict[str, object]:
    names = ("id", "alarm", "state", "severity", "message", "since", "at")
    return {name: getattr(notice, name) for name in names}
