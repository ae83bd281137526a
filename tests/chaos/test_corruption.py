"""A sample of `make chaos`: files damaged at random, each kind several times."""

from __future__ import annotations

from tests.chaos.corruption import VICTIMS, own_folder, trials


def test_damaged_files_are_named_and_nothing_wrong_is_shown() -> None:
    with own_folder():
        outcomes = list(trials(6 * len(VICTIMS), seed=1))
    assert not [fault for _, faults in outcomes for fault in faults]
    assert sum("nothing" not in what for what, _ in outcomes) > 5 * len(VICTIMS)
