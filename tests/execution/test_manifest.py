from __future__ import annotations

import json

import pytest

from weightzoo.errors import FormatError, MissingError
from weightzoo.execution import Manifest, read_manifest, write_manifest


def test_it_comes_back_and_the_bytes_are_the_same(tmp_path):
    for name in ("a", "b"):
        write_manifest(tmp_path / name, "zoo", ["m2", "m1"], "d")
    assert read_manifest(tmp_path / "a") == Manifest("zoo", ("m2", "m1"), "d")
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_of_a_rehearsal_it_says_so_and_of_any_other_zoo_nothing(tmp_path):
    origin = {"of": "zoo", "members": 2, "images": 10, "epochs": 1}
    write_manifest(tmp_path / "a", "zoo-rehearsal", ["m1"], "d", origin)
    write_manifest(tmp_path / "b", "zoo", ["m1"], "d")
    assert read_manifest(tmp_path / "a") == Manifest("zoo-rehearsal", ("m1",), "d", origin)
    assert read_manifest(tmp_path / "b").rehearsal is None
    assert "rehearsal" not in (tmp_path / "b").read_text()


@pytest.mark.parametrize("content", ["", "[]", "{}", "null", '{"format": "weightzoo members 1"}'])
def test_anything_else_is_refused(tmp_path, content):
    (tmp_path / "a").write_text(content)
    with pytest.raises(FormatError):
        read_manifest(tmp_path / "a")
    with pytest.raises(MissingError):
        read_manifest(tmp_path / "absent")


def test_a_shortened_list_is_refused(tmp_path):
    write_manifest(tmp_path / "a", "zoo", ["m2", "m1"])
    content = json.loads((tmp_path / "a").read_text())
    content["members"].pop()
    (tmp_path / "a").write_text(json.dumps(content))
    with pytest.raises(FormatError, match="altered"):
        read_manifest(tmp_path / "a")
    del content["checksum"]
    (tmp_path / "a").write_text(json.dumps(content))
    with pytest.raises(FormatError, match="not a whole manifest"):
        read_manifest(tmp_path / "a")
