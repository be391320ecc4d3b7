"""Where Inngest is: what the Inngest SDK's client makes of the INNGEST_* variables.

So they mean what Inngest's documentation says, in the relay and in the worker.
"""

from __future__ import annotations

import functools
import importlib

from service.config.inngest_address import InngestAddress
from service.config.settings import Settings


@functools.cache
def inngest_address(settings: Settings) -> InngestAddress:
    """The address that the settings and the environment give.

    The first call loads the SDK (0.1 s of processor time), which a command that sends nothing does
    without, and so does a process whose settings know the address. A client takes 15 ms.
    """
    if settings.known_inngest:
        return settings.known_inngest
    client = importlib.import_module("service.bootstrap.inngest").make_client(settings)
    return InngestAddress(
        event_api_origin=client.event_api_origin,
        api_origin=client.api_origin,
        event_key=client.event_key,  # always set by make_client
        environment=client.env,
    )
