"""A function on `outbox/alarm`: it tells Slack and PagerDuty what the outbox tells.

Serve `tell_alarm` with your other functions, and set `ALARM_URL=inngest` for the outbox. Each place
is told where its variable is set: SLACK_WEBHOOK_URL (an incoming webhook of Slack) and
PAGERDUTY_ROUTING_KEY (the integration key of a service, Events API v2).
"""

from __future__ import annotations

import os
from collections.abc import Mapping

import aiohttp
import inngest

PAGERDUTY_URL = "https://events.pagerduty.com"

client = inngest.Inngest(app_id="alarms")


@client.create_function(
    fn_id="tell-alarm", trigger=inngest.TriggerEvent(event="outbox/alarm"), retries=10
)
async def tell_alarm(ctx: inngest.Context) -> None:
    """Tell each place in a step of its own, so that one that fails is tried again alone."""
    alarm = ctx.event.data
    if slack := os.environ.get("SLACK_WEBHOOK_URL"):
        await ctx.step.run("slack", _post, slack, slack_message(alarm))
    if key := os.environ.get("PAGERDUTY_ROUTING_KEY"):
        url = f"{os.environ.get('PAGERDUTY_URL', PAGERDUTY_URL)}/v2/enqueue"
        await ctx.step.run("pagerduty", _post, url, pagerduty_event(alarm, key))


def slack_message(alarm: Mapping[str, object]) -> dict[str, object]:
    """The message for an incoming webhook."""
    sign = ":rotating_light:" if alarm["state"] == "raised" else ":white_check_mark:"
    text = str(alarm["message"]).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return {"text": f"{sign} Outbox alarm {alarm['state']}: {text}"}


def pagerduty_event(alarm: Mapping[str, object], routing_key: str) -> dict[str, object]:
    """The event for the Events API v2. An alarm that is over resolves the incident it triggered."""
    event: dict[str, object] = {
        "routing_key": routing_key,
        "event_action": "trigger" if alarm["state"] == "raised" else "resolve",
        "dedup_key": f"outbox {alarm['alarm']}"[:255],
    }
    if alarm["state"] == "raised":
        event["payload"] = {
            "summary": f"Outbox: {alarm['message']}"[:1024],
            "source": "outbox",
            "severity": alarm["severity"],
        }
    return event


async def _post(url: str, body: dict[str, object]) -> None:
    timeout = aiohttp.ClientTimeout(total=10)
    async with (
        aiohttp.ClientSession(timeout=timeout) as http,
        http.post(url, json=body, allow_redirects=False) as answer,
    ):
        if not 200 <= answer.status < 300:  # noqa: PLR2004
            raise RuntimeError(f"HTTP {answer.status}")
