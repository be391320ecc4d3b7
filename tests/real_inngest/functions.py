"""The functions of the suite, declared once: the fake has them as they are, the SDKs get theirs.

Each app has all of them; the name of a trigger begins with the app's.
"""

from __future__ import annotations

from inngest_outbox.dev.fake_inngest.functions import Function

LONG_MS = 300_000
BATCH = 3
ERROR = {"name": "Error", "message": "it broke", "stack": "at line 1"}


def functions(app: str) -> list[Function]:
    """Those of one app. JavaScript's SDK 4 leaves its outputs out of the first API."""
    plain = dict[str, object](app=app, old_output=app != "js4")
    return [
        Function(**plain, id=f"{app}-{name}", trigger=_event(app, trigger), **more)  # type: ignore[arg-type]
        for name, trigger, more in _declared(app)
    ]


def _event(app: str, name: str) -> str:
    return name if name.startswith("inngest/") else f"{app}/{name}"


def _declared(app: str) -> list[tuple[str, str, dict[str, object]]]:
    return [
        ("echo", "echo", {}),
        ("object", "object", {"returns": {"n": 1}}),
        ("number", "number", {"returns": 5}),
        ("text", "text", {"returns": "text"}),
        ("nothing", "nothing", {"returns": None}),
        ("fails", "fails", {"error": ERROR, "retries": 1, "retry_ms": 1000}),
        ("sleeps", "sleeps", {"lasts_ms": 2000, "returns": {"slept": True}}),
        ("fan-a", "fan", {"returns": {"from": "a"}}),
        ("fan-b", "fan", {"returns": {"from": "b"}}),
        ("long", "long", {"lasts_ms": LONG_MS, "cancel_on": f"{app}/stop"}),
        ("latest", "latest", {"lasts_ms": 3000, "returns": 1, "cancel_on": f"{app}/latest"}),
        ("waits", "wait", {"lasts_ms": LONG_MS, "wait_for": f"{app}/go"}),
        ("batch", "batch", {"batch_size": BATCH, "batch_ms": 2000}),
        ("debounced", "debounce", {"debounce_ms": 1000}),
        ("limited", "limited", {"rate_limit_ms": 3_600_000}),
        ("sends", "send", {"sends": f"{app}/echo"}),
        ("tells", "inngest/function.failed", {"sends": f"{app}/failed"}),
    ]
