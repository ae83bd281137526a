"""The servers that other tests stand on: what is stored outlives a kill, and strangers are refused."""

from __future__ import annotations

from pathlib import Path

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
