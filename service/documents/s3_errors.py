"""Turns what botocore, aiohttp and the network raise into the service's errors.

The invariant: "S3 says that it is not there" (DocumentNotFoundError) stays apart from "S3 can't be
asked" (StorageUnavailableError).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import aiohttp
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectTimeoutError,
    CredentialRetrievalError,
    EndpointConnectionError,
    HTTPClientError,
    NoCredentialsError,
    PartialCredentialsError,
    ReadTimeoutError,
)

from service.errors import DocumentNotFoundError, StorageUnavailableError

_CREDENTIALS = "S3 refuses the credentials, or they don't allow this."
_REGION = "The bucket is in another region than AWS_S3_REGION."
_BUCKET = "The bucket named by AWS_S3_BUCKET does not exist."
_SENTENCES = {
    "NoSuchBucket": _BUCKET,
    "404": _BUCKET,
    "301": _REGION,
    "PermanentRedirect": _REGION,
    "AuthorizationHeaderMalformed": _REGION,
    "IllegalLocationConstraintException": _REGION,
    "400": "S3 refuses the request: check the credentials and AWS_S3_REGION.",
    "401": _CREDENTIALS,
    "403": _CREDENTIALS,
    "429": "S3 asks for fewer requests.",
}


@contextmanager
def s3_errors() -> Iterator[None]:
    """Turn what botocore, aiohttp and the network raise into the service's errors."""
    try:
        yield
    except ClientError as error:
        if error.response.get("Error", {}).get("Code") == "NoSuchKey":
            raise DocumentNotFoundError from error
        raise StorageUnavailableError(_answer_sentence(error)) from error
    except (BotoCoreError, aiohttp.ClientError, OSError) as error:
        raise StorageUnavailableError(_fault_sentence(error)) from error


def status_of(error: ClientError) -> int:
    """The HTTP status of S3's answer, 0 without one."""
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def _answer_sentence(error: ClientError) -> str:
    code = str(error.response.get("Error", {}).get("Code"))
    return (
        _SENTENCES.get(code)
        or _SENTENCES.get(str(status_of(error)))
        or "S3 answers with an error of its own."
    )


def _fault_sentence(error: BaseException) -> str:
    if isinstance(error, (NoCredentialsError, PartialCredentialsError, CredentialRetrievalError)):
        return "No usable AWS credentials were found."
    if isinstance(error, (TimeoutError, ConnectTimeoutError, ReadTimeoutError)):
        return "S3 does not answer in time."
    if isinstance(error, (EndpointConnectionError, HTTPClientError, aiohttp.ClientError, OSError)):
        return "S3 can't be reached."
    return "The S3 client's configuration is faulty."
