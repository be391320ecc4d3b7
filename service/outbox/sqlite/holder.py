"""Whether the process that holds an outbox is about to be gone."""

from __future__ import annotations

import re
from pathlib import Path

_PF_EXITING = 0x4
_SIGKILL_PENDING = 1 << 8
_FLAGS = 6
_PENDING = re.compile(rb"^(?:SigPnd|ShdPnd):\s*([0-9a-f]+)$", re.MULTILINE)


def is_ending(pid: object) -> bool:
    """Whether the process was killed and the kernel has not cleared it away yet."""
    if not isinstance(pid, int):
        return False
    try:
        status = Path(f"/proc/{pid}/status").read_bytes()
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
    except OSError:
        return False
    is_killed = any(int(mask, 16) & _SIGKILL_PENDING for mask in _PENDING.findall(status))
    return is_killed or fields[0] in b"ZX" or bool(int(fields[_FLAGS]) & _PF_EXITING)
