"""aioboto3, boto's libraries below it and their description of S3.

They would take a fifth of the service's start, so a bucket loads them when it is first used.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import aiohttp

from inngest_outbox.errors import DocumentNotFoundError, StorageUnavailableError

# What boto would read while it makes the first client, on the event loop.
_SERVICE = ("service-2", "endpoint-rule-set-1")
_GENERAL = ("partitions", "endpoints", "sdk-default-configuration", "_retry")
_CREDENTIALS = "S3 refuses the credentials, or they don't allow this."
_LATE = "S3 does not answer in time."
_REGION = "The bucket is in another region than AWS_S3_REGION."
_BUCKET = "The bucket does not exist."
_SENTENCES = {
    "404": _BUCKET,
    "301": _REGION,
    "AuthorizationHeaderMalformed": _REGION,
    "IllegalLocationConstraintException": _REGION,
    "400": "S3 refuses the request: check the credentials and AWS_S3_REGION.",
    "401": _CREDENTIALS,
    "403": _CREDENTIALS,
    "429": "S3 asks for fewer requests.",
}


@dataclass(frozen=True, slots=True)
class Boto:
    """A session of aioboto3, the class of its clients' configuration, and botocore's errors."""

    session: Any
    config: Any
    errors: Any


def load_boto() -> Boto:
    """A session of its own. It blocks for some 0.2 s the first time: call it in a thread."""
    import aioboto3
    from aiobotocore.config import AioConfig
    from aiobotocore.session import get_session
    from botocore import exceptions

    core_session = get_session()
    loader = core_session.get_component("data_loader")
    for kind in _SERVICE:
        loader.load_service_model("s3", kind)
    for name in _GENERAL:
        loader.load_data(name)
    return Boto(aioboto3.Session(botocore_session=core_session), AioConfig, exceptions)


@contextmanager
def s3_errors() -> Iterator[None]:
    """Turn what botocore, aiohttp and the network raise into the service's errors."""
    try:
        yield
    except TimeoutError as error:
        raise StorageUnavailableError(_LATE) from error
    except _botocore().ClientError as error:
        if error.response.get("Error", {}).get("Code") == "NoSuchKey":
            raise DocumentNotFoundError from error
        raise StorageUnavailableError(_answer_sentence(error)) from error
    except (_botocore().BotoCoreError, aiohttp.ClientError, OSError) as error:
        raise StorageUnavailableError(_fault_sentence(error)) from error


def status_of(error: Exception) -> int:
    """The HTTP status of the answer that an error of S3 carries, 0 without an answer."""
    response: dict[str, Any] = getattr(error, "response", None) or {}
    return int(response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def _botocore() -> Any:
    from botocore import exceptions

    return exceptions


def _answer_sentence(error: Any) -> str:
    code = str(error.response.get("Error", {}).get("Code"))
    return (
        _SENTENCES.get(code)
        or _SENTENCES.get(str(status_of(error)))
        or "S3 answers with an error of its own."
    )


def _fault_sentence(error: BaseException) -> str:
    boto = _botocore()
    without = (boto.NoCredentialsError, boto.PartialCredentialsError, boto.CredentialRetrievalError)
    if isinstance(error, without):
        return "No usable AWS credentials were found."
    if isinstance(error, (boto.ConnectTimeoutError, boto.ReadTimeoutError)):
        return _LATE
    away = (boto.EndpointConnectionError, boto.HTTPClientError, aiohttp.ClientError, OSError)
    if isinstance(error, away):
        return "S3 can't be reached."
    return "The S3 client's configuration is faulty."
