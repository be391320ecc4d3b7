"""What a parent process learns from its store process, so that it need not find out itself."""

from __future__ import annotations

from service.config.settings import Settings
from service.observe.recorder import NullRecorder
from service.outbox.link.outbox import open_remote_outbox
from service.supervisor import run_supervisor


async def settings_of_store(settings: Settings, store: str) -> Settings:
    """The settings with the Inngest address of the store process that listens at `store`.

    Without it where the store process does not answer soon.
    """
    async with (
        run_supervisor(NullRecorder()) as supervisor,
        open_remote_outbox(store, supervisor) as outbox,
    ):
        return settings.with_known_inngest(outbox.status.inngest)
