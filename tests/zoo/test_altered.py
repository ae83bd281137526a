"""No bit of a packed zoo changes unnoticed: where a table or the header is read, and in all files by `verify`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.zoo import synthetic_zoo
from weightzoo.errors import FormatError
from weightzoo.verify import verify_zoo
from weightzoo.zoo import Zoo, write_zoo


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    head = synthetic_zoo.header(2)
    return write_zoo(tmp_path_factory.mktemp("altered") / "zoo", head, synthetic_zoo.records(head))


def flipped(file: Path, *, most: int) -> Iterator[int]:
    """The file with one bit changed, at up to `most` places in turn; whole again in the end."""
    content, random = file.read_bytes(), np.random.default_rng(0)
    places = np.arange(len(content)) if len(content) <= most else random.choice(len(content), most, replace=False)
    try:
        for place in places.tolist():
            altered = bytearray(content)
            altered[place] ^= 1 << int(random.integers(8))
            file.write_bytes(altered)
            yield place
    finally:
        file.write_bytes(content)


def test_in_the_header(path: Path) -> None:
    for place in flipped(path / "zoo.json", most=400):
        if chr((path / "zoo.json").read_bytes()[place]).isspace():  # between two values is nobody's loss
            continue
        with pytest.raises(FormatError, match=r"zoo\.json") as caught:
            Zoo.open(path)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["models", "epochs"])
def test_in_a_table(path: Path, name: str) -> None:
    for _ in flipped(path / f"{name}.parquet", most=60):
        with pytest.raises(FormatError, match=rf"{name}\.parquet: altered"):
            getattr(Zoo.open(path), name)


def test_in_the_provenance(path: Path) -> None:
    """A bit of the file that says nothing about the rows may change, none that does."""
    rows, noticed = Zoo.open(path).provenance, 0
    for _ in flipped(path / "provenance.parquet", most=300):
        try:
            found = Zoo.open(path).provenance
        except FormatError:
            noticed += 1
        else:
            assert found.equals(rows)
    assert noticed > 100


def test_verify_finds_it_in_every_file(path: Path) -> None:
    assert not [finding for finding in verify_zoo(path) if finding.severity == "error"]
    for file in sorted(path.glob("*.safetensors")):
        for _ in flipped(file, most=20):
            errors = [finding for finding in verify_zoo(path) if finding.severity == "error"]
            assert [finding.check for finding in errors] == ["files"]
            assert file.name in errors[0].message
    assert not [finding for finding in verify_zoo(path) if finding.severity == "error"]
