"""What follows events for those who wait for them."""

from __future__ import annotations

import aiohttp

from service.bootstrap.web_outbox import WebOutbox
from service.config.settings import Settings
from service.inngest.address import run_link
from service.inngest.rest_api import make_rest_api
from service.supervisor import Supervisor
from service.web.events.followed_event import FollowPolicy
from service.web.events.follower import EventFollower
from service.web.events.run_asker import RunAsker

_ASK_TIMEOUT_SECONDS = 5.0


def start_follower(
    settings: Settings, outbox: WebOutbox, http: aiohttp.ClientSession, supervisor: Supervisor
) -> EventFollower:
    """A follower at work under `supervisor`."""
    policy = FollowPolicy(no_run_seconds=settings.no_run_seconds)
    reader = make_rest_api(settings, http, timeout_seconds=_ASK_TIMEOUT_SECONDS)
    follower = EventFollower(
        outbox.inspector, RunAsker(reader, run_link(settings), policy) if reader else None, policy
    )
    supervisor.watch("following", follower.look)
    supervisor.watch("ending-waits", follower.end_waits)
    if follower.runs_follow:
        supervisor.watch("asking-for-runs", follower.ask)
    return follower
