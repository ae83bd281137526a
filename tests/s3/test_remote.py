"""`weightzoo remote` against a real server: settings are written once the place works, and what goes wrong is one line."""

from __future__ import annotations

import datetime
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import run
from tests.servers import Proxy, SeaweedFS, free_port
from weightzoo.s3 import Connection, Folder, Location, Settings
from weightzoo.s3.settings import runs_root, settings_for
from weightzoo.s3.uploads import unfinished


@pytest.fixture
def place(dvc_project: Path, s3_prefix: str, s3_server: SeaweedFS, monkeypatch: pytest.MonkeyPatch) -> str:
    """A place on S3, for a project that has the keys in the environment, but not the server."""
    for name in ("AWS_ENDPOINT_URL", "MLFLOW_S3_ENDPOINT_URL"):
        monkeypatch.delenv(name)
    return s3_prefix


def objects(server: SeaweedFS, place: str) -> Folder:
    settings = Settings(endpoint=server.url, key=server.key, secret=server.secret, region="us-east-1")
    return Folder(Location.parse(place), Connection(settings))


def test_setup_writes_settings_and_no_secret(place, s3_server, dvc_project):
    code, said = run("remote", "setup", place, "--endpoint-url", s3_server.url)
    assert code == 0, said
    assert f"`dvc push` goes to {place}/dvc" in said
    written = (dvc_project / ".dvc" / "config").read_text()
    assert f"url = {place}/dvc" in written
    assert f"url = {place}/runs" in written
    assert "remote = s3" in written
    assert written.count(f"endpointurl = {s3_server.url}") == 2
    everything = [file.read_text(errors="replace") for file in dvc_project.rglob("*") if file.is_file()]
    assert not any(secret in text for text in (*everything, said) for secret in (s3_server.key, s3_server.secret))
    assert not objects(s3_server, place).list()
    assert runs_root() == f"{place}/runs"
    assert settings_for(Location.parse(f"{place}/zoos/z")).endpoint == s3_server.url
    assert run("remote", "check") == (0, "")

    code, said = run("remote", "setup", f"{place}/other", "--endpoint-url", s3_server.url, "--local", "--region", "r")
    assert code == 0, said
    assert (dvc_project / ".dvc" / "config").read_text() == written
    assert runs_root() == f"{place}/other/runs"
    status = subprocess.run(["git", "status", "--short"], cwd=dvc_project, capture_output=True, text=True, check=True)
    assert status.stdout.split() == ["M", ".dvc/config"]


def test_setup_says_what_it_replaces(place, s3_server, dvc_project):
    subprocess.run(["dvc", "remote", "add", "-q", "--default", "disk", "/tmp/elsewhere"], cwd=dvc_project, check=True)
    code, said = run("remote", "setup", place, "--endpoint-url", s3_server.url)
    assert code == 0, said
    assert "the default remote was disk; `dvc push --remote disk` goes there as before" in said
    code, said = run("remote", "setup", f"{place}/other", "--endpoint-url", s3_server.url)
    assert code == 0, said
    assert f"the remote s3 was {place}/dvc; what lies there stays there" in said
    assert f"the remote runs was {place}/runs; " in said
    assert "default" not in said


def test_keys_of_the_ignored_file_are_used_for_all_of_the_bucket(place, s3_server, dvc_project, monkeypatch, capsys):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    local = dvc_project / ".dvc" / "config.local"
    section = f"[core]\nremote = s3\n['remote \"s3\"']\nurl = {place}/dvc\nendpointurl = {s3_server.url}\n"
    local.write_text(f"{section}access_key_id = {s3_server.key}\nsecret_access_key = {s3_server.secret}\n")
    assert run("remote", "setup", place, "--endpoint-url", s3_server.url)[0] == 0
    assert run("remote", "check") == (0, "")
    assert [line.split()[:2] for line in capsys.readouterr().out.splitlines()] == [["ok", "s3:"], ["ok", "runs:"]]
    assert s3_server.secret not in (dvc_project / ".dvc" / "config").read_text()

    (dvc_project / ".dvc" / "config").write_text(f"{section}secret_access_key = hidden-away\n")
    for verb in (["check"], ["setup", place]):
        code, said = run("remote", *verb)
        assert code == 1
        assert ".dvc/config: git tracks it, and it has s3: secret_access_key; take it out" in said
        assert "hidden-away" not in said


def skewed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The clock of this machine is two hours late."""
    import botocore.auth

    now = botocore.auth.get_current_datetime
    late = datetime.timedelta(hours=2)
    monkeypatch.setattr(botocore.auth, "get_current_datetime", lambda *given, **named: now(*given, **named) - late)


FAILURES: dict[str, tuple[dict[str, str], Callable[[pytest.MonkeyPatch], None] | None, str]] = {
    "wrong key": ({"AWS_ACCESS_KEY_ID": "nobody"}, None, "InvalidAccessKeyId: the access key is not known there"),
    "wrong secret": ({"AWS_SECRET_ACCESS_KEY": "guessed-secret"}, None, "SignatureDoesNotMatch: the secret key is not"),
    "clock": ({}, skewed, "RequestTimeTooSkewed: the clock of this machine is wrong"),
    "no right to write": (
        {"AWS_ACCESS_KEY_ID": "weightzoo-reader", "AWS_SECRET_ACCESS_KEY": "weightzoo-reader-secret"},
        None,
        "AccessDenied: this key has no right to do that",
    ),
}


@pytest.mark.parametrize("what", FAILURES)
def test_a_place_that_can_not_be_used_is_one_line_and_nothing_is_written(
    what, place, s3_server, dvc_project, monkeypatch
):
    settings, act, expected = FAILURES[what]
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    if act is not None:
        act(monkeypatch)
    before = (dvc_project / ".dvc" / "config").read_text()
    code, said = run("remote", "setup", place, "--endpoint-url", s3_server.url)
    assert (code, said.count("\n")) == (1, 1), said
    assert said.startswith(f"error: can't write {place}/.weightzoo-")
    assert expected in said
    assert "guessed-secret" not in said
    assert (dvc_project / ".dvc" / "config").read_text() == before


def test_a_server_that_is_not_there_or_breaks_off_and_a_bucket_that_is_not(place, s3_server, monkeypatch, capsys):
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    missing = f"http://127.0.0.1:{free_port()}"
    with Proxy(s3_server.ports["s3"]) as proxy:
        proxy.breaks_after, proxy.breaks = 0, 1000
        for url, endpoint, expected in (
            (place, missing, f"nobody answers at {missing}; start the server"),
            (place, proxy.url, f"the connection to {proxy.url} broke; do the same again"),
            ("s3://no-such-bucket/lab", s3_server.url, "the bucket no-such-bucket does not exist; correct its name"),
            (place, "https://me:typed-in@host", "--endpoint-url: no URL of a server alone"),
            (place, "127.0.0.1:8333", "--endpoint-url: no URL of a server alone"),
            ("http://host/lab", s3_server.url, "no place on S3; write s3://BUCKET/PREFIX"),
        ):
            code, said = run("remote", "setup", url, "--endpoint-url", endpoint)
            assert (code, said.count("\n")) == (1, 1), said
            assert expected in said
            assert "typed-in" not in said
    assert "no-such-bucket" not in [bucket["Name"] for bucket in s3_server.client().list_buckets()["Buckets"]]
    assert run("remote", "check") == (
        1,
        "error: no remote on S3; name one with `weightzoo remote setup s3://BUCKET/PREFIX`\n",
    )

    assert run("remote", "setup", place, "--endpoint-url", s3_server.url)[0] == 0
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "guessed-secret")
    assert run("remote", "check")[0] == 1
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in lines] == ["error s3", "error runs"]
    assert all("SignatureDoesNotMatch" in line for line in lines)


def test_sweep_aborts_old_uploads_below_the_remotes_alone(place, s3_server, monkeypatch, capsys):
    assert run("remote", "setup", f"{place}/lab", "--endpoint-url", s3_server.url)[0] == 0
    client, bucket = s3_server.client(), Location.parse(place).bucket
    keys = [f"{Location.parse(place).key}/{name}" for name in ("lab/dvc/big", "lab/runs/z/big", "elsewhere")]
    for key in keys:
        begun = client.create_multipart_upload(Bucket=bucket, Key=key)
        client.upload_part(Bucket=bucket, Key=key, UploadId=begun["UploadId"], PartNumber=1, Body=b"1" * 5_000_000)

    def left() -> list[str]:
        return [upload.place.key for upload in unfinished(objects(s3_server, place))]

    assert sorted(left()) == sorted(keys)
    assert run("remote", "sweep") == (0, "sweep     0 unfinished uploads, 0 B, aborted\n")  # none is a day old
    assert run("remote", "check")[0] == 0
    assert "note  s3: 1 unfinished uploads, 5 MB, since 20" in capsys.readouterr().out
    assert run("remote", "sweep", "--older-than", "0", "--dry-run")[0] == 0
    assert sorted(left()) == sorted(keys)
    capsys.readouterr()
    assert run("remote", "sweep", "--older-than", "0") == (0, "sweep     2 unfinished uploads, 10 MB, aborted\n")
    assert [line.rpartition("/")[2] for line in capsys.readouterr().out.splitlines()] == ["big", "big"]
    assert left() == keys[2:]
    assert run("remote", "sweep", place, "--older-than", "0")[0] == 0
    assert left() == []
