"""One way to an S3 server: boto3's client, with its own retries, and its errors as one line each."""

from __future__ import annotations

import os
import threading
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

from weightzoo.s3.location import Location
from weightzoo.s3.settings import Settings, without_password

THREADS = 8  # requests at once: enough to hide the way to the server, few enough for a small one
ATTEMPTS = 5  # of a request, if neither AWS_MAX_ATTEMPTS nor ~/.aws says otherwise


class Connection:
    """A client of the server that some settings name, made when first used; may be used by several threads at once.

    After a fork, and when unpickled, a process makes a client of its own: sockets can't be shared.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._client: Any = None
        self._process = 0
        self._lock = threading.Lock()

    @property
    def client(self) -> Any:
        """boto3's client.

        Raises:
            StorageError: the profile is not known, or the endpoint is no URL.
        """
        if self._process != os.getpid():
            with self._lock:
                if self._process != os.getpid():
                    with self.errors(None):
                        try:
                            self._client = _client(self.settings)
                        except ValueError as error:  # what boto3 raises of an endpoint that is no URL
                            from weightzoo.s3.faults import translated

                            raise translated(error, "S3", self.endpoint) from None
                    self._process = os.getpid()
        return self._client

    @contextmanager
    def errors(self, location: Location | None) -> Generator[None]:
        """Whatever boto3 raises in the block becomes one of our errors, of one line and without secrets.

        Raises:
            StorageError: the server can't be reached, or refuses.
            MissingError: there is no such object or bucket.
        """
        from weightzoo.s3.faults import FOREIGN, translated

        try:
            yield
        except FOREIGN as error:
            where = str(location) if location is not None else self.endpoint or "S3"
            raise translated(error, where, self.endpoint) from error

    @property
    def endpoint(self) -> str | None:
        """The server's URL; None for Amazon's own."""
        found = _endpoint(self.settings) or os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
        return None if found is None else without_password(found)

    def __getstate__(self) -> Settings:
        return self.settings

    def __setstate__(self, settings: Settings) -> None:
        self.__init__(settings)


def _client(settings: Settings) -> Any:
    """Without any credentials requests go unsigned, as a public bucket takes them."""
    import boto3
    from botocore import UNSIGNED
    from botocore.config import Config

    session = boto3.Session(
        aws_access_key_id=settings.key,
        aws_secret_access_key=settings.secret,
        aws_session_token=settings.token,
        profile_name=settings.profile,
        region_name=settings.region,
    )
    config = Config(connect_timeout=10, read_timeout=60, max_pool_connections=2 * THREADS)
    told = session._session.get_config_variable("max_attempts")  # pyright: ignore[reportPrivateUsage]
    if told is None:
        config = config.merge(Config(retries={"mode": "standard", "total_max_attempts": ATTEMPTS}))
    if session.get_credentials() is None:
        config = config.merge(Config(signature_version=UNSIGNED))
    return session.client("s3", endpoint_url=_endpoint(settings), verify=settings.verify, config=config)


def _endpoint(settings: Settings) -> str | None:
    """What is to be told to boto3, which knows its own variables; MLflow's is heeded last."""
    if settings.endpoint is not None:
        return settings.endpoint
    named = any(name in os.environ for name in ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"))
    return None if named else os.environ.get("MLFLOW_S3_ENDPOINT_URL")
