"""A sample of `make chaos`: files damaged at random, one of each kind; and that what is wrong would be noticed."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from tests.chaos.corruption import VICTIMS, faults, trials
from tests.chaos.projects import Outcome


def test_damaged_files_are_named_or_mended_and_nothing_wrong_is_shown(empty_database: Path) -> None:
    outcomes = list(trials(len(VICTIMS), seed=1, database=empty_database))
    assert not [fault for _, faults in outcomes for fault in faults]
    assert sum("nothing" not in what for what, _ in outcomes) > 0.8 * len(VICTIMS)


def test_what_a_command_does_wrong_with_a_damaged_file_is_noticed() -> None:
    file, whole = Path("zoos/a/models.parquet"), Outcome(0, "", "accuracy 0.9", {"page": "hash"})

    def wrong(**changes: object) -> list[str]:
        return faults(dataclasses.replace(whole, **changes), whole, file, may_change=False)

    assert wrong() == []
    assert wrong(code=1, said="error: zoos/a/models.parquet: altered\n", printed="") == []
    assert "another result" in wrong(printed="accuracy 0.1")[0]
    assert "another result" in wrong(made={"page": "other"})[0]
    assert "exit code -1" in wrong(code=-1, said="ValueError: models.parquet")[0]
    assert "does not name the file" in wrong(code=1, said="error: something is wrong\n")[0]
    assert "not one line" in wrong(code=1, said="error: models.parquet: altered\nand more\n")[0]
