"""The look at the bucket that `check` takes: how long S3 has for its answer."""

from __future__ import annotations

from typing import Self

import pytest

from inngest_outbox.bootstrap import probes
from inngest_outbox.config.settings import Settings


class Bucket:
    """Remembers how it was opened; it is well."""

    opened: tuple[str, str, float]

    def __init__(self, name: str, region: str, *, ask_seconds: float) -> None:
        Bucket.opened = name, region, ask_seconds

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        pass

    async def probe(self) -> str | None:
        return None


async def test_a_bucket_has_five_seconds_to_answer_to_who_looks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(probes, "Bucket", Bucket)
    settings = Settings.load({"AWS_S3_BUCKET": "documents", "AWS_S3_REGION": "eu-west-1"})
    assert (await probes.probe_storage(settings)).ok
    assert Bucket.opened == ("documents", "eu-west-1", 5.0)


async def test_a_bucket_without_a_region_or_without_a_name_is_not_asked() -> None:
    both = ("AWS_S3_BUCKET", "AWS_S3_REGION")
    for given, missing in (both, both[::-1]):
        probe = await probes.probe_storage(Settings.load({given: "eu-west-1"}))
        assert (probe.ok, probe.words) == (None, f"not configured: {missing}")
