"""All of `params.yaml`, read and checked.

Unknown keys and impossible values are refused with the place where they stand and what may stand there instead.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Self

from pydantic import BaseModel, Field, ValidationError, model_validator
from ruamel.yaml import YAML, YAMLError
from ruamel.yaml.error import MarkedYAMLError

from weightzoo.errors import MissingError, SpecError
from weightzoo.mistakes import TAG, Location, explain, nearest, refusal, short
from weightzoo.spec.configurations import (
    EvolutionConfiguration,
    Factors,
    FixedSeeds,
    GridConfiguration,
    ListedSeeds,
    Pruner,
    RandomSeeds,
    Range,
    SearchConfiguration,
    SeedConfiguration,
)
from weightzoo.spec.descendants import FinetuneSpec, Magnitude, Overrides, SparsifySpec, Start, Variational
from weightzoo.spec.training import (
    Augmentation,
    Constant,
    Cosine,
    Every,
    Execution,
    LocalExecution,
    OneCycle,
    RayExecution,
    StepDecay,
    Training,
)
from weightzoo.spec.values import MOST_VALUES, ArchitectureName, DistinctIfAny, Name, Section, Seed
from weightzoo.spec.zoo import DatasetSpec, Scale, ZooSpec


class AnalysisSpec(Section):
    """How zoos are analysed."""

    quick: Annotated[bool, Field(strict=True)] = False
    seed: Seed = 0


class Params(Section):
    """All of `params.yaml`."""

    build: Annotated[tuple[str, ...], DistinctIfAny] = Field(
        description="`build`, the list of zoos that `dvc repro` builds"
    )
    rehearsal: Mapping[ArchitectureName, Scale] = {}
    execution: Execution = LocalExecution()
    datasets: Mapping[Name, DatasetSpec] = Field(description="`datasets`, a section a data set")
    zoos: Mapping[Name, ZooSpec] = Field(description="`zoos`, a section a zoo")
    finetune: Mapping[Name, FinetuneSpec] = Field(default_factory=dict[str, FinetuneSpec])
    sparsify: Mapping[Name, SparsifySpec] = Field(default_factory=dict[str, SparsifySpec])
    analysis: AnalysisSpec = AnalysisSpec()

    @model_validator(mode="after")
    def _names_resolve(self) -> Self:
        for index, name in enumerate(self.build):
            if name not in self.zoos:
                raise refusal(f"no zoo {short(name)} below `zoos`; {nearest(name, self.zoos)}", "build", index)
        for section, zoos in (("zoos", self.zoos), ("finetune", self.finetune)):
            for name, zoo in zoos.items():
                if zoo.dataset not in self.datasets:
                    remedy = nearest(zoo.dataset, self.datasets)
                    raise refusal(
                        f"no data set {short(zoo.dataset)} below `datasets`; {remedy}", section, name, "dataset"
                    )
        taken = dict.fromkeys(self.zoos, "zoos")
        for section, zoos in (("finetune", self.finetune), ("sparsify", self.sparsify)):
            for name in zoos:
                if name in taken:
                    raise refusal(f"there is a zoo of that name below `{taken[name]}`; choose another", section, name)
            taken |= dict.fromkeys(zoos, section)
        return self

    def zoo(self, name: str) -> ZooSpec:
        """The section of one zoo.

        Raises:
            SpecError: there is none of that name; the message names the nearest.
        """
        if name not in self.zoos:
            raise SpecError(f"no zoo {name!r} in params.yaml; {nearest(name, self.zoos)}")
        return self.zoos[name]

    def sparsified(self, name: str) -> tuple[str, SparsifySpec]:
        """The section of one zoo of sparse twins; or by default, if `name` is another zoo's, that of `<name>-sparse`.

        Returns:
            The name of the zoo of twins, and its section.
        """
        if name in self.sparsify:
            return name, self.sparsify[name]
        twins = f"{name}-sparse"
        return twins, self.sparsify.get(twins) or SparsifySpec(start=Start(zoo=name))

    def finetuned(self, name: str) -> FinetuneSpec:
        """The section of one zoo of fine-tuned models.

        Raises:
            SpecError: there is none of that name; the message names the nearest.
        """
        if name not in self.finetune:
            raise SpecError(f"no zoo {name!r} below `finetune` in params.yaml; {nearest(name, self.finetune)}")
        return self.finetune[name]


def load_params(path: Path | str = "params.yaml") -> Params:
    """Read and check `params.yaml`, as YAML 1.2 and with the parser that DVC reads it with.

    Raises:
        MissingError: there is no such file.
        SpecError: it is no YAML, has a key twice, an unknown key or an impossible value.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise MissingError(f"{path}: no such file; run from the project's folder") from None
    except (OSError, UnicodeDecodeError) as error:
        raise SpecError(f"{path}: can't be read as text: {error}") from None
    try:
        content = YAML(typ="safe").load(text)
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f":{mark.line + 1}" if mark else ""
        raise SpecError(
            f"{path}{line}: not valid YAML: {' '.join(str(error.problem or error.context).split())}"
        ) from None
    except (YAMLError, ValueError, RecursionError) as error:  # ValueError: a date that does not exist, and the like
        raise SpecError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from None
    if _values(content, {}) > MOST_VALUES:
        raise SpecError(f"{path}: more than {MOST_VALUES:,} values, written out with its aliases; refused")
    return parse_params(content, source=str(path))


def _values(content: object, counted: dict[int, int]) -> int:
    """How many values there are when every alias is written out; what contains itself is left to the checks behind."""
    if not isinstance(content, dict | list):
        return 1
    if id(content) not in counted:
        counted[id(content)] = 0
        parts = content.values() if isinstance(content, dict) else content
        counted[id(content)] = 1 + sum(_values(part, counted) for part in parts)
    return counted[id(content)]


def parse_params(content: object, source: str = "params") -> Params:
    """Check what was read from `params.yaml`.

    Raises:
        SpecError: a line for every mistake: where it is, what was given, what is expected.
    """
    try:
        return Params.model_validate(content)
    except ValidationError as error:
        raise SpecError("\n".join(f"{source}: {line}" for line in explain(error, content, _section_at))) from None


_SECTIONS: dict[str, type[BaseModel]] = {
    "factors": Factors,
    "training": Training,
    "augmentation": Augmentation,
    "pruner": Pruner,
    "start": Start,
    TAG + "variational": Variational,
    TAG + "magnitude": Magnitude,
    TAG + "range": Range,
    TAG + "fixed seeds": FixedSeeds,
    TAG + "listed seeds": ListedSeeds,
    TAG + "random seeds": RandomSeeds,
    TAG + "every": Every,
    TAG + "seed": SeedConfiguration,
    TAG + "grid": GridConfiguration,
    TAG + "search": SearchConfiguration,
    TAG + "evolution": EvolutionConfiguration,
    TAG + "constant": Constant,
    TAG + "one_cycle": OneCycle,
    TAG + "cosine": Cosine,
    TAG + "step": StepDecay,
    TAG + "local": LocalExecution,
    TAG + "ray": RayExecution,
}


_ZOO_SECTIONS: dict[str, type[BaseModel]] = {
    "datasets": DatasetSpec,
    "rehearsal": Scale,
    "finetune": FinetuneSpec,
    "sparsify": SparsifySpec,
}


def _section_at(location: Location) -> type[BaseModel]:
    """The section that the last part of a location is a key of."""
    section: type[BaseModel] = Params
    for depth, part in enumerate(location[:-1]):
        if depth == 1:  # the user's name of a data set or zoo, or an architecture
            section = _ZOO_SECTIONS.get(str(location[0]), ZooSpec)
        elif location[0] == "finetune" and part == "factors":
            section = Overrides
        elif depth > 1:
            section = _SECTIONS.get(str(part), section)
    return section
