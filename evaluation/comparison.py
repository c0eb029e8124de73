"""Runs beside each other: one table, in which only like figures are ranked.

Runs of one data set, split and rule for first frames share a group of columns; others stand beside
it, as the two data sets do in Table 1 of the CGRNN paper, and nothing is ranked across groups.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from cgrnn import units
from cgrnn.settings import MARKS

AHEAD = 8  # frames ahead of the recursive column
SURE = 2.0  # standard errors by which the best must lead
MEASURES = {"accuracy": "accuracy", "rmse": "RMSE"}


class Value(NamedTuple):
    """A figure with its standard error and its side."""

    value: float
    stderr: float = 0.0
    mark: str = ""


class Column(NamedTuple):
    """A figure that every run of a group may have.

    Attributes:
        title: what heads the column, `{measure}` and `{frame}` (what nats are counted by) being the
            group's.
        find: takes an evaluation, gives its figure or None.
        form: how it is written.
        better: +1 where higher is better, -1 where lower is, 0 where neither; None for "as the
            group's measure says".
    """

    title: str
    find: Callable[[Mapping[str, Any]], Value | None]
    form: str
    better: int | None


def _likelihood(average: str) -> Callable[[Mapping[str, Any]], Value]:
    def find(found: Mapping[str, Any]) -> Value:
        scores = found["log_likelihood"]
        error = scores["stderr"]
        if average == "per_sequence":  # files of earlier versions have one error for both
            error = scores.get("per_sequence_stderr", error)
        return Value(scores[average], error, MARKS[scores["kind"]])

    return find


def measure_of(found: Mapping[str, Any]) -> str:
    return "accuracy" if "accuracy" in found else "rmse"


def normalisation(found: Mapping[str, Any]) -> tuple[float, float]:
    """`mean` and `std` by which the model's frames were normalised; 0 and 1 where they were not."""
    return float(found["data"]["mean"]), float(found["data"]["std"])


def _protocol(name: str) -> Callable[[Mapping[str, Any]], Value | None]:
    def find(found: Mapping[str, Any]) -> Value | None:
        measure = measure_of(found)
        if measure not in found:
            return None
        return Value(found[measure][name], found[measure + "_stderr"][name] or 0.0)

    return find


def _recursive(found: Mapping[str, Any]) -> Value | None:
    curve = found.get("recursive")
    if not curve or AHEAD not in curve["steps"]:
        return None
    at = curve["steps"].index(AHEAD)
    return Value(curve[measure_of(found)][at], curve["stderr"][at] or 0.0)


def _parameters(found: Mapping[str, Any]) -> Value | None:
    return Value(found["parameters"]) if "parameters" in found else None


COLUMNS = {
    "likelihood": Column("nats per {frame}", _likelihood("per_frame"), ".2f", 1),
    "per-sequence": Column("nats per {frame}, by sequence", _likelihood("per_sequence"), ".2f", 1),
    "prediction": Column("{measure}, prediction", _protocol("prediction"), "", None),
    "recursive": Column(f"{{measure}}, {AHEAD} frames ahead", _recursive, "", None),
    "reconstruction": Column("{measure}, reconstruction", _protocol("reconstruction"), "", None),
    "parameters": Column("parameters", _parameters, ",.0f", 0),
}


@dataclass(frozen=True)
class Evaluated:
    """A run and what `cgrnn evaluate` found."""

    run: Path
    found: dict[str, Any]

    @property
    def protocol(self) -> tuple[Any, ...]:
        """What two runs must share to be ranked."""
        data, scores = self.found["data"], self.found["log_likelihood"]
        identity = (data["fingerprint"], data["mean"], data["std"])
        return (*identity, self.found["split"], scores["first_frame_scored"])

    @property
    def setting(self) -> str:
        """The same in words."""
        told = "" if self.found["log_likelihood"]["first_frame_scored"] else ", first frame told"
        return f"{Path(self.found['data']['path']).stem}, {self.found['split']}{told}"

    def floors(self) -> list[Evaluated]:
        """What needs no model, as rows beneath the models."""
        exact = {"stderr": 0.0, "per_sequence_stderr": 0.0, "kind": "exact", "warnings": []}
        return [
            Evaluated(
                self.run,
                {
                    **{name: self.found[name] for name in ("data", "split")},
                    "model": floor["name"],
                    "log_likelihood": {**self.found["log_likelihood"], **exact, **floor},
                },
            )
            for floor in self.found["floors"]
        ]


def read(run: str | Path) -> Evaluated:
    """The evaluation of a run directory.

    Raises:
        FileNotFoundError: when the run was not evaluated.
        ValueError: when the file is not an evaluation.
    """
    folder = Path(run)
    file = folder / "evaluation.json"
    if not folder.exists():
        raise FileNotFoundError(f"{folder}: no such run; make one with `cgrnn train -o {folder}`")
    if not file.is_file():
        raise FileNotFoundError(f"{folder}: not evaluated yet; run `cgrnn evaluate {folder}`")
    try:
        found = Evaluated(folder, json.loads(file.read_text()))
        _ = found.protocol, found.found["model"]
        _ = [COLUMNS[name].find(found.found) for name in ("likelihood", "per-sequence")]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{file}: not an evaluation ({error!r}); run `cgrnn evaluate {folder}` again"
        ) from error
    return found


@dataclass(frozen=True)
class Cell:
    """A figure as written, and whether it is the best of its column beyond its error."""

    text: str
    best: bool = False
    value: Value | None = None


@dataclass(frozen=True)
class Table:
    """Runs beside each other.

    Attributes:
        settings: of each group of columns: data set, split, rule for first frames.
        titles: of the columns of each group.
        rows: name of each row, and its cells of all groups in turn.
        notes: what a reader must know before he ranks.
    """

    settings: list[str]
    titles: list[list[str]]
    rows: list[tuple[str, list[Cell]]]
    notes: list[str] = field(default_factory=list)

    def parts(self) -> Iterator[tuple[str, list[str], list[tuple[str, list[Cell]]]]]:
        """Setting, titles and rows of each group of columns, without the rows it has not."""
        start = 0
        for setting, titles in zip(self.settings, self.titles, strict=True):
            its = slice(start, start + len(titles))
            rows = [(name, cells[its]) for name, cells in self.rows]
            kept = [(name, cells) for name, cells in rows if any(cell.value for cell in cells)]
            yield setting, titles, kept
            start += len(titles)


def compare(runs: Sequence[Evaluated], columns: Sequence[str] = tuple(COLUMNS)) -> Table:
    """The table of some runs.

    A figure is best where it leads every other of its column by twice the standard error of the
    difference, and in the digits that are written. A lower bound beneath it does not contest that,
    but its model may: a note says so. A figure that carries a warning is never best.

    Args:
        runs: evaluated runs; each group of columns keeps their order.
        columns: names out of `COLUMNS`.

    Raises:
        ValueError: for an unknown column.
    """
    for name in columns:
        if name not in COLUMNS:
            raise ValueError(f"columns: unknown {name!r}; known: {', '.join(COLUMNS)}")
    groups: dict[tuple[Any, ...], list[Evaluated]] = {}
    for one in runs:
        groups.setdefault(one.protocol, []).append(one)
    for group in groups.values():
        group += group[0].floors()
    names = names_of(groups.values())
    order = [one for group in groups.values() for one in group]
    body: dict[str, list[Cell]] = {names[id(one)]: [] for one in order}
    settings, titles, notes = [], [], []
    for group in groups.values():
        measure = measure_of(group[0].found)
        settings.append(group[0].setting)
        named = {"measure": MEASURES[measure], "frame": units.frame(*normalisation(group[0].found))}
        titles.append([COLUMNS[name].title.format(**named) for name in columns])
        for name in columns:
            cells = _column(COLUMNS[name], group, measure)
            by_name = {names[id(one)]: cell for one, cell in zip(group, cells, strict=True)}
            for row, its in body.items():
                its.append(by_name.get(row, Cell("–")))
        notes += _notes(group, names)
    if len(groups) > 1:
        notes.insert(0, "Figures of different data, splits or protocols are not ranked.")
    return Table(settings, titles, list(body.items()), notes)


def names_of(groups: Iterable[Sequence[Evaluated]]) -> dict[int, str]:
    """A run is named after its model, or after its folder where a group has that model twice."""
    names = {}
    for group in groups:
        often = Counter(one.found["model"] for one in group)
        for one in group:
            model = one.found["model"]
            names[id(one)] = model if often[model] == 1 else str(one.run)
    return names


def _column(column: Column, group: Sequence[Evaluated], measure: str) -> list[Cell]:
    better = column.better if column.better is not None else 1 if measure == "accuracy" else -1
    form = column.form or (".1%" if measure == "accuracy" else ".3f")
    values = [column.find(one.found) for one in group]
    doubtful = [column.better == 1 and bool(_warnings(one.found)) for one in group]
    return [
        Cell("–")
        if value is None
        else Cell(
            written(value, form),
            not doubt and _leads(value, [*values[:at], *values[at + 1 :]], better, form),
            value,
        )
        for at, (value, doubt) in enumerate(zip(values, doubtful, strict=True))
    ]


def _leads(value: Value, others: Sequence[Value | None], better: int, form: str) -> bool:
    rivals = [other for other in others if other is not None]
    return bool(better and rivals) and all(
        better * (value.value - other.value) > SURE * math.hypot(value.stderr, other.stderr)
        and format(value.value, form) != format(other.value, form)
        for other in rivals
    )


def written(value: Value, form: str) -> str:
    """A figure with its mark and, where it has one, its error, both to the same decimals.

    They are those of `form_with`. An error that they round to nothing is "<" their last digit.

    Example:
        >>> written(Value(-5.812, 0.02, "≈"), ".2f")
        '≈ −5.81 ± 0.02'
        >>> written(Value(-10.8312, 0.0003, "≥"), ".2f")
        '≥ −10.83 ± <0.01'
        >>> written(Value(-498.12, 3.27, "≥"), ".2f")
        '≥ −498.1 ± 3.3'
        >>> written(Value(0.217, 0.123), ".1%")
        '22% ± 12%'
    """
    form = form_with(value.stderr, form)
    text = format(value.value, form).replace("-", "−")
    mark = f"{value.mark} " if value.mark else ""
    error = format(value.stderr, form)
    if not error.strip("0.%"):
        error = "<" + re.sub(r"0(?=%?$)", "1", error)
    return mark + text + (f" ± {error}" if value.stderr else "")


def form_with(stderr: float, form: str) -> str:
    """A form with decimals for two digits of a standard error, and no more than it had.

    Args:
        stderr: standard error of the figure; 0 leaves the form as it is.
        form: format specification such as ".2f" or ".1%".

    Example:
        >>> form_with(0.02, ".2f"), form_with(0.3, ".2f"), form_with(12.0, ".2f")
        ('.2f', '.2f', '.0f')
    """
    if not 0 < stderr < math.inf:
        return form
    most, kind = int(form[-2]), form[-1]
    digits = f"{100 * stderr if kind == '%' else stderr:.1e}"  # as 3.3e+00
    return f"{form[:-2]}{max(0, min(most, 1 - int(digits.split('e')[1])))}{kind}"


def _warnings(found: Mapping[str, Any]) -> list[str]:
    return list(found["log_likelihood"]["warnings"])


def _notes(group: Sequence[Evaluated], names: Mapping[int, str]) -> list[str]:
    setting = group[0].setting
    notes = [
        f"{names[id(one)]} ({setting}): {text}" for one in group for text in _warnings(one.found)
    ]
    mean, std = normalisation(group[0].found)
    if units.normalised(mean, std):
        known = (one.found["log_likelihood"].get("nats_to_file_units") for one in group)
        number = next((number for number in known if number is not None), None)
        notes.append(f"{setting}: {units.conversion(std, number)}; RMSE in units of std {std:.4g}.")
    kinds = {names[id(one)]: one.found["log_likelihood"]["kind"] for one in group}
    bounds = [name for name, kind in kinds.items() if kind == "lower bound"]
    if bounds and len(group) > 1:
        notes.append(
            f"{setting}: ≥ are lower bounds ({', '.join(bounds)}); these likelihoods may be higher "
            "than the table says, by more than ±: that is the noise of the bound alone."
        )
    return notes
