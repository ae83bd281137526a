"""Secrets in messages: hidden wherever they stand, and nothing else is."""

from __future__ import annotations

import pytest

from weightzoo.redaction import redact

TEXTS = [
    ("postgresql+psycopg://zoo:hunter22@db:5432/runs can't be reached", "postgresql+psycopg://zoo:***@db:5432/runs can't be reached"),
    ("API request to https://me:p%40ss:word@host/api failed", "API request to https://me:***@host/api failed"),
    ("http://:token@host", "http://:***@host"),
    ("GET https://s3/zoos/a?X-Amz-Credential=AKIA%2Fx&X-Amz-Signature=0f3a&partNumber=2", "GET https://s3/zoos/a?X-Amz-Credential=***&X-Amz-Signature=***&partNumber=2"),
    ("http://127.0.0.1:5000: no tracking server answers", "http://127.0.0.1:5000: no tracking server answers"),
    ("s3://bucket/zoos/a: mail me@example.org", "s3://bucket/zoos/a: mail me@example.org"),
    ("sqlite:///mlruns/mlflow.db", "sqlite:///mlruns/mlflow.db"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "shown"), TEXTS)
def test_passwords_in_addresses(text: str, shown: str) -> None:
    assert redact(text) == shown


def test_secrets_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wJalrXUtnFEMI/K7MDENG")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "correct horse")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://zoo:pa%2Fss-word@host:5000")
    monkeypatch.setenv("AWS_WEB_IDENTITY_TOKEN_FILE", "/run/token")
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "disabled")
    text = redact("wJalrXUtnFEMI/K7MDENG, correct horse, pa/ss-word and pa%2Fss-word, /run/token, disabled")
    assert text == "***, ***, *** and ***, /run/token, disabled"
