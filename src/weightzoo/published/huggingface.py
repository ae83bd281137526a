"""A packed zoo as a folder that can be uploaded as a data set: its files as they are, and a card that explains them."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from importlib import resources
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from weightzoo.checkpoints import ranges
from weightzoo.errors import SpecError
from weightzoo.members import FACTORS
from weightzoo.published.target import export_folder
from weightzoo.zoo import Zoo
from weightzoo.zoo import format as fmt
from weightzoo.zoo.provenance import write_provenance

LAYOUT = "huggingface"
_LICENSE = re.compile(r"[A-Za-z0-9][A-Za-z0-9.+-]*")
_SIZES = ((1e3, "n<1K"), (1e4, "1K<n<10K"), (1e5, "10K<n<100K"), (1e6, "100K<n<1M"), (1e7, "1M<n<10M"))
_LARGE_FILES = "".join(f"*.{kind} filter=lfs diff=lfs merge=lfs -text\n" for kind in ("safetensors", "parquet"))
_MEANINGS = {
    "member": "id of the model, a hash of what defines it",
    "group": "configuration group: models of equal hyperparameters",
    "split": "train, val or test: a function of the group",
    "status": "how training ended: finished, diverged, pruned, or partial (the record ends early)",
    "last_epoch": "last epoch that was trained",
    "diverged_epoch": "first epoch behind which a weight or the training loss was not finite",
    "init": "initialisation",
    "activation": "activation function",
    "optimizer": "optimiser",
    "learning_rate": "learning rate",
    "weight_decay": "weight decay",
    "dropout": "dropout rate",
    "seed_init": "seed of the initialisation",
    "seed_order": "seed of the order of the images",
    "seed_dropout": "seed of dropout",
    "engine": "what trained it",
    "generalization_gap": "training minus test accuracy, at the last epoch",
    "best_epoch": "epoch of the highest validation accuracy",
    "best_val_accuracy": "validation accuracy then",
    "best_test_accuracy": "test accuracy then",
    "parent": "member id of the model that it was made from",
    "parent_epoch": "epoch of that model",
    "train_objective": "what training minimised at the last epoch: the loss and, of variational dropout, the penalty",
    "sparsity": "share of the prunable weights that is dropped at the last epoch",
    "source": "name of the model where it was imported from",
    "source_config": "all that was said of the model there, as JSON",
    "missing_epochs": "kept epochs whose weights are missing",
}
_SPARSE = {"mask": "0 where a weight is dropped", "log_variance": "log sigma^2 of the noise on each weight"}


def export_huggingface(
    zoo: Zoo, target: Path, license: str, on_progress: Callable[[int, int], None] | None = None
) -> bool:
    """Write the zoo with a data set card to the folder `target`; False if that export is there already, complete.

    `license` is the identifier that the card names, such as `cc-by-4.0`. The names of the machines that trained the
    models are left out.

    Raises:
        SpecError: the licence is no identifier.
        FormatError: `target` is something else, or another process is writing it.
    """
    if not _LICENSE.fullmatch(license):
        raise SpecError(f"licence {license!r}: expected an identifier such as cc-by-4.0, mit or other")
    with export_folder(zoo, target, LAYOUT, {"license": license}) as folder:
        if folder is None:
            return False
        names = [fmt.HEADER, *(file.name for file in zoo.files)]
        for done, name in enumerate(names, start=1):
            with (folder / name).open("wb") as file:
                file.writelines(zoo.place.blocks(name))
            if on_progress is not None:
                on_progress(done, len(names))
        provenance = pq.read_table(zoo.place.table(fmt.PROVENANCE))
        at = provenance.schema.get_field_index("machine")
        nowhere = provenance.set_column(at, provenance.schema.field(at), pa.nulls(len(provenance), pa.string()))
        write_provenance(folder / fmt.PROVENANCE, nowhere)
        (folder / ".gitattributes").write_text(_LARGE_FILES)
        (folder / "README.md").write_text(card(zoo, license), encoding="utf-8")
    return True


def card(zoo: Zoo, license: str) -> str:
    """The data set card: front matter in YAML, then what is in the files and how to open them."""
    template = resources.files("weightzoo.published").joinpath("card.md.jinja").read_text(encoding="utf-8")
    environment = jinja2.Environment(undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    schema = pq.read_schema(zoo.place.table(fmt.MODELS))
    layout, tensors = zoo.layout, zoo.header.sparse.tensors if zoo.header.sparse else ()
    spans = [(name, list(shape), layout.span(name)) for name, shape in layout.parameters]
    return environment.from_string(template).render(
        zoo=zoo,
        license=license,
        size=next((name for limit, name in _SIZES if len(zoo) < limit), "10M<n<100M"),
        epochs=ranges(zoo.checkpoint_epochs),
        statuses=dict(Counter(zoo.models["status"].tolist()).most_common()),
        columns=[(field.name, field.type, _meaning(field.name)) for field in schema],
        factors=[(name, _values(zoo.models[name].dropna().tolist())) for name in FACTORS],
        parameters=[(name, shape, f"{span.start}:{span.stop}") for name, shape, span in spans],
        sparse=[(name, np.dtype(fmt.SPARSE_TENSORS[name]), _SPARSE[name]) for name in tensors],
        shards=sorted(file.name for file in zoo.files if file.name.startswith("weights-")),
        first=layout.parameters[0],
        first_span=layout.span(layout.names[0]),
    )


def _meaning(column: str) -> str:
    return _MEANINGS.get(column) or f"{column.replace('_', ' ')} at the last epoch"


def _values(known: list[Any]) -> str:
    distinct = sorted(set(known))
    shown = (
        ", ".join(map(str, distinct))
        if len(distinct) <= 8
        else f"{len(distinct)} values, {distinct[0]} to {distinct[-1]}"
    )
    return shown or "unknown"
