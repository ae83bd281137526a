"""A place on S3."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Self

from weightzoo.errors import SpecError

SCHEME = "s3://"
_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")


def is_s3(target: object) -> bool:
    """Whether something names a place on S3."""
    return str(target).startswith(SCHEME)


@dataclass(frozen=True, order=True)
class Location:
    """A bucket and what stands in it: an object, or a prefix that objects share as files share a folder.

    >>> str(Location.parse("s3://zoos/lab/") / "digits" / "zoo.json")
    's3://zoos/lab/digits/zoo.json'
    """

    bucket: str
    key: str = ""  # without a slash at either end; empty for the whole bucket

    @classmethod
    def parse(cls, url: str) -> Self:
        """The place that `s3://bucket/prefix` names.

        Raises:
            SpecError: it is of another kind, or its bucket has a name that no bucket can have.
        """
        bucket, _, key = url.removeprefix(SCHEME).partition("/")
        if not is_s3(url) or not _BUCKET.fullmatch(bucket):
            raise SpecError(
                f"{url}: no place on S3; write s3://BUCKET/PREFIX, the bucket in 3 to 63 small letters, digits and '-'"
            )
        return cls(bucket, key.strip("/"))

    @property
    def name(self) -> str:
        """The last part of the key, or the bucket."""
        return self.key.rpartition("/")[2] or self.bucket

    @property
    def prefix(self) -> str:
        """What the keys of all objects below it begin with."""
        return f"{self.key}/" if self.key else ""

    def __truediv__(self, name: str) -> Location:
        return Location(self.bucket, self.prefix + name)

    def __str__(self) -> str:
        return f"{SCHEME}{self.bucket}/{self.key}".rstrip("/")
