"""What a service says once it listens: a sentence and its banner."""

from __future__ import annotations

from service.config.settings import Settings
from service.inngest.address import inngest_address
from service.processes.announce import Announcer
from service.processes.banner import banner
from service.processes.standing import standing_of


async def greet(announcer: Announcer, settings: Settings, url: str, sentence: str) -> None:
    """Say `sentence` and the banner of the service that listens at `url`."""
    inngest = inngest_address(settings).event_api_origin
    standing = await standing_of(settings.store_url)
    announcer.say(sentence, banner(settings, url, inngest=inngest, standing=standing))
