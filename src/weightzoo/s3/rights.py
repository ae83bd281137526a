"""What a key may do at a place on S3, found out by doing it."""

from __future__ import annotations

import secrets
from collections.abc import Generator
from contextlib import contextmanager

from weightzoo.errors import FormatError, MissingError, StorageError
from weightzoo.s3.folder import Folder

_CONTENT = b"weightzoo tries whether this place can be written, read and cleaned up; this object may be deleted\n"


def try_out(folder: Folder) -> None:
    """Write an object, list it, read a part of it, and delete it again.

    Raises:
        MissingError: the bucket is not there.
        StorageError: the server can't be reached, or refuses one of these; the message says which.
    """
    name = f".weightzoo-{secrets.token_hex(8)}"
    _require_bucket(folder)
    with _doing("write"):
        folder.write(name, _CONTENT)
    try:
        with _doing("list"):
            found = folder.list(deep=False)
        if found.get(name) is None or found[name].bytes != len(_CONTENT):
            raise StorageError(f"{folder / name}: was written, but is not listed; is this an S3 server?")
        with _doing("read"):
            part, _ = folder.read_range(name, 10, 20)
        if part != _CONTENT[10:20]:
            raise StorageError(f"{folder / name}: the server gives other bytes than were asked for; it can't be used")
    finally:
        with _doing("delete"):
            folder.delete([name])
    with _doing("list"):
        left = name in folder.list(deep=False)
    if left:
        raise StorageError(f"{folder / name}: was deleted, but is still there; have this key granted DeleteObject")


def _require_bucket(folder: Folder) -> None:
    """Some servers make a bucket that is written to, of whatever name."""
    bucket = folder.location.bucket
    with _doing("look at"), folder.connection.errors(folder.location):
        from botocore.exceptions import ClientError

        try:
            folder.connection.client.head_bucket(Bucket=bucket)
        except ClientError as error:
            if error.response.get("ResponseMetadata", {}).get("HTTPStatusCode") == 404:
                raise MissingError(
                    f"{folder}: the bucket {bucket} does not exist; correct its name, or make it"
                ) from None
            if error.response.get("ResponseMetadata", {}).get("HTTPStatusCode") != 403:
                raise  # a key may have rights in a bucket and none to look at it; refusals of the rest have reasons


@contextmanager
def _doing(what: str) -> Generator[None]:
    try:
        yield
    except (StorageError, FormatError) as error:
        raise type(error)(f"can't {what} {error}") from error
