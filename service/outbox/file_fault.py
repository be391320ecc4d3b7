"""A fault of the file system for a person: which file, why, and what to do."""

from __future__ import annotations

from pathlib import Path


def file_fault(path: Path | str, error: OSError) -> str:
    """One sentence about a file that can't be used.

    >>> file_fault(Path("/data/outbox.db"), FileNotFoundError(2, "No such file or directory"))
    "/data/outbox.db can't be used: No such file or directory."
    """
    if isinstance(error, PermissionError):
        return (
            f"This user may not write {path}: run the command as the user who owns it, or mend the "
            "rights of the file and its folder."
        )
    return f"{path} can't be used: {error.strerror or type(error).__name__}."
