"""Every error that weightzoo raises on purpose.

A message is one line: what was given, what was expected, what to do. Each class is also the standard exception that a
caller would look for first, so that `except ValueError` keeps working.
"""

from __future__ import annotations


class WeightzooError(Exception):
    """Base class of all errors that a user can cause or meet."""


class SpecError(WeightzooError, ValueError):
    """`params.yaml`, or a value that belongs there, describes something that can't be built."""


class LayoutError(WeightzooError, ValueError):
    """Tensors do not fit the architecture that they are read against."""


class FormatError(WeightzooError, ValueError):
    """A file exists, but is truncated, corrupt or of another format or version."""


class UnsafeError(FormatError):
    """A file from elsewhere would do or take more than data should: run code, leave its folder, fill the memory."""


class MissingError(WeightzooError, FileNotFoundError):
    """A file, folder or stage output that should be there is not."""


class NotFoundError(WeightzooError, LookupError):
    """A name (zoo, run, member, layer, column) is unknown."""


class QueryError(WeightzooError, ValueError):
    """A registry query can't be parsed, or names a field that no run has."""


class EngineError(WeightzooError, RuntimeError):
    """A training engine can't do what was asked of it."""


class ClusterError(WeightzooError, RuntimeError):
    """The cluster that should train can't be used: not installed, not reachable, or it loses the same work again."""


class TrackingError(WeightzooError, RuntimeError):
    """The MLflow tracking store is unreachable, locked or in a state that should not occur."""


class DownloadError(WeightzooError, ConnectionError):
    """A file can't be downloaded: no way to the server, no such file there, or not the right one."""


class LeakError(WeightzooError, ValueError):
    """A model that a predictor is tested on is known to it: the model itself, a twin, a copy or its configuration."""


class StorageError(WeightzooError, OSError):
    """An object store can't be reached, or refuses: keys, rights, clock, bucket, connection."""
