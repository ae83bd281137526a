from __future__ import annotations

import pytest

from tests.execution.support import image_data, zoo_spec
from weightzoo.execution.shard import split_cohort
from weightzoo.members import cohorts
from weightzoo.population import population


@pytest.mark.parametrize(
    ("members", "most", "parameters", "sizes"),
    [
        (20, 64, 2464, [20]),
        (20, 16, 2464, [16, 4]),
        (200, 64, 2464, [64, 64, 64, 8]),
        (130, 64, 2464, [48, 48, 34]),
        (20, 6, 2464, [5, 5, 5, 5]),
        (20, 64, 11_000_000, [5, 5, 5, 5]),
        (3, 64, 100_000_000, [1, 1, 1]),
    ],
)
def test_shards_are_even_and_fill_vector_lanes(members, most, parameters, sizes):
    spec = zoo_spec("seed")
    seeds = spec.configuration.seeds.model_copy(update={"count": members})
    spec = spec.model_copy(update={"configuration": spec.configuration.model_copy(update={"seeds": seeds})})
    (cohort,) = cohorts(population(spec, image_data().content_hash).ask())
    parts = split_cohort(cohort, parameters, most)
    assert [len(part) for part in parts] == sizes
    assert tuple(member for part in parts for member in part.members) == cohort.members
