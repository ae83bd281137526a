"""Multipart uploads that nobody finished: a killed writer leaves one, which takes room and is in no listing."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from weightzoo.s3.folder import Folder
from weightzoo.s3.location import Location

_GONE = "NoSuchUpload"  # finished or aborted by someone else


@dataclass(frozen=True)
class Upload:
    """One that was begun and neither finished nor aborted."""

    place: Location
    id: str
    begun: datetime.datetime
    bytes: int


def unfinished(folder: Folder, older_than: datetime.timedelta = datetime.timedelta(0)) -> list[Upload]:
    """Those below a location that were begun so long ago, the oldest first.

    Raises:
        StorageError: as `Connection.errors` says, also below.
    """
    now = datetime.datetime.now(datetime.UTC)
    client, bucket = folder.connection.client, folder.location.bucket
    with folder.connection.errors(folder.location):
        pages = client.get_paginator("list_multipart_uploads").paginate(Bucket=bucket, Prefix=folder.location.prefix)
        found = [each for page in pages for each in page.get("Uploads", ())]
        old = [each for each in found if now - each["Initiated"] >= older_than]
        uploads = [
            Upload(Location(bucket, each["Key"]), each["UploadId"], each["Initiated"], size)
            for each in old
            if each["Key"].startswith(folder.location.prefix)  # not every server heeds the prefix
            and (size := _stored(client, bucket, each)) is not None
        ]
    return sorted(uploads, key=lambda upload: (upload.begun, upload.place))


def abort(folder: Folder, upload: Upload) -> None:
    """Give up an upload, and free what it takes; one that is gone meanwhile is none.

    Raises:
        StorageError
    """
    from botocore.exceptions import ClientError

    from weightzoo.s3.faults import code_of

    with folder.connection.errors(upload.place):
        try:
            folder.connection.client.abort_multipart_upload(
                Bucket=upload.place.bucket, Key=upload.place.key, UploadId=upload.id
            )
        except ClientError as error:
            if code_of(error) != _GONE:
                raise


def _stored(client: Any, bucket: str, upload: Mapping[str, Any]) -> int | None:
    """Bytes of the parts that arrived; None if the upload is gone meanwhile."""
    from botocore.exceptions import ClientError

    from weightzoo.s3.faults import code_of

    try:
        pages = client.get_paginator("list_parts").paginate(
            Bucket=bucket, Key=upload["Key"], UploadId=upload["UploadId"]
        )
        return sum(int(part["Size"]) for page in pages for part in page.get("Parts", ()))
    except ClientError as error:
        if code_of(error) != _GONE:
            raise
        return None
