"""`python -m inngest_outbox check`: the configuration, and what the neighbours say to it."""

from __future__ import annotations

import asyncio
import os

import typer
from pydantic import ByteSize, SecretStr

from inngest_outbox.bootstrap.operations import needed_keys
from inngest_outbox.bootstrap.probes import Probe, probe_confirmation, probe_inngest, probe_storage
from inngest_outbox.config.faults import misspelt_variables
from inngest_outbox.config.outbox_url import redacted_url
from inngest_outbox.config.settings import Settings
from inngest_outbox.config.values import spelled_duration
from inngest_outbox.errors import OutboxError, OutboxUnavailableError
from inngest_outbox.event_types.types_file import load_event_types
from inngest_outbox.observe.printable import printable

NEIGHBOUR_FAULT = 1
_HIDDEN = "********"


def check(settings: Settings) -> int:
    """Print the settings, the event types and what the neighbours say; returns the exit code.

    1 when Inngest or the bucket is configured and would not serve, when a PostgreSQL outbox is not
    safe or does not answer, when waiting events need an encryption key that is not given, or when a
    variable is misspelt. Secrets are hidden.
    """
    for variable, field in settings.variables().items():
        typer.echo(printable(f"{variable}={shown(field, getattr(settings, field))}"))
    for one in load_event_types(settings.event_types_file):
        typer.echo(f"event type: {one.name} at POST {one.path}, by {', '.join(one.who)}", err=True)
    inngest, confirmation, storage = asyncio.run(_probe(settings))
    typer.echo(f"inngest: {printable(inngest.words)}", err=True)
    typer.echo(f"confirmation: {confirmation.words}", err=True)
    typer.echo(f"storage: {storage.words}", err=True)
    misspelt = list(misspelt_variables(os.environ, settings.variables()))
    for name, meant in misspelt:
        typer.echo(f"{name}: no variable of the service; did you mean {meant}?", err=True)
    outbox_fault = _outbox_fault(settings)
    if outbox_fault:
        typer.echo(f"outbox: {outbox_fault}", err=True)
    keys = asyncio.run(_keys(settings))
    if keys.words:
        typer.echo(f"encryption: {keys.words}", err=True)
    well = (inngest.ok, confirmation.ok, storage.ok, keys.ok)
    is_well = False not in well and not outbox_fault and not misspelt
    return 0 if is_well else NEIGHBOUR_FAULT


async def _keys(settings: Settings) -> Probe:
    """The encryption keys that waiting events need. Silent where nothing is encrypted."""
    keys = [key.get_secret_value() for key in settings.encryption_keys]
    try:
        needs = await needed_keys(settings.store_url, keys)
    except OutboxError:
        return Probe(ok=None, words="")
    if needs.fault:
        return Probe(ok=False, words=needs.fault)
    return Probe(ok=True, words=needs.words)


def _outbox_fault(settings: Settings) -> str | None:
    """A sentence when the outbox's database does not answer, or others may create in its schema."""
    if settings.sqlite_path:
        return None
    from inngest_outbox.outbox.postgres.database.schema import fault_of_others

    try:
        return fault_of_others(settings.store_url)
    except OutboxUnavailableError as error:
        return str(error)


async def _probe(settings: Settings) -> tuple[Probe, Probe, Probe]:
    inngest, confirmation, storage = await asyncio.gather(
        probe_inngest(settings), probe_confirmation(settings), probe_storage(settings)
    )
    if not settings.names_inngest:
        # Nothing is configured: the dev server at its usual address may be started later.
        inngest = Probe(ok=None, words=inngest.words)
    return inngest, confirmation, storage


def shown(field: str, value: object) -> str:
    """A setting as it could be written in the environment, without secrets.

    >>> shown("retention_seconds", 604800.0), shown("session_secret", (SecretStr("x"),))
    ('7d', '********')
    """
    if isinstance(value, SecretStr):
        return _HIDDEN
    if isinstance(value, tuple):
        return ",".join(shown(field, one) for one in value)
    if field.endswith("_seconds") and isinstance(value, float):
        return spelled_duration(value)
    if isinstance(value, ByteSize):
        return str(int(value))
    return "" if value is None else redacted_url(str(value))
