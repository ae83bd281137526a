"""What can go wrong with S3, each as one line: what was met, and what to do. Nothing of a message is boto3's own text,
which may quote a request."""

from __future__ import annotations

from boto3.exceptions import Boto3Error
from botocore import exceptions as boto

from weightzoo.errors import MissingError, StorageError, WeightzooError

FOREIGN = (boto.BotoCoreError, boto.ClientError, Boto3Error)

_KEYS = "give the right one with AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or with AWS_PROFILE"
_ENDPOINT = "correct it with `weightzoo remote setup`, or AWS_ENDPOINT_URL"
_AGAIN = "do the same again, nothing is half done"
_BUCKET = "the bucket does not exist; correct its name, or make it"
_DENIED = "this key has no right to do that; have it granted, or use another key"
# Of the codes that servers answer with (https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html)
_REFUSED = {
    "InvalidAccessKeyId": f"the access key is not known there; {_KEYS}",
    "SignatureDoesNotMatch": f"the secret key is not that of the access key; {_KEYS}",
    "RequestTimeTooSkewed": "the clock of this machine is wrong; set it (timedatectl set-ntp true)",
    "RequestExpired": "the clock of this machine is wrong; set it (timedatectl set-ntp true)",
    "ExpiredToken": "the session has expired; log in anew",
    "InvalidToken": "the session token is not valid; log in anew",
    "NoSuchBucket": _BUCKET,
    "AccessDenied": _DENIED,
    "AllAccessDisabled": _DENIED,
    "PermanentRedirect": "the bucket is in another region; name that in AWS_DEFAULT_REGION",
    "AuthorizationHeaderMalformed": "the bucket is in another region; name that in AWS_DEFAULT_REGION",
    "NoSuchUpload": f"the upload was aborted by someone else; {_AGAIN}",
    "InsufficientStorage": "the server's disk is full; make room there, then do the same again",
    "QuotaExceeded": "the quota of the bucket is used up; make room there, then do the same again",
    "XMinioStorageFull": "the server's disk is full; make room there, then do the same again",
}
_STATUS = {403: _DENIED, 507: _REFUSED["InsufficientStorage"]}


def translated(error: Exception, where: str, endpoint: str | None) -> WeightzooError:
    """Our error for one of `FOREIGN`, met at `where`."""
    server = endpoint or "Amazon S3"
    if isinstance(error, boto.ClientError):
        return _refusal(error, where, server)
    if isinstance(error, boto.NoCredentialsError | boto.PartialCredentialsError):
        return StorageError(f"{where}: no complete credentials; {_KEYS}")
    if isinstance(error, boto.ProfileNotFound):
        return StorageError(
            f"{where}: ~/.aws has no such profile; correct AWS_PROFILE, or `weightzoo remote setup --profile`"
        )
    if isinstance(error, boto.ReadTimeoutError | boto.ConnectTimeoutError):
        return StorageError(f"{where}: {server} did not answer in time; {_AGAIN}")
    if isinstance(error, boto.EndpointConnectionError):
        return StorageError(f"{where}: nobody answers at {server}; start the server and {_AGAIN}, or {_ENDPOINT}")
    if isinstance(error, boto.SSLError):
        return StorageError(f"{where}: the certificate of {server} is not trusted; name its authority in AWS_CA_BUNDLE")
    if isinstance(error, boto.HTTPClientError | boto.ResponseStreamingError | boto.IncompleteReadError):
        return StorageError(f"{where}: the connection to {server} broke; {_AGAIN}")
    if isinstance(error, boto.FlexibleChecksumError):
        return StorageError(f"{where}: what arrived from {server} is not what was stored; {_AGAIN}")
    kind = type(error).__name__
    if isinstance(error, ValueError) or "Endpoint" in kind:
        return StorageError(f"{where}: {server} is no URL of a server; {_ENDPOINT}")
    return StorageError(f"{where}: {server} can't be used ({kind}); check endpoint, profile and region")


def code_of(error: boto.ClientError) -> str:
    """The server's own word for what was wrong, such as `NoSuchKey`."""
    return str(error.response.get("Error", {}).get("Code", ""))


def _refusal(error: boto.ClientError, where: str, server: str) -> WeightzooError:
    code, status = code_of(error), int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
    if code in _REFUSED:
        return StorageError(f"{where}: {code}: {_REFUSED[code]}")
    if code == "NoSuchKey" or status == 404:
        return MissingError(f"{where}: no such object on S3; check the path, or push it again")
    if status in _STATUS:
        return StorageError(f"{where}: {code}: {_STATUS[status]}")
    if status == 429 or status >= 500:
        return StorageError(f"{where}: {code}: {server} is overloaded or broken; {_AGAIN}, a little later")
    return StorageError(f"{where}: {server} refuses with {code or status}; check endpoint, bucket and region")
