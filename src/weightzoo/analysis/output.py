"""The files of an analysis, in the folder of a zoo's report: scores, tables, and what is said of them.

- `analysis.json`: a list of records, one a score.
- `analysis/<method>-<table>.csv`: the tables.
- `methods.json`: of which zoo they are and how they were made; of each method its words, figures and tables; and
  checksums of all of this and of the files above, so that a changed digit is an error and never shown.
- `scores.json`: the scores by method, target and metric, for `dvc metrics show`.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from weightzoo.analysis.methods import METHODS
from weightzoo.analysis.results import Analysed, Context, Figure, LeftOut, Result, Score
from weightzoo.errors import FormatError
from weightzoo.zoo import format as fmt
from weightzoo.zoo.place import MOST_HEADER
from weightzoo.zoo.replace import replaced_folder

if TYPE_CHECKING:
    from weightzoo.zoo import Zoo

RECORDS, TABLES, WORDS, BY_METHOD = "analysis.json", "analysis", "methods.json", "scores.json"
OUTPUTS = (RECORDS, TABLES, WORDS, BY_METHOD)
UNFINISHED = f".{TABLES}.partial-"  # how names begin of what a killed process may have left
_FORMAT = "weightzoo analysis 2"


@dataclass(frozen=True)
class Stored:
    """What the files of an analysis tell, its numbers to six digits."""

    made: Mapping[str, Any]  # of which zoo, by name and hash, with which seed, and whether quick
    analysed: Analysed

    def is_of(self, zoo: Zoo) -> bool:
        """Whether the zoo is the very one that was analysed, and no other build."""
        return self.made["hash"] == _hash(zoo)


def write_analysis(folder: Path | str, zoo: Zoo, context: Context, analysed: Analysed) -> None:
    """Write the files of an analysis into `folder`, beside a report.

    What other methods found before in the same zoo, with the same seed and `quick`, stays. The same findings give the
    same bytes.
    """
    folder = Path(os.path.abspath(folder))  # noqa: PTH100  (a link stays a link)
    folder.mkdir(parents=True, exist_ok=True)
    made = {"zoo": zoo.name, "hash": _hash(zoo), "seed": context.seed, "quick": context.quick}
    all_of_it = _with_former(folder, made, analysed)
    (folder / WORDS).unlink(missing_ok=True)  # it is what makes the others an analysis, so it goes first, comes last
    with replaced_folder(folder / TABLES) as partial:
        for result in all_of_it.results:
            for name, table in result.tables.items():
                path = partial / f"{result.method}-{name}.csv"
                table.to_csv(path, index=False, float_format="%.6g", lineterminator="\n")
    _write_json(folder / RECORDS, records(all_of_it))
    _write_json(folder / BY_METHOD, _by_method(all_of_it))
    methods = [
        {
            "method": result.method,
            "title": result.title,
            "summary": result.summary,
            "references": list(result.references),
            "tables": list(result.tables),
            "figures": [dataclasses.asdict(figure) for figure in result.figures],
        }
        for result in all_of_it.results
    ]
    left_out = [dataclasses.asdict(one) for one in all_of_it.left_out]
    words = {"format": _FORMAT, "made": made, "methods": methods, "left_out": left_out, "files": _digests(folder)}
    _write_json(folder / WORDS, words | {"checksum": _checksum(words)})


def read_analysis(folder: Path | str) -> Stored | None:
    """What `write_analysis` wrote into `folder`; None if there is no analysis, or one was interrupted.

    Raises:
        FormatError: a file of it is missing, truncated, altered or of another format.
    """
    folder = Path(folder)
    if not (folder / WORDS).is_file():
        return None
    try:
        words = json.loads((folder / WORDS).read_text(encoding="utf-8"))
        if words["format"] != _FORMAT:
            raise FormatError(f"{folder / WORDS}: format {words['format']!r}, expected {_FORMAT!r}; analyse again")
        _require_unaltered(folder, words)
        scores: dict[str, list[Score]] = {}
        for record in json.loads((folder / RECORDS).read_text(encoding="utf-8")):
            scores.setdefault(record.pop("method"), []).append(_score(record))
        results = tuple(
            Result(
                method=told["method"],
                title=told["title"],
                summary=told["summary"],
                scores=tuple(scores.get(told["method"], ())),
                tables={name: _table(folder / TABLES / f"{told['method']}-{name}.csv") for name in told["tables"]},
                figures=tuple(Figure(**figure) for figure in told["figures"]),
                references=tuple(told["references"]),
            )
            for told in words["methods"]
        )
        left_out = tuple(LeftOut(**one) for one in words["left_out"])
        made = {key: words["made"][key] for key in ("zoo", "hash", "seed", "quick")}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        if isinstance(error, FormatError):
            raise
        raise FormatError(
            f"{folder / WORDS}: the analysis is incomplete or corrupt ({str(error).splitlines()[0]}); "
            "analyse the zoo again"
        ) from None
    return Stored(made, Analysed(results, left_out))


def _require_unaltered(folder: Path, words: dict[str, Any]) -> None:
    if words.pop("checksum") != _checksum(words):
        raise FormatError(f"{folder / WORDS}: altered since it was written; analyse the zoo again")
    found = _digests(folder)
    for name, digest in words["files"].items():
        if found.get(name) != digest:
            raise FormatError(f"{folder / name}: missing or altered since it was written; analyse the zoo again")


def _digests(folder: Path) -> dict[str, str]:
    """Checksums of the scores and the tables, by path below the folder."""
    digests: dict[str, str] = {}
    for path in [folder / RECORDS, *sorted((folder / TABLES).glob("*.csv"))]:
        if path.is_file():
            with path.open("rb") as file:
                digest = hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16))
            digests[path.relative_to(folder).as_posix()] = digest.hexdigest()
    return digests


def _checksum(words: Mapping[str, Any]) -> str:
    return hashlib.blake2b(json.dumps(words, sort_keys=True).encode(), digest_size=16).hexdigest()


def records(analysed: Analysed) -> list[dict[str, Any]]:
    """The scores as plain records, with the method of each; null for what is not finite or not given."""
    return [
        {"method": result.method, **{name: _plain(value) for name, value in dataclasses.asdict(score).items()}}
        for result in analysed.results
        for score in result.scores
    ]


def _with_former(folder: Path, made: Mapping[str, Any], analysed: Analysed) -> Analysed:
    try:
        former = read_analysis(folder)
    except FormatError:
        former = None
    ran = {result.method for result in analysed.results} | {one.method for one in analysed.left_out}
    kept = former.analysed if former is not None and former.made == made else Analysed((), ())
    order = {method.name: place for place, method in enumerate(METHODS)}
    results = [*analysed.results, *(one for one in kept.results if one.method not in ran and one.method in order)]
    left_out = [*analysed.left_out, *(one for one in kept.left_out if one.method not in ran and one.method in order)]
    return Analysed(
        tuple(sorted(results, key=lambda one: order.get(one.method, len(order)))),
        tuple(sorted(left_out, key=lambda one: order.get(one.method, len(order)))),
    )


def _by_method(analysed: Analysed) -> dict[str, dict[str, dict[str, float]]]:
    nested: dict[str, dict[str, dict[str, float]]] = {}
    for record in records(analysed):
        if record["value"] is not None:
            how = ", ".join(filter(None, (record["features"], record["estimator"])))
            metric = f"{record['metric']} ({how})" if how else record["metric"]
            nested.setdefault(record["method"], {}).setdefault(record["target"], {})[metric] = record["value"]
    return nested


def _hash(zoo: Zoo) -> str:
    """`zoo.json` holds the hashes of all files that building again must not change; a view is of certain rows."""
    digest = hashlib.blake2b(zoo.place.read(fmt.HEADER, MOST_HEADER), digest_size=8)
    if len(zoo) < len(zoo.whole):
        digest.update(zoo.rows.tobytes())
    return digest.hexdigest()


def _plain(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.6g}") if math.isfinite(value) else None
    return value


def _score(record: Mapping[str, Any]) -> Score:
    known: dict[str, Any] = {**record, "value": math.nan if record["value"] is None else record["value"]}
    return Score(**known)


def _table(path: Path) -> pd.DataFrame:
    return pd.read_csv(path, keep_default_na=False, na_values=[""])


def _write_json(path: Path, content: Any) -> None:
    partial = path.with_name(f"{UNFINISHED}{path.name}")
    partial.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    partial.replace(path)
