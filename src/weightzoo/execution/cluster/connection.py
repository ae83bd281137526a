"""The way to a Ray cluster. Ray is imported when a cluster is used and not before, and may not be installed."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Generator
from typing import Any

from weightzoo.errors import ClusterError

CONNECT_SECONDS = 10.0


def load_ray() -> Any:
    """The module `ray`, untyped, since only parts of it have types.

    Raises:
        ClusterError: it is not installed.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # read when Ray is imported
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # or it warns of a default that will change
    try:
        import ray
    except ImportError:
        raise ClusterError("execution: ray needs Ray, which is not installed; pip install weightzoo[ray]") from None
    return ray


@contextlib.contextmanager
def connected(address: str | None) -> Generator[None]:
    """Connect to the cluster at `host:port`; without address to that of RAY_ADDRESS or of this machine, or start one.

    A connection that is there already is used, and left open.

    Raises:
        ClusterError: Ray is not installed, or no cluster answers.
    """
    ray = load_ray()
    if ray.is_initialized():
        yield
        return
    wanted = address or os.environ.get("RAY_ADDRESS")
    if wanted and wanted not in ("auto", "local"):
        _require_answer(wanted)
    try:
        local = {} if wanted else {"include_dashboard": False}
        ray.init(address=wanted, log_to_driver=False, logging_level="ERROR", **local)
    except Exception as error:
        said = str(error).strip().splitlines()
        raise ClusterError(
            f"no way to the Ray cluster {wanted or 'of this machine'}: {said[0] if said else type(error).__name__}; "
            "see that Python, Ray and the token (RAY_AUTH_MODE, RAY_AUTH_TOKEN_PATH) are the same there"
        ) from error
    try:
        yield
    finally:
        ray.shutdown()


def _require_answer(address: str) -> None:
    """One quick attempt: Ray itself would go on trying for minutes before it says that nobody is there."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal():
        raise ClusterError(
            f"address {address!r}: expected HOST:PORT as `ray start --head` prints it, from a machine of the cluster"
        )
    try:
        socket.create_connection((host, int(port)), timeout=CONNECT_SECONDS).close()
    except OSError as error:
        raise ClusterError(
            f"address {address}: nobody answers ({error.strerror or error}); start the head with "
            f"`ray start --head --port {port}`, or leave out the address"
        ) from None
