"""A function with its SDK's encryption middleware reads the data, and its output can be opened."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import inngest
import pytest
from inngest.experimental import mocked
from inngest_encryption import EncryptionMiddleware

from inngest_outbox.encryption import Encryption
from tests.support.node_packages import with_packages

KEY = "my-secret-key"
DATA = {"phone": "867-5309", "ü": 1}
SCRIPT = Path(__file__).parent / "middlewares" / "read.mjs"


def sealed() -> dict[str, object]:
    return dict(Encryption([KEY]).encrypt(DATA, None))


@pytest.mark.slow
@pytest.mark.parametrize(
    "packages",
    [
        ("inngest@3.54.0", "@inngest/middleware-encryption@1.0.2", "@inngest/test@0.1.9"),
        ("inngest@4.24.0", "@inngest/middleware-encryption@2.0.0", "@inngest/test@1.0.0"),
    ],
    ids=["javascript 3", "javascript 4"],
)
def test_a_javascript_function_reads_it(tmp_path: Path, packages: tuple[str, ...]) -> None:
    (tmp_path / "package.json").write_text('{"private": true, "type": "module"}')
    with_packages(tmp_path, *packages)
    shutil.copy(SCRIPT, tmp_path)
    (tmp_path / "event.json").write_text(json.dumps({"name": "a/b", "id": "1", "data": sealed()}))
    command = ["node", "read.mjs", KEY, "event.json"]
    done = subprocess.run(
        command, cwd=tmp_path, check=True, capture_output=True, text=True, timeout=120
    )
    said = json.loads(done.stdout.splitlines()[-1])
    assert said["seen"] == DATA
    assert Encryption([KEY]).decrypted(said["result"]) == DATA


def test_a_python_function_reads_it() -> None:
    seen: list[object] = []
    client = inngest.Inngest(app_id="reader", middleware=[EncryptionMiddleware.factory(KEY)])

    @client.create_function(fn_id="read", trigger=inngest.TriggerEvent(event="a/b"))
    def read(ctx: inngest.ContextSync) -> object:
        seen.append(ctx.event.data["encrypted"])
        return ctx.event.data["encrypted"]

    event = inngest.Event(name="a/b", data=sealed())
    runner = mocked.Inngest(app_id="reader", middleware=client.middleware)
    done = mocked.trigger(read, event, runner)
    assert seen == [DATA]
    assert Encryption([KEY]).decrypted(done.output) == DATA
