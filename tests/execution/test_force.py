from __future__ import annotations

from tests.execution.support import DriftEngine, artifact_bytes, store, train, zoo_spec
from weightzoo.execution import planned_deletion


def test_it_says_what_it_deletes_and_deletes_that(folder):
    first = train(folder, zoo_spec())
    before = artifact_bytes(folder)
    planned = planned_deletion(store(folder), "z", first.members)
    assert len(planned.runs) == len(planned.folders) == 12
    assert planned.bytes == sum(len(content) for content in before.values())
    assert "12 runs of z (12 trained to their end) and 12 folders" in str(planned)
    assert artifact_bytes(folder) == before
    planned.carry_out()
    assert not any(planned_folder.exists() for planned_folder in planned.folders)
    assert store(folder).zoo("z").known() == {}
    engine = DriftEngine()
    train(folder, zoo_spec(), engine)
    assert len(engine.trained) == 12 * 6
    assert artifact_bytes(folder) == before


def test_only_the_given_members_are_deleted(folder):
    first = train(folder, zoo_spec())
    planned_deletion(store(folder), "z", first.members[:2]).carry_out()
    engine = DriftEngine()
    summary = train(folder, zoo_spec(), engine)
    assert {member for _, member in engine.trained} == set(first.members[:2])
    assert summary.digest == first.digest


def test_nothing_to_delete(folder):
    planned = planned_deletion(store(folder), "z")
    assert (planned.runs, planned.folders) == ((), ())
