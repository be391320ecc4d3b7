"""aioboto3, boto's libraries below it and their description of S3.

They would take a fifth of the service's start, so a bucket loads them when it is first used.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import Any

# What boto would read while it makes the first client, on the event loop.
_SERVICE = ("service-2", "endpoint-rule-set-1")
_GENERAL = ("partitions", "endpoints", "sdk-default-configuration", "_retry")


@dataclass(frozen=True, slots=True)
class Boto:
    """A session of aioboto3, the class of its clients' configuration, and botocore's errors."""

    session: Any
    config: Any
    errors: Any


def load_boto() -> Boto:
    """A session of its own. It blocks for some 0.2 s the first time: call it in a thread."""
    aioboto3, core, config, errors = map(
        importlib.import_module,
        ("aioboto3", "aiobotocore.session", "aiobotocore.config", "botocore.exceptions"),
    )
    core_session = core.get_session()
    loader = core_session.get_component("data_loader")
    for kind in _SERVICE:
        loader.load_service_model("s3", kind)
    for name in _GENERAL:
        loader.load_data(name)
    return Boto(aioboto3.Session(botocore_session=core_session), config.AioConfig, errors)
