"""One zoo of each architecture and configuration of the catalogue, rehearsed from its images to its report.

The images are few and random, written in the own format of each data set.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ruamel.yaml import YAML

from tests.conftest import inside, run
from tests.datasets.small import write
from weightzoo.datasets import ImageData
from weightzoo.datasets.sources import SOURCES
from weightzoo.spec import load_params
from weightzoo.zoo import Zoo

ROOT = Path(__file__).parent.parent
TINY = {"members": 4, "images": 20, "epochs": 2}
REHEARSED = {
    "mnist-cnn-s-seed": "mnist",
    "usps-cnn-s-hyp-10-rand": "usps",
    "svhn-cnn-s-hyp-10-fix-released": "svhn",
    "stl10-cnn-m-seed": "stl10",
    "cifar10-cnn-m-hyp-10-rand": "cifar10",
    "stl10-cnn-m-hyp-10-fix": "stl10",
    "cifar100-resnet-18-seed": "cifar100",
}


@pytest.fixture(scope="module")
def catalogue(tmp_path_factory: pytest.TempPathFactory, empty_database: Path) -> Iterator[Path]:
    """The current folder: the catalogue of this repository, with few images of each source in `files/<source>`."""
    folder = tmp_path_factory.mktemp("catalogue")
    content: Any = YAML(typ="safe").load(ROOT / "params.yaml")
    content["rehearsal"] = {"cnn-s": TINY, "cnn-m": TINY, "resnet-18": {"members": 2, "images": 8, "epochs": 1}}
    content["datasets"]["cifar10-40k"].pop("val")  # 10,000, more than there are here
    (folder / "params.yaml").write_text(json.dumps(content))
    (folder / "mlruns").mkdir()
    shutil.copy(empty_database, folder / "mlruns")
    with inside(folder), pytest.MonkeyPatch.context() as patch:
        for source in set(REHEARSED.values()):
            patch.setitem(SOURCES, source, write(source, folder / "files" / source).source)
        yield folder


@pytest.mark.parametrize("name", REHEARSED)
def test_a_zoo_is_rehearsed(catalogue: Path, name: str) -> None:
    code, said = run("rehearse", name, "--from", f"files/{REHEARSED[name]}")
    assert code == 0, said

    spec = load_params().zoo(name)
    small = f"{name}-rehearsal"
    zoo, data = Zoo.open(f"zoos/{small}"), ImageData.load(f"data/{small}")
    scale = load_params().rehearsal[spec.architecture]
    assert len(zoo.models) == scale.members
    assert set(zoo.models["status"]) == {"finished"}
    first = 1 if spec.architecture == "resnet-18" else 0
    assert zoo.checkpoint_epochs == tuple(range(first, scale.epochs + 1))
    assert data.size("train") == scale.images
    assert zoo.architecture.name == spec.architecture
    assert zoo.architecture.input_shape == data.image_shape
    assert zoo.header.spec is not None
    assert zoo.header.spec["rehearsal"] == {"of": name} | scale.model_dump()
    for factor in ("activation", "learning_rate", "weight_decay", "dropout", "optimizer", "init"):
        values = getattr(spec.factors, factor)
        assert set(zoo.models[factor]) <= set(values)
        assert zoo.models[factor].nunique() >= min(len(values), 2)
    weights = zoo.weights()
    assert np.isfinite(weights).all()
    assert not np.array_equal(weights[:, 0], weights[:, -1]) or len(zoo.checkpoint_epochs) == 1
    assert run("verify", small) == (0, "")
    assert name in Path(f"reports/{small}/index.html").read_text()
