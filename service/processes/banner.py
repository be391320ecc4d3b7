"""The banner of `serve`: where it listens, where events go, what is kept, what is missing. Pure."""

from __future__ import annotations

from service.config.destination import Destination, confirmation_mode, destination
from service.config.outbox_url import redacted_url
from service.config.settings import Settings
from service.config.values import parse_event_keys
from service.observe.printable import printable
from service.processes.standing import Standing


def banner(settings: Settings, url: str, *, inngest: str, standing: Standing) -> dict[str, str]:
    """The lines by their labels.

    `inngest` is where events go.
    """
    waiting, paused = standing.waiting, standing.paused
    return {
        "events go to": _destination(settings, inngest),
        **({"delivery": f"{printable(paused)}; `outbox resume` starts it again"} if paused else {}),
        "confirmation": str(confirmation_mode(settings)),
        "outbox": redacted_url(settings.outbox_url)
        + ("" if waiting is None else f", {waiting:,} events wait"),
        "storage": _storage(settings),
        "sign in": _sign_in(settings, url),
        **_machines(settings, url),
        **_event_types(settings),
        "pages": f"{url}/docs, {url}/outbox",
    }


def _destination(settings: Settings, inngest: str) -> str:
    kind = destination(settings)
    if kind is Destination.FAKE:
        return f"a fake Inngest, for development: {inngest}/fake-inngest/events shows them"
    return f"{inngest} ({kind.value})"


def _storage(settings: Settings) -> str:
    if settings.missing_storage:
        missing = " and ".join(settings.missing_storage)
        return f"missing: set {missing}; until then posts are answered 503"
    return f"bucket {settings.s3_bucket} in {settings.s3_region}"


def _machines(settings: Settings, url: str) -> dict[str, str]:
    keys = parse_event_keys(one.get_secret_value() for one in settings.event_keys)
    names = ", ".join(sorted(set(keys.values())))
    return {"machines": f"{names}, at {url}/e/<event key>"} if names else {}


def _event_types(settings: Settings) -> dict[str, str]:
    file = settings.event_types_file
    return {"event types": f"those of {printable(file)} too"} if file else {}


def _sign_in(settings: Settings, url: str) -> str:
    ways = []
    if settings.oidc_issuer:
        ways.append(f"{url}/auth/login ({settings.oidc_issuer})")
    if settings.nextauth_secret or settings.auth_secrets:
        ways.append("cookies of next-auth")
    if settings.dev_login or (not settings.production and settings.loopback):
        ways.append(f"{url}/auth/dev-login (development)")
    return ", ".join(ways) or "no way: set OIDC_ISSUER, NEXTAUTH_SECRET or AUTH_SECRET"
