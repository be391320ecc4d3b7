"""`python -m tests.real_inngest.worker`: a worker that connects to INNGEST_BASE_URL, with the
Python SDK's form of the suite's functions.
"""

from __future__ import annotations

import asyncio
import os
from datetime import timedelta

import inngest
import msgspec
from inngest.connect import connect

from inngest_outbox.dev.fake_inngest.functions import Function
from tests.real_inngest.functions import functions

APP = "py"


def main() -> None:
    origin = os.environ["INNGEST_BASE_URL"]
    client = inngest.Inngest(
        app_id=APP,
        is_production=True,
        event_key=os.environ["INNGEST_EVENT_KEY"],
        signing_key=os.environ["INNGEST_SIGNING_KEY"],
        api_base_url=origin,
        event_api_base_url=os.environ["INNGEST_EVENT_API_BASE_URL"],
    )
    known = [registered(client, one) for one in functions(APP)]
    asyncio.run(connect([(client, known)]).start())


def registered(client: inngest.Inngest, declared: Function) -> inngest.Function[object]:
    """`declared` as a function of the SDK."""
    key = "event.data.key == async.data.key"
    batch = inngest.Batch(max_size=declared.batch_size, timeout=_after(declared.batch_ms))
    debounce = inngest.Debounce(period=_after(declared.debounce_ms), key="event.data.key")

    @client.create_function(
        fn_id=declared.id,
        trigger=inngest.TriggerEvent(event=declared.trigger),
        retries=declared.retries,
        cancel=[inngest.Cancel(event=declared.cancel_on, if_exp=key)]
        if declared.cancel_on
        else None,
        batch_events=batch if declared.batch_size else None,
        rate_limit=inngest.RateLimit(limit=1, period=_after(declared.rate_limit_ms))
        if declared.rate_limit_ms
        else None,
        debounce=debounce if declared.debounce_ms else None,
    )
    async def run(ctx: inngest.Context) -> object:
        if declared.wait_for:
            got = await ctx.step.wait_for_event(
                "wait", event=declared.wait_for, if_exp=key, timeout=_after(declared.lasts_ms)
            )
            return {"got": got.id if got else None}
        if declared.lasts_ms:
            await ctx.step.sleep("lasts", _after(declared.lasts_ms))
        if declared.error:
            raise inngest.RetryAfterError(declared.error["message"], declared.retry_ms)
        if declared.batch_size:
            return {"ids": [one.id for one in ctx.events]}
        if declared.sends:
            sent = inngest.Event(name=declared.sends, data=ctx.event.data)
            return {"ids": await ctx.step.send_event("sends", sent)}
        if declared.returns is not msgspec.UNSET:
            return declared.returns
        event = ctx.event
        return {"id": event.id, "name": event.name, "ts": event.ts, "data": dict(event.data)}

    return run


def _after(milliseconds: int) -> timedelta:
    return timedelta(milliseconds=milliseconds)


if __name__ == "__main__":
    main()
