"""The configuration of a published trial, `params.json`: what it says of the model, and where the weights disagree."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from weightzoo.architectures import Architecture
from weightzoo.members import ENDED
from weightzoo.published.model import SEEDS
from weightzoo.published.values import integer, number, text

PARAMS = "params.json"
OWN_KEY = "weightzoo"  # what our exports add
ACTIVATIONS = {"leakyrelu": "leaky_relu"}  # published name -> ours, where they differ
SCHEDULES = {"OneCycleLR": "one_cycle", None: "constant"}
_GROUP = re.compile(r"[0-9a-f]{16}")


def hyperparameters(params: Mapping[str, Any]) -> dict[str, str | float | None]:
    """The generating factors, None where the configuration does not say."""
    activation = text(params.get("model::nlin"))
    return {
        "init": text(params.get("model::init_type")),
        "activation": ACTIVATIONS.get(activation, activation) if activation else None,
        "optimizer": text(params.get("optim::optimizer")),
        "learning_rate": number(params.get("optim::lr")),
        "weight_decay": number(params.get("optim::wd")),
        "dropout": number(params.get("model::dropout")),
    }


def protocol(params: Mapping[str, Any]) -> dict[str, Any]:
    """The training protocol, None where the configuration does not say."""
    scheduled = text(params.get("optim::scheduler"))
    return {
        "epochs": integer(params.get("training::epochs_train")),
        "batch_size": integer(params.get("training::batchsize")),
        "schedule": {"kind": SCHEDULES.get(scheduled, scheduled)},
        "momentum": number(params.get("optim::momentum")),
    }


def seeds(params: Mapping[str, Any]) -> dict[str, int | None]:
    """The seeds. The published code sets one before the initialisation; those of order and dropout are not recorded."""
    given = params.get("seed")
    found: dict[str, int | None] = {**dict.fromkeys(SEEDS), "init": integer(given)}
    own = _own(params)
    return found | {name: seed for name in SEEDS if (seed := integer(own.get(f"seed_{name}"))) is not None}


def recorded(params: Mapping[str, Any]) -> dict[str, str]:
    """Group, split and status from an export of ours: all or nothing, since a split belongs to its group."""
    own = _own(params)
    group, split, status = (own.get(name) for name in ("group", "split", "status"))
    fits = isinstance(group, str) and _GROUP.fullmatch(group) and split in ("train", "val", "test") and status in ENDED
    return {"group": str(group), "split": str(split), "status": str(status)} if fits else {}


def dataset(params: Mapping[str, Any]) -> str | None:
    """The name of the image data set, if an export of ours says so."""
    return text(_own(params).get("dataset"))


def contradictions(params: Mapping[str, Any], built: Architecture) -> tuple[str, ...]:
    """Where the configuration says other than the weights do."""
    known = {"model::o_dim": ("classes", built.classes), "model::channels_in": ("channels", built.input_shape[0])}
    return tuple(
        f"{PARAMS} says {key} {stated}, the weights have {actual} {what}; the weights are believed"
        for key, (what, actual) in known.items()
        if (stated := integer(params.get(key))) is not None and stated != actual
    )


def _own(params: Mapping[str, Any]) -> Mapping[str, Any]:
    own = params.get(OWN_KEY)
    return own if isinstance(own, Mapping) else {}
