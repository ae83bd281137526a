"""The way to a Ray cluster. Ray is imported when a cluster is used and not before, and may not be installed."""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Generator
from typing import Any

from weightzoo.errors import ClusterError

CONNECT_SECONDS = 15.0  # that a head may take to start


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
    """Connect to the cluster at `host:port`; without address to that of RAY_ADDRESS, or start one on this machine.

    A connection that is there already is used, and left open. Ray itself would look for a cluster of this machine
    first, and wait for minutes for one that was killed.

    Raises:
        ClusterError: Ray is not installed, or no cluster answers.
    """
    ray = load_ray()
    if ray.is_initialized():
        yield
        return
    wanted = address or os.environ.get("RAY_ADDRESS") or "local"
    if wanted != "local":
        _require_answer(wanted)
    try:
        alone = {"include_dashboard": False} if wanted == "local" else {}
        ray.init(address=wanted, log_to_driver=False, logging_level="ERROR", **alone)
    except Exception as error:
        said = str(error).strip().splitlines()
        raise ClusterError(
            f"no way to the Ray cluster {wanted}: {said[0] if said else type(error).__name__}; "
            "see that Python, Ray and the token (RAY_AUTH_MODE, RAY_AUTH_TOKEN_PATH) are the same there"
        ) from error
    try:
        yield
    finally:
        ray.shutdown()


def _require_answer(address: str) -> None:
    """Wait a little: Ray itself would go on trying for minutes before it says that nobody is there."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal():
        raise ClusterError(
            f"address {address!r}: expected HOST:PORT as `ray start --head` prints it, from a machine of the cluster"
        )
    end = time.monotonic() + CONNECT_SECONDS
    while True:
        try:
            socket.create_connection((host, int(port)), timeout=CONNECT_SECONDS).close()
            return
        except OSError as error:
            if time.monotonic() > end:
                raise ClusterError(
                    f"address {address}: nobody answers ({error.strerror or error}); start the head with "
                    f"`ray start --head --port {port}`, or leave out the address"
                ) from None
        time.sleep(0.2)
