"""What every process that serves watches in itself."""

from __future__ import annotations

from service.console.operations.loop_lag import keep_lag
from service.observe.file_descriptors import DescriptorShortage
from service.observe.recorder import Recorder
from service.supervisor import Supervisor


def watch_process(supervisor: Supervisor, recorder: Recorder) -> None:
    """Watch the event loop's lag and the file descriptors."""
    supervisor.watch("event-loop-lag", lambda: keep_lag(recorder))
    supervisor.watch("file-descriptors", DescriptorShortage(recorder).watch)
