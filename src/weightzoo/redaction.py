"""What must not be read in a message: passwords, tokens and signatures, wherever they come from."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from urllib.parse import unquote

HIDDEN = "***"
SHORTEST = 6  # a shorter value may be a word that has nothing to do with the secret
_IN_URL = re.compile(r"(://[^\s/:@'\"]*):([^\s'\"]+)@")
_SIGNED = re.compile(r"(?i)([?&](?:X-Amz-(?:Signature|Security-Token|Credential)|Signature|AWSAccessKeyId)=)[^&\s'\"]+")
_NAME = re.compile(r"(?:^|_)(?:PASSWORD|PASSPHRASE|PGPASSWORD|SECRET|TOKEN|(?:API|PRIVATE|ACCESS)_KEY)(?:_|$)")
_NO_SECRET = ("_FILE", "_PATH")  # these say where it lies


def redact(text: str, *uris: str) -> str:
    """The text without the passwords of URLs in it, of these URIs, and of the environment.

    >>> redact("postgresql://zoo:pass-word@host/runs refuses pass-word", "postgresql://zoo:pass-word@host/runs")
    'postgresql://zoo:***@host/runs refuses ***'
    """
    text = _SIGNED.sub(rf"\g<1>{HIDDEN}", _IN_URL.sub(rf"\g<1>:{HIDDEN}@", text))
    for secret in sorted({*_of_environment(), *_of_uris(uris)}, key=len, reverse=True):
        text = text.replace(secret, HIDDEN)
    return text


def _of_environment() -> Iterator[str]:
    for name, value in os.environ.items():
        if "://" in value:
            yield from _of_uris([value])
        if len(value) >= SHORTEST and _NAME.search(name.upper()) and not name.upper().endswith(_NO_SECRET):
            yield value


def _of_uris(uris: Iterable[str]) -> Iterator[str]:
    """Passwords as they stand in a URI, and decoded, as a program may repeat them."""
    for uri in uris:
        for _, password in _IN_URL.findall(uri):
            yield from (one for one in (password, unquote(password)) if len(one) >= SHORTEST)
