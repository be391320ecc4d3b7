"""Every error of botocore becomes one of ours."""

from __future__ import annotations

import inspect

import aiohttp
import botocore.exceptions
import pytest

from inngest_outbox.documents.boto import s3_errors
from inngest_outbox.errors import DocumentNotFoundError, StorageUnavailableError

# Faults in botocore's own model of a service, and warnings: nothing that S3 or a network causes.
NOT_STORAGE = {
    "MissingServiceIdError",
    "UndefinedModelAttributeError",
    "UnsupportedTLSVersionWarning",
    "ImminentRemovalWarning",
}
EXCEPTIONS = [
    kind
    for name, kind in inspect.getmembers(botocore.exceptions, inspect.isclass)
    if issubclass(kind, Exception) and name not in NOT_STORAGE
]


def make(kind):
    if issubclass(kind, botocore.exceptions.ClientError):
        return kind({"Error": {"Code": "Teapot"}}, "HeadObject")
    return kind.__new__(kind)


def client_error(status, code):
    return botocore.exceptions.ClientError(
        {"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": status}}, "GetObject"
    )


def test_an_error_of_botocore_becomes_one_of_ours_and_stays_its_cause():
    for error in (*map(make, EXCEPTIONS), TimeoutError(), OSError(), aiohttp.ClientError()):
        with pytest.raises(StorageUnavailableError) as caught, s3_errors():
            raise error
        assert caught.value.__cause__ is error


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (client_error(403, "403"), "refuses the credentials, or they don't allow this"),
        (client_error(403, "SignatureDoesNotMatch"), "credentials"),
        (client_error(403, "InvalidAccessKeyId"), "credentials"),
        (client_error(404, "NoSuchBucket"), "does not exist"),
        (client_error(404, "404"), "does not exist"),
        (client_error(301, "301"), "The bucket is in another region than AWS_S3_REGION"),
        (client_error(400, "AuthorizationHeaderMalformed"), "another region"),
        (client_error(400, "IllegalLocationConstraintException"), "another region"),
        (client_error(301, "PermanentRedirect"), "another region"),
        (client_error(401, "AccessDenied"), "credentials"),
        (botocore.exceptions.ReadTimeoutError(endpoint_url="u"), "in time"),
        (client_error(400, "400"), "the request: check the credentials and AWS_S3_REGION"),
        (client_error(429, "TooManyRequests"), "S3 asks for fewer requests"),
        (botocore.exceptions.ClientError({}, "HeadObject"), "error of its own"),
        (client_error(503, "SlowDown"), "S3 answers with an error of its own"),
        (client_error(500, "InternalError"), "error of its own"),
        (botocore.exceptions.NoCredentialsError(), "No usable AWS credentials"),
        (make(botocore.exceptions.PartialCredentialsError), "No usable AWS credentials"),
        (make(botocore.exceptions.CredentialRetrievalError), "No usable AWS credentials"),
        (botocore.exceptions.ProfileNotFound(profile="p"), "configuration is faulty"),
        (botocore.exceptions.ParamValidationError(report="r"), "configuration is faulty"),
        (botocore.exceptions.EndpointConnectionError(endpoint_url="u"), "can't be reached"),
        (botocore.exceptions.ConnectTimeoutError(endpoint_url="u"), "in time"),
        (TimeoutError(), "in time"),
        (aiohttp.ClientPayloadError(), "can't be reached"),
        (ConnectionResetError(), "can't be reached"),
    ],
)
def test_the_sentence_says_what_a_person_can_do_about_it(error, sentence):
    with pytest.raises(StorageUnavailableError, match=sentence), s3_errors():
        raise error


def test_a_key_that_s3_does_not_have_is_not_storage_trouble():
    with pytest.raises(DocumentNotFoundError), s3_errors():
        raise client_error(404, "NoSuchKey")


def test_a_mistake_of_ours_passes_unchanged():
    with pytest.raises(KeyError), s3_errors():
        raise KeyError
