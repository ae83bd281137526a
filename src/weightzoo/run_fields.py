"""What an MLflow run says of its member: a name, params and tags."""

from __future__ import annotations

import json
from typing import Any

from weightzoo.members import TRAINING, Member
from weightzoo.spec import Sparsification
from weightzoo.version import code_version


def run_name(member: Member) -> str:
    """What a person reads in the list of runs.

    The seeds are one number where all three agree, as in `tanh adam uniform lr=0.001 wd=0.001 drop=0.5 seed=1`.
    """
    chosen, seeds = member.hyperparameters, member.seeds
    same = seeds.init == seeds.order == seeds.dropout
    seed = f"{seeds.init}" if same else f"{seeds.init}/{seeds.order}/{seeds.dropout}"
    sparse = f" {member.sparsification.kind}" if member.sparsification else ""
    start = f" from {member.parent.member[:6]}@{member.parent.epoch}" if member.parent else ""
    return (
        f"{chosen.activation} {chosen.optimizer} {chosen.init} lr={chosen.learning_rate:g} "
        f"wd={chosen.weight_decay:g} drop={chosen.dropout:g} seed={seed}{sparse}{start}"
    )


def member_params(member: Member) -> dict[str, str]:
    """The params: every hyperparameter, seed and setting of the protocol."""
    chosen, seeds, protocol = member.hyperparameters, member.seeds, member.protocol
    schedule: dict[str, Any] = protocol.schedule.model_dump()
    more = {} if protocol.precision == "float32" else {"precision": protocol.precision}
    if protocol.augmentation is not None:
        more["augmentation"] = json.dumps(protocol.augmentation.model_dump(exclude_defaults=True), sort_keys=True)
    return more | {
        "init": chosen.init,
        "activation": chosen.activation,
        "optimizer": chosen.optimizer,
        "learning_rate": repr(chosen.learning_rate),
        "weight_decay": repr(chosen.weight_decay),
        "dropout": repr(chosen.dropout),
        "seed_init": str(seeds.init),
        "seed_order": str(seeds.order),
        "seed_dropout": str(seeds.dropout),
        "epochs": str(protocol.epochs),
        "batch_size": str(protocol.batch_size),
        "schedule": schedule["kind"] if len(schedule) == 1 else json.dumps(schedule, sort_keys=True),
        "momentum": repr(protocol.momentum),
        **_settings(member.sparsification),
    }


def member_tags(member: Member, zoo: str, engine: str) -> dict[str, str]:
    """The tags that a run in training has, without our prefix."""
    tags = {
        "zoo": zoo,
        "dataset": member.dataset,
        "dataset_hash": member.dataset_hash,
        "architecture": member.architecture,
        "configuration": member.config_kind,
        "member": member.id,
        "group": member.group,
        "split": member.split,
        "engine": engine,
        "status": TRAINING,
        "version": code_version(),
        "definition": json.dumps(member.definition(), sort_keys=True, separators=(",", ":")),
    }
    if member.sparsification is not None:
        tags["sparsification"] = member.sparsification.kind
    if member.parent is not None:
        tags |= {"parent": member.parent.member, "parent_epoch": str(member.parent.epoch)}
    return tags


def _settings(method: Sparsification | None) -> dict[str, str]:
    """How a member is made sparse, if it is."""
    if method is None:
        return {}
    settings = method.model_dump(mode="json", exclude={"kind"})
    return {name: value if isinstance(value, str) else json.dumps(value) for name, value in settings.items()}
