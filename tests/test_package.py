"""The public names of `weightzoo`."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

import weightzoo


def test_every_public_name_is_there_and_listed():
    for name in weightzoo.__all__:
        assert getattr(weightzoo, name).__name__ == name
    assert set(weightzoo.__all__) <= set(dir(weightzoo))
    assert weightzoo.__all__ == sorted(weightzoo.__all__)


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="'weightzoo' has no attribute 'Zoos'"):
        weightzoo.Zoos  # noqa: B018


@pytest.mark.parametrize(
    ("code", "absent"),
    [
        ("import weightzoo", {"mlflow", "torch", "pandas", "numpy", "pyarrow"}),
        ("from weightzoo import Zoo, Permute", {"mlflow", "torch", "sklearn"}),
        ("from weightzoo import Registry; Registry()", {"mlflow", "torch", "sklearn"}),
        ("from weightzoo import prepare", {"mlflow", "torch", "sklearn"}),
    ],
)
def test_names_load_only_what_they_need(code, absent):
    code += f"; import sys; print(sorted({absent!r} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


ROOT = Path(__file__).parent.parent
OF_TORCH = ("torch", "triton", "nvidia-", "cuda-")  # which pip takes without a hash


def pins(path: Path) -> dict[str, str]:
    lines = [line.split() for line in path.read_text().splitlines() if "==" in line and not line.startswith("#")]
    found = [words[0].split("==") for words in lines]
    return {re.sub(r"[-_.]+", "-", name).lower(): version for name, version in found}


def test_every_package_has_one_version_and_hashes():
    exact, hashed = pins(ROOT / ".constraints.txt"), pins(ROOT / ".requirements.txt")
    assert {name: version for name, version in exact.items() if not name.startswith(OF_TORCH)} == hashed
    blocks = re.split(r"\n(?=\w)", (ROOT / ".requirements.txt").read_text())
    assert all("--hash=sha256:" in block for block in blocks if not block.startswith("#"))
