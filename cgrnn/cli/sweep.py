"""`cgrnn sweep`: a run for each point of a grid of options of `cgrnn train`."""

from __future__ import annotations

import argparse
import contextlib
import csv
import dataclasses
import functools
import itertools
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jsonargparse import Namespace

from cgrnn import units
from cgrnn.cli import say, train
from cgrnn.cli.parsing import Parser
from cgrnn.cli.runs import make_folder, normalisation, open_data

if TYPE_CHECKING:
    import optuna

DESCRIPTION = (
    "Train a run for each point of a grid of options, one after the other, and compare their "
    "validation likelihoods: DIR/sweep.csv, sweep.md, sweep.png and sweep.pdf. The other options "
    "are those of `cgrnn train`; --max-minutes is for each run. Called again with the same words "
    "it goes on where it stopped, and tries again what failed; values may be added to the grid. "
    "An example, the grid of the SRNN's replication: cgrnn sweep --config srnn-pianorolls --data "
    "jsbs.h5 --grid latent_dim=20,100,180 --grid recurrent_dim=200,300,400 -o grid"
)
# What may differ from call to call: the points would come out the same.
MAY_CHANGE = ("config", "workers", "accelerator", "output", "resume", "json")
MEASURED = (
    *(
        "valid",
        "frame",
        "kind",
        "spread",
        "best_epoch",
        "epochs",
        "seconds",
        "parameters",
        "fingerprint",
    ),
)
FILES = ("sweep.csv", "sweep.md", "sweep.png", "sweep.pdf")


@dataclasses.dataclass(frozen=True)
class Point:
    """A point of the grid.

    Attributes:
        varied: the options of the grid and their values here.
        options: all that `cgrnn train` is given.
        fingerprint: of its data, which may be moved.
    """

    varied: dict[str, Any]
    options: Namespace
    fingerprint: str

    @property
    def name(self) -> str:
        """Of its run directory."""
        from evaluation.sweep import title

        return title(self.varied).replace("/", "_")

    @property
    def decisive(self) -> dict[str, Any]:
        """The options that make the run what it is."""
        kept = {n: v for n, v in vars(self.options).items() if n not in MAY_CHANGE}
        plain = {n: list(v) if isinstance(v, tuple) else v for n, v in kept.items()}
        return plain | {"data": self.fingerprint}


class Grid:
    """Reads a command line as that of `cgrnn train`, and its words for `--grid` into points."""

    def __init__(self, argv: Sequence[str]) -> None:
        own = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
        own.add_argument("--grid", action="append", nargs="?", default=[])
        found, self.rest = own.parse_known_args(argv)
        if "--resume" in self.rest:
            raise ValueError("--resume: leave it out, a sweep that was begun always goes on")
        self.grid = _split(found.grid)
        self.parser = self._train({name: values[0] for name, values in self.grid.items()})
        self.parser.prog, self.parser.description = "cgrnn sweep", DESCRIPTION
        self.parser.add_argument(
            "--grid",
            metavar="NAME=VALUE,VALUE…",
            help="one of these options and its values, as layers=1,2; once for each to vary",
        )
        for flag, text in (("--resume", argparse.SUPPRESS), ("--output", "folder of the runs")):
            self.parser._option_string_actions[flag].help = text

    def _words(self, chosen: Mapping[str, str]) -> list[str]:
        return self.rest + [f"--{name.replace('_', '-')}={word}" for name, word in chosen.items()]

    def _train(self, chosen: Mapping[str, str]) -> Parser:
        """The parser of `cgrnn train` for a point."""
        parser = train.parser(self._words(chosen))
        for name in chosen:
            if name not in {*parser.added, "config"} - {"output"}:
                raise ValueError(f"--grid: {name} is no option to vary; see `{parser.prog} --help`")
        return parser

    def read(self, argv: Sequence[str]) -> Namespace:
        """The options of the call, and `points`, which no two are the same of."""
        words = [
            dict(zip(self.grid, c, strict=True)) for c in itertools.product(*self.grid.values())
        ]
        first = self.parser.read(self._words(words[0]))
        if not self.grid:
            raise ValueError("--grid is missing: what to vary, as `--grid recurrent_dim=100,200`")
        points: dict[str, Point] = {}
        for chosen in words:
            options = self._train(chosen).read(self._words(chosen))
            varied = {name: options[name] for name in chosen}
            point = Point(varied, options, _checked(options))
            if point.name in points:
                raise ValueError(f"--grid: {point.name} is there twice; rename a file, or drop one")
            points[point.name] = point
        return Namespace(output=first.output, json=first.json, points=list(points.values()))


def _split(words: Sequence[str | None]) -> dict[str, list[str]]:
    """Names and values; the commas within brackets are part of a value.

    Example:
        >>> _split(["layers=1,2", "mlp-dims=[],[400,400]"])
        {'layers': ['1', '2'], 'mlp_dims': ['[]', '[400,400]']}
    """
    grid: dict[str, list[str]] = {}
    for text in words:
        name, _, listed = (text or "").partition("=")
        name, values = name.replace("-", "_"), re.split(r",(?![^\[]*\])", listed)
        if not name or not all(values):
            raise ValueError(f"--grid: expected NAME=VALUE,VALUE…, as layers=1,2; got {text or ''}")
        if name in grid:
            raise ValueError(f"--grid: {name} is there twice; give all its values at once")
        grid[name] = values
    return grid


def _checked(options: Namespace) -> str:
    """The fingerprint of the data; refuses what no point could be begun with."""
    for name, remedy in (("data", "make one with `cgrnn prepare`"), ("output", "a folder to make")):
        if not options[name]:
            raise ValueError(f"--{name} is missing: {remedy}; see `cgrnn sweep --help`")
    return _fingerprint(options.data)


@functools.cache
def _fingerprint(data: str) -> str:
    return str(open_data(data, "valid").attributes["fingerprint"])


def parser(argv: Sequence[str]) -> Grid:
    return Grid(argv)


def run(options: Any) -> dict[str, Any]:
    """Train the points that are not done; return what `sweep --json` prints."""
    try:
        import optuna
    except ImportError as error:
        raise ValueError(
            "a sweep needs optuna, which is missing; pip install cgrnn[sweep]"
        ) from error
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    points: list[Point] = options.points
    with _alone(make_folder(options.output)) as folder:
        study = _study(folder / "sweep.db")
        done = _done(study, folder, points)
        say(_plan(points, len(done)))
        for number, point in enumerate(points, start=1):
            if point.name not in done:
                say(f"\n[{number}/{len(points)}] {point.name}")
                done[point.name] = _point(study, folder, point)
                _tables(folder, list(done.values()), list(point.varied))
        return _result(folder, [done[point.name] for point in points], list(points[0].varied))


def _result(folder: Path, runs: list[dict[str, Any]], names: Sequence[str]) -> dict[str, Any]:
    from evaluation import sweep

    _tables(folder, runs, names)
    best = sweep.best(runs)
    if all(run["state"] == "failed" for run in runs):
        raise ValueError(f"all {len(runs)} runs failed; {runs[0]['run']}: {runs[0]['reason']}")
    _figures(folder, runs, names)
    return {
        "runs": [{**run, "run": str(folder / run["run"])} for run in sweep.ranked(runs)],
        "best": str(folder / best["run"]) if best else None,
        "files": [str(folder / name) for name in FILES],
    }


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[Path]:
    """Keep a second sweep out of a folder: it would go on with the run that the first is at."""
    import fcntl
    import os

    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield folder
    except BlockingIOError as error:
        raise ValueError(
            f"{folder}: another sweep is at work here; wait, or choose another"
        ) from error
    finally:
        os.close(handle)


def _study(file: Path) -> optuna.Study:
    """The record of the points, which optuna's own tools read too.

    Its samplers have no part in it: the one for grids takes an interrupted point for done, a grid
    with a value more for a new one, and an order of its own.
    """
    import optuna

    try:
        return optuna.create_study(
            storage=f"sqlite:///{file}",
            study_name="sweep",
            direction="maximize",
            load_if_exists=True,
        )
    except Exception as error:  # of several libraries' kinds
        raise ValueError(f"{file}: not the record of a sweep; choose another -o") from error


def _done(study: optuna.Study, folder: Path, points: Sequence[Point]) -> dict[str, dict[str, Any]]:
    """Results of the points that are complete; refuses what is not the sweep that was begun."""
    from optuna.trial import TrialState

    from evaluation.sweep import word

    now, done = {point.name: point for point in points}, {}
    trials = [trial for trial in study.trials if "run" in trial.user_attrs]
    for trial in trials:
        name, before = trial.user_attrs["run"], trial.user_attrs["options"]
        if name not in now:
            raise ValueError(
                f"--grid: {folder} was begun with {name} in its grid; give its values again (more "
                "may be added), or choose another -o"
            )
        differ = [n for n, v in now[name].decisive.items() if before.get(n, v) != v]
        if differ:
            given = [f"--{n.replace('_', '-')} {word(before[n])}" for n in differ if n != "data"]
            given += ["other data"] * ("data" in differ)
            raise ValueError(
                f"{folder}: was begun with {' '.join(given)}; give that, or choose another -o"
            )
        if trial.state == TrialState.COMPLETE:
            done[name] = trial.user_attrs["result"]
    for trial in study.get_trials(states=(TrialState.RUNNING,)):  # of a sweep that was interrupted
        study.tell(trial.number, state=TrialState.FAIL)
    return done


def _plan(points: Sequence[Point], done: int) -> str:
    minutes = [point.options.max_minutes for point in points]
    text = f"{len(points)} runs" + (f", {done} of them done" if done else "")
    return text + (f"; {sum(minutes):g} minutes at the most in all" if all(minutes) else "")


def _point(study: optuna.Study, folder: Path, point: Point) -> dict[str, Any]:
    """Train a point, from its last checkpoint where it has one; return its row of the result."""
    from optuna.trial import TrialState

    trial = study.ask(_distributions(point.varied))
    trial.set_user_attr("run", point.name)
    trial.set_user_attr("options", point.decisive)
    path, state, reason = folder / point.name, TrialState.COMPLETE, None
    found: dict[str, Any] = dict.fromkeys(MEASURED)
    options = Namespace(**(vars(point.options) | {"output": str(path), "resume": True}))
    try:
        train.run(options)
        found = _measured(path)
    except KeyboardInterrupt as end:
        raise KeyboardInterrupt("call the same again to go on") from end
    except (ValueError, OSError, ArithmeticError, RuntimeError, MemoryError) as error:
        # RuntimeError: of torch, as when the device's memory is not enough for this point.
        state, reason = TrialState.FAIL, " ".join(str(error).split()) or type(error).__name__
        say(f"failed: {reason}")
    varied = {n: list(v) if isinstance(v, tuple) else v for n, v in point.varied.items()}
    row = {"options": varied, "run": point.name, **found}
    row |= {"state": "failed" if reason else "complete", "reason": reason}
    trial.set_user_attr("result", row)
    study.tell(trial, found["valid"], state)
    return row


def _distributions(varied: Mapping[str, Any]) -> dict[str, Any]:
    """For optuna: the numbers of a point, each the one value that it may have."""
    from optuna.distributions import FloatDistribution, IntDistribution

    kinds = {int: IntDistribution, float: FloatDistribution}
    return {n: kinds[type(v)](v, v) for n, v in varied.items() if type(v) in kinds}


def _measured(run: Path) -> dict[str, Any]:
    """What a run that has ended says of itself."""
    from cgrnn.checkpoint import open_run

    with (run / "metrics.csv").open(newline="") as lines:
        rows = list(csv.DictReader(lines))
    scored = [row for row in rows if row["valid_log_likelihood"]]
    best = max(scored, key=lambda row: float(row["valid_log_likelihood"]))
    trained = open_run(run)
    spread = best["valid_log_weight_std"]
    return {
        "valid": float(best["valid_log_likelihood"]),
        "frame": units.frame(*normalisation(trained.data)),
        "kind": "estimate" if spread else trained.model.likelihood_kind,
        "spread": float(spread) if spread else None,
        "best_epoch": int(best["epoch"]),
        "epochs": int(rows[-1]["epoch"]),
        "seconds": float(rows[-1]["seconds"]),
        "parameters": sum(parameter.numel() for parameter in trained.model.parameters()),
        "fingerprint": trained.data["fingerprint"],
    }


def _tables(folder: Path, runs: Sequence[Mapping[str, Any]], names: Sequence[str]) -> None:
    from data_prep import store
    from evaluation import sweep

    for name, write in (("sweep.csv", sweep.comma_separated), ("sweep.md", sweep.markdown)):
        with store.replacing(folder / name) as file:
            file.write_text(write(runs, names), newline="")


def _figures(folder: Path, runs: Sequence[Mapping[str, Any]], names: Sequence[str]) -> None:
    from data_prep import store
    from evaluation import sweep
    from evaluation.figures import style

    figure = sweep.figure(runs, names)
    for kind in ("png", "pdf"):
        with store.replacing(folder / f"sweep.{kind}") as file:
            style.save(figure, file, kind)


def render(result: dict[str, Any]) -> str:
    """The table, best first, what failed, and where things are."""
    from evaluation import sweep

    runs = result["runs"]
    lines = [sweep.text(runs, list(runs[0]["options"])).rstrip()]
    failed = [run for run in runs if run["state"] == "failed"]
    lines += [f"FAILED {run['run']}: {run['reason']}" for run in failed]
    if result["best"]:
        lines.append(f"next: cgrnn evaluate {shlex.quote(result['best'])}")
    return "\n".join([*lines, *(f"wrote {file}" for file in result["files"])]) + "\n"
