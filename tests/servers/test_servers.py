"""The servers that other tests stand on: what is stored outlives a kill, and strangers are refused."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import boto3
import pytest
from botocore.exceptions import ClientError

from tests.servers import PostgreSQL, SeaweedFS, require


def test_objects_outlive_a_kill_and_a_wrong_key_is_refused(tmp_path: Path) -> None:
    require(SeaweedFS)
    with SeaweedFS(tmp_path / "s3") as server:
        server.client().put_object(Bucket=server.bucket("zoos"), Key="a/b", Body=b"weights")
        with pytest.raises(ClientError, match="SignatureDoesNotMatch"):
            server.client(aws_secret_access_key="wrong").get_object(Bucket="zoos", Key="a/b")
        server.kill()
        server.start()
        assert server.client().get_object(Bucket="zoos", Key="a/b")["Body"].read() == b"weights"


def test_rows_outlive_a_kill_and_a_wrong_password_is_refused() -> None:
    require(PostgreSQL)
    import psycopg

    with PostgreSQL() as server:
        server.run("CREATE TABLE zoos (name text)")
        server.run("INSERT INTO zoos VALUES ('digits')")
        uri = server.uri.replace("+psycopg", "")
        with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
            psycopg.connect(uri.replace(server.password, "wrong"))
        server.kill()
        server.start()
        with psycopg.connect(uri) as connection:
            assert connection.execute("SELECT name FROM zoos").fetchall() == [("digits",)]


def test_make_s3_serves_a_bucket_to_whoever_has_the_keys_that_it_drew(tmp_path: Path) -> None:
    require(SeaweedFS)
    command = [sys.executable, "-m", "tests.servers.stack", "s3"]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent.parent)}
    serving = subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, text=True)
    assert serving.stdout is not None
    try:
        said = next(line for line in serving.stdout if "bucket zoos" in line)
        file = tmp_path / ".server" / "env"
        assert file.stat().st_mode & 0o077 == 0
        variables = dict(re.findall(r"export (\w+)=(.*)", file.read_text()))
        assert variables["AWS_ENDPOINT_URL"] in said
        assert variables["AWS_SECRET_ACCESS_KEY"] not in said
        client = boto3.client(
            "s3",
            endpoint_url=variables["AWS_ENDPOINT_URL"],
            region_name="us-east-1",
            aws_access_key_id=variables["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=variables["AWS_SECRET_ACCESS_KEY"],
        )
        client.put_object(Bucket="zoos", Key="a", Body=b"weights")
        again = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
        assert (again.returncode, "is it running already?" in again.stderr) == (1, True)
    finally:
        serving.send_signal(signal.SIGINT)
        left, _ = serving.communicate(timeout=60)
    assert (serving.returncode, left.endswith("stopped\n")) == (0, True)
