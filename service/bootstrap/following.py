"""What follows events for those who wait for them."""

from __future__ import annotations

import aiohttp

from service.bootstrap.inngest import make_client
from service.bootstrap.stores import Outbox
from service.config.settings import Settings
from service.relay.inngest_events import InngestEvents
from service.supervisor import Supervisor
from service.web.following.follow_policy import FollowPolicy
from service.web.following.follower import EventFollower
from service.web.following.run_asker import RunAsker

_ASK_TIMEOUT_SECONDS = 5.0


def start_follower(
    settings: Settings, outbox: Outbox, http: aiohttp.ClientSession, supervisor: Supervisor
) -> EventFollower:
    """A follower at work under `supervisor`."""
    policy = FollowPolicy()
    reader = _run_reader(settings, http)
    follower = EventFollower(outbox, RunAsker(reader, policy) if reader else None, policy)
    supervisor.watch("following", follower.look)
    if follower.runs_follow:
        supervisor.watch("asking-for-runs", follower.ask)
    return follower


def _run_reader(settings: Settings, http: aiohttp.ClientSession) -> InngestEvents | None:
    """Inngest's REST API, None where it can't be asked: it wants a signing key or a dev server."""
    client = make_client(settings)
    if client.is_production and not client.signing_key:
        return None
    return InngestEvents(
        http,
        origin=client.api_origin,
        signing_key=client.signing_key if client.is_production else None,
        environment=client.env,
        timeout_seconds=_ASK_TIMEOUT_SECONDS,
    )
