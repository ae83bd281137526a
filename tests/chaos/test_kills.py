"""A sample of `make chaos`: a build that is killed a few times, as a user would start it."""

from __future__ import annotations

from tests.chaos import kills


def test_a_build_that_is_killed_comes_out_as_if_undisturbed(capsys) -> None:
    assert kills.main(["--kills", "3", "--seed", "4", "--on", "local"]) == 0
    assert "3 kills" in capsys.readouterr().out
