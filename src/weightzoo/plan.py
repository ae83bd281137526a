"""What a build would make, before anything runs: models, states, cohorts, disk and time of one zoo."""

from __future__ import annotations

import dataclasses
from collections import Counter
from dataclasses import dataclass
from typing import Any

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from weightzoo.architectures import Architecture, architecture
from weightzoo.calibration import Speed, calibrate
from weightzoo.checkpoints import METRICS
from weightzoo.console import readable_size, readable_time
from weightzoo.datasets.description import Description, describe
from weightzoo.members import FACTORS, Member, cohorts
from weightzoo.population import population
from weightzoo.rehearsal import sections
from weightzoo.spec import EvolutionConfiguration, FixedSeeds, Params, RandomSeeds, Range, SearchConfiguration, ZooSpec
from weightzoo.training.protocol import PROBE_SIZE

# MLflow's tables and indices in SQLite, measured on zoos of 48 and more models
DATABASE_BYTES_A_RUN, DATABASE_BYTES_A_METRIC = 7_500, 280


@dataclass(frozen=True)
class CohortPlan:
    """Members that will be trained together."""

    activation: str
    optimizer: str
    models: int
    engine: str | None  # None, like the time, if nothing was measured
    seconds: float | None
    measured: bool  # False: the time is told from the speed of the other cohorts


@dataclass(frozen=True)
class Disk:
    """Bytes on disk, without file headers, which are small beside them."""

    checkpoints: int  # of the runs: the weights of all kept epochs
    metrics: int  # of the runs: metrics, per-class accuracies, probe outputs
    database: int  # the tracking store, if it is MLflow's SQLite file
    zoo: int  # the packed zoo, of which DVC keeps a copy in its cache unless the file system shares blocks

    @property
    def runs(self) -> int:
        """Artifacts and tracking store."""
        return self.checkpoints + self.metrics + self.database

    @property
    def total(self) -> int:
        """Runs, zoo and the copy of the zoo."""
        return self.runs + 2 * self.zoo


@dataclass(frozen=True)
class Plan:
    """One zoo before it is built. If a search depends on results, cohorts, splits and time are judged by its start."""

    name: str
    dataset: str
    data: Description
    architecture: str
    parameters: int  # of one model
    kind: str
    depends_on_results: bool
    models: int
    epochs: int
    kept_epochs: int
    splits: dict[str, int]  # train, val, test -> models
    cohorts: tuple[CohortPlan, ...]
    disk: Disk
    factors: dict[str, str]  # the hyperparameter table: factor or seeds -> values
    protocol: dict[str, str]

    @property
    def states(self) -> int:
        """Models times kept epochs: the number of weight vectors."""
        return self.models * self.kept_epochs

    @property
    def seconds(self) -> float | None:
        """Estimated wall time of training, in seconds; None if nothing was measured."""
        times = [cohort.seconds for cohort in self.cohorts if cohort.seconds is not None]
        return sum(times) if times else None

    def to_json(self) -> dict[str, Any]:
        """All of it as plain JSON values."""
        plain = dataclasses.asdict(self)
        plain["disk"] |= {"runs": self.disk.runs, "total": self.disk.total}
        return plain | {"states": self.states, "seconds": self.seconds}

    def render(self) -> RenderableType:
        """All of it as tables for a terminal."""
        title = Text.assemble((self.name, "bold"), f"  {self.kind} of {self.models:,} models", style="")
        tables = (self._facts(), self._hyperparameters(), self._cohorts())
        return Group(title, *(Padding(table, (1, 0, 0, 2)) for table in tables), "")

    def _facts(self) -> Table:
        about, most = ("about ", "at most ") if self.depends_on_results else ("", "")
        split = ", ".join(f"{count:,} {name}" for name, count in self.splits.items())
        images = ", ".join(f"{count:,} {name}" for name, count in self.data.counts.items())
        shape = "x".join(map(str, self.data.image_shape))
        states = f"{self.kept_epochs} of {self.epochs + 1} epochs (0 is before training)"
        runs, zoo = readable_size(self.disk.runs), readable_size(self.disk.zoo)
        return _table(
            [
                ("models", f"{self.models:,}: {about}{split}"),
                ("states", f"{most}{self.states:,}: {states}"),
                ("architecture", f"{self.architecture}, {self.parameters:,} parameters"),
                ("data set", f"{self.dataset}, {self.data.classes} classes, {shape}: {images} images"),
                *self.protocol.items(),
                (
                    "disk",
                    f"{most}{readable_size(self.disk.total)}: runs {runs}, zoo {zoo} and its copy in the DVC cache",
                ),
                ("training", self._time()),
            ]
        )

    def _time(self) -> str:
        if self.seconds is None:
            return "time not measured"
        measured = sum(cohort.measured for cohort in self.cohorts)
        basis = "all cohorts" if measured == len(self.cohorts) else f"{measured} of {len(self.cohorts)} cohorts"
        return f"about {readable_time(self.seconds)} on this machine, by a short calibration of {basis}"

    def _hyperparameters(self) -> Table:
        return _table(list(self.factors.items()), header=("hyperparameter", "values"))

    def _cohorts(self) -> Table:
        rows = [
            (
                f"{cohort.activation} {cohort.optimizer}",
                f"{cohort.models:,}",
                cohort.engine or "",
                "" if cohort.seconds is None else readable_time(cohort.seconds),
            )
            for cohort in self.cohorts
        ]
        return _table(rows, header=("cohort", "about" if self.depends_on_results else "models", "engine", "time"))


def make_plan(name: str, params: Params, *, calibrate: bool = True, threads: int | None = None) -> Plan:
    """The plan of the zoo `name`; the data set need not be prepared.

    With `calibrate`, a few steps of each kind of cohort are trained, which takes some seconds.

    Raises:
        SpecError: there is no such zoo, or its architecture does not take the images of its data set.
        EngineError: the zoo's engine can't train it on this machine.
    """
    spec, dataset = sections(name, params)
    data = describe(spec.dataset, dataset)
    built = architecture(spec.architecture, data.image_shape, data.classes)
    start = population(spec, dataset_hash="").ask()
    searched = spec.configuration if isinstance(spec.configuration, SearchConfiguration) else None
    models = spec.models
    kept = len(spec.training.checkpoint_epochs)
    return Plan(
        name=name,
        dataset=spec.dataset,
        data=data,
        architecture=built.name,
        parameters=built.layout.trained,
        kind=spec.configuration.kind,
        depends_on_results=len(start) < models or (searched is not None and searched.pruner is not None),
        models=models,
        epochs=spec.training.epochs,
        kept_epochs=kept,
        splits=_splits(start, models),
        cohorts=_cohort_plans(spec, built, data, start, models, measure=calibrate, threads=threads),
        disk=disk_of(models, built.layout.size, kept, spec.training.epochs, data.classes),
        factors=_hyperparameter_table(spec),
        protocol=_protocol(spec),
    )


def disk_of(models: int, parameters: int, kept_epochs: int, epochs: int, classes: int) -> Disk:
    """The bytes of the runs and of the packed zoo, if every model is trained to the end."""
    weights = 4 * models * kept_epochs * parameters
    probe = 2 * models * kept_epochs * PROBE_SIZE * classes
    measured = 4 * models * (epochs + 1) * (len(METRICS) + 2 * classes)
    database = models * (DATABASE_BYTES_A_RUN + DATABASE_BYTES_A_METRIC * (epochs + 1) * len(METRICS))
    return Disk(weights, measured + probe, database, zoo=weights + probe + measured)


def _splits(start: tuple[Member, ...], models: int) -> dict[str, int]:
    counted = Counter(member.split for member in start)
    shares = _scaled([counted["train"], counted["val"], counted["test"]], models)
    return dict(zip(("train", "val", "test"), shares, strict=True))


def _scaled(counts: list[int], total: int) -> list[int]:
    """Counts in the same proportion that sum to `total`, by largest remainder."""
    now = sum(counts)
    scaled = [count * total // now for count in counts]
    by_remainder = sorted(range(len(counts)), key=lambda index: -(counts[index] * total % now))
    for index in by_remainder[: total - sum(scaled)]:
        scaled[index] += 1
    return scaled


def _cohort_plans(
    spec: ZooSpec,
    built: Architecture,
    data: Description,
    start: tuple[Member, ...],
    models: int,
    *,
    measure: bool,
    threads: int | None,
) -> tuple[CohortPlan, ...]:
    kinds = cohorts(start)
    counts = _scaled([len(kind) for kind in kinds], models)
    speeds = calibrate(built, kinds, data, engine=spec.engine, device=spec.device, threads=threads) if measure else []
    typical = _typical(speeds) if speeds else None
    plans: list[CohortPlan] = []
    for index, (kind, count) in enumerate(zip(kinds, counts, strict=True)):
        speed = speeds[index] if index < len(speeds) else typical
        seconds = speed.seconds(count, data.counts["train"], spec.training.epochs) if speed else None
        engine = speed.engine if speed else None
        plans.append(CohortPlan(kind.activation, kind.optimizer, count, engine, seconds, index < len(speeds)))
    return tuple(plans)


def _typical(speeds: list[Speed]) -> Speed:
    """The mean of what was measured."""
    count = len(speeds)
    return Speed(
        speeds[0].engine,
        startup=sum(speed.startup for speed in speeds) / count,
        image=sum(speed.image for speed in speeds) / count,
        members=min(speed.members for speed in speeds),
    )


def _hyperparameter_table(spec: ZooSpec) -> dict[str, str]:
    table = {name.replace("_", " "): _values(getattr(spec.factors, name)) for name in FACTORS}
    return table | {"seeds": _seeds(spec)}


def _values(values: Range | tuple[Any, ...]) -> str:
    if isinstance(values, Range):
        return f"{_short(values.low)} to {_short(values.high)}{', logarithmic' if values.log else ''}"
    return ", ".join(map(_short, values))


def _short(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _seeds(spec: ZooSpec) -> str:
    if isinstance(spec.configuration, SearchConfiguration | EvolutionConfiguration):
        return f"one of its own for each model, drawn from seed {spec.seed}"
    own = spec.configuration.seeds
    if isinstance(own, RandomSeeds):
        text = f"{own.random:,} of its own for each point, drawn from seed {spec.seed}"
    elif isinstance(own, FixedSeeds):
        text = f"{own.first}-{own.first + own.count - 1}" if own.count > 1 else str(own.first)
    else:
        text = ", ".join(map(str, own.values))
    return text if len(own.vary) == 3 else f"{text} (varying {' and '.join(own.vary)} only)"


def _protocol(spec: ZooSpec) -> dict[str, str]:
    training, searched = spec.training, spec.configuration
    schedule = training.schedule.model_dump(exclude={"kind"})
    settings = ", ".join(f"{key.replace('_', ' ')} {_short(value)}" for key, value in schedule.items())
    described = {
        "protocol": f"{training.epochs:,} epochs, batch size {training.batch_size}, learning rate "
        f"{training.schedule.kind.replace('_', '-')}{f' ({settings})' if settings else ''}"
    }
    if training.augmentation is not None:
        used = training.augmentation.model_dump(exclude_defaults=True)
        described["augmentation"] = ", ".join(k if v is True else f"{k} {_short(v)}" for k, v in used.items())
    if training.precision != "float32":
        described["precision"] = training.precision
    if isinstance(searched, SearchConfiguration):
        described["search"] = f"{searched.sampler} for {searched.objective.replace('_', ' ')}"
        if searched.sampler == "tpe" or searched.pruner is not None:
            described["search"] += f", {searched.batch} models a batch"
        if searched.pruner is not None:
            described["search"] += f", pruned by {searched.pruner.kind} from epoch {searched.pruner.warmup_epochs}"
    if isinstance(searched, EvolutionConfiguration):
        described["evolution"] = (
            f"{searched.generations} generations of {searched.models} models, for "
            f"{searched.objective.replace('_', ' ')}; the worst {searched.exploit:.0%} go on from the best"
        )
    return described


def _table(rows: list[tuple[str, ...]], header: tuple[str, ...] | None = None) -> Table:
    table = Table(box=None, show_header=header is not None, padding=(0, 2, 0, 0), header_style="bold")
    for index, title in enumerate(header or ("", "")):
        table.add_column(title, justify="right" if title in ("models", "about", "time") else "left", no_wrap=index == 0)
    for row in rows:
        table.add_row(*map(Text, row))
    return table
