"""JSON of no known type from clients, decoded without a long hold on the interpreter.

msgspec takes 9 µs for a number near the limits of a float: a body of 1 MiB, 1.5 s in which no other
thread runs. Python's reader takes a twentieth, and lets others run meanwhile.
"""

from __future__ import annotations

import math
from typing import Any

import msgspec


def _finite(text: str) -> float:
    number = float(text)
    if math.isinf(number):
        raise ValueError
    return number


decode_untyped = msgspec.json.Decoder(float_hook=_finite).decode
decode_untyped_object = msgspec.json.Decoder(dict[str, Any], float_hook=_finite).decode
