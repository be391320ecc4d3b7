"""The mutants that change nothing that a caller, an operator or Inngest could notice.

`harmless.toml` names each with its reason, by module. A name that no mutant has is an error.
"""

from __future__ import annotations

import tomllib
from pathlib import Path

FILE = Path(__file__).with_name("harmless.toml")


def harmless() -> dict[str, dict[str, str]]:
    """The reasons by module and by mutant."""
    found: dict[str, dict[str, str]] = tomllib.loads(FILE.read_text())
    return found
