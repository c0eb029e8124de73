"""`cgrnn evaluate`: the figures to quote, each with its error and its side."""

from __future__ import annotations

import hashlib
import json
import platform
import shlex
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Literal

from cgrnn import units
from cgrnn.cli import say
from cgrnn.cli.parsing import Parser, make
from cgrnn.cli.progress import bar
from cgrnn.cli.runs import SWEEPS_HELP, folder_of, make_folder, normalisation, read_data
from cgrnn.settings import AT_LEAST_ONE, AT_LEAST_TWO, MARKS, POSITIVE
from evaluation.comparison import COLUMNS, Value, form_with, written

if TYPE_CHECKING:
    import numpy as np

    from cgrnn.checkpoint import Run
    from data_prep.store import Dataset, Split
    from evaluation.blocks import Blocks

STEPS_SHOWN = (1, 4, 16, 32)
# Sequences that are continued side by side: the more, the less a step costs each.
CONTINUED = 64
NATS = COLUMNS["likelihood"].form
# Does not tell one evaluation from another: where things lie, and how the result is shown.
_PLACES = ("run_directory", "data", "json")
_ROWS = {
    "accuracy": ("frame accuracy", ".1%"),
    "accuracy_of_frames": ("  mean over frames", ".1%"),
    "missed": ("notes missed", ".1%"),
    "false": ("notes false", ".1%"),
    "misplaced": ("notes misplaced", ".1%"),
    "total": ("notes wrong in all", ".1%"),
    "rmse": ("error (RMSE)", ".3f"),
    "rmse_of_frames": ("  norm, mean over frames", ".3f"),
    "snr_db": ("signal to noise, dB", ".2f"),
}


def parser(argv: Sequence[str]) -> Parser:
    result = make(
        "evaluate",
        "Log-likelihood in nats (of normalised frames, (v - mean)/std, where they are continuous), "
        "under both averages, beside floors fitted on the training split; "
        "accuracy or error of frames one step ahead, k steps ahead on the model's own output, and "
        "reconstructed. Writes evaluation.json into the run. Interrupted, it keeps what is "
        "finished, and the same command goes on; `torchrun --nproc-per-node N -m cgrnn evaluate …` "
        "shares the work over N processes or devices.",
    )
    result.add("run_directory", kind=str, metavar="RUN", help="run directory")
    result.add("--data", kind=str, help="data set; default: the one trained on")
    result.add(
        "--split", kind=Literal["train", "valid", "test"], default="test", help="split to score"
    )
    result.add(
        "--chains",
        kind=int,
        default=20,
        help="chains of AIS for each frame of the long annealing",
        limit=AT_LEAST_TWO,
    )
    result.add(
        "--levels",
        kind=int | None,
        help="levels of AIS; default: doubled until doubling moves the figure by less than 0.05",
        limit=AT_LEAST_ONE,
    )
    result.add(
        "--stderr",
        kind=float,
        default=0.05,
        help="standard error to reach, nats a frame; of a lower bound it is the Monte-Carlo error, "
        "with that of the draws of latents, and not how far it lies below the likelihood",
        limit=POSITIVE,
    )
    result.add(
        "--paths",
        kind=int,
        default=100,
        help="paths of latents for each sequence, in models whose latents have a prior",
        limit=AT_LEAST_ONE,
    )
    result.add(
        "--method",
        kind=Literal["filter", "paths"],
        default="filter",
        help="which bound to quote: by a particle filter, or by paths that stay independent",
    )
    result.add(
        "--samples",
        kind=int,
        default=5,
        help="draws of each frame, for accuracy",
        limit=AT_LEAST_ONE,
    )
    result.add(
        "--horizon",
        kind=int,
        default=32,
        help="steps ahead on the model's own output, at the most",
        limit=AT_LEAST_ONE,
    )
    result.add("--sweeps", kind=int, default=200, help=SWEEPS_HELP, limit=AT_LEAST_ONE)
    return result


def run(options: Any) -> dict[str, Any]:
    """Score the split; return what `evaluate --json` prints."""
    from cgrnn.arithmetic import use_fast_products
    from cgrnn.checkpoint import open_run
    from data_prep import store
    from evaluation.blocks import Blocks, ranks

    arithmetic = use_fast_products()
    trained = open_run(options.run_directory)
    folder = make_folder(folder_of(options.run_directory))
    data = read_data(trained, options.data, options.split, others=True)
    trained.model.sweeps = options.sweeps
    with ranks() as device, bar("") as progress:
        trained.model.to(device)
        about = _about(options, data, device.type) | {"arithmetic": arithmetic}
        journal = folder / ".evaluation.work"
        blocks = Blocks(options.seed, device, journal, about, _shown(progress))
        if blocks.dropped:
            say(_begun_anew(blocks.dropped, about))
        try:
            with blocks:
                result = _measured(trained, data, options, blocks) | {"arithmetic": arithmetic}
                if blocks.rank == 0:
                    with store.replacing(folder / "evaluation.json") as file:
                        file.write_text(json.dumps(result, indent=2) + "\n")
        except KeyboardInterrupt as end:
            raise KeyboardInterrupt("what is finished is kept; the same command goes on") from end
    if blocks.rank:
        raise SystemExit(0)  # the first rank alone writes and prints
    return result


def _measured(trained: Run, data: Dataset, options: Any, blocks: Blocks) -> dict[str, Any]:
    from cgrnn.batches import Batches
    from evaluation import accuracy, recursive

    model, split = trained.model, data.splits[options.split]
    mean, std = normalisation(trained.data)

    def batches(size: int) -> Batches:
        return Batches(split.frames, split.lengths, batch_size=size, mean=mean, std=std)

    usual = batches(16)
    found = _likelihood(model, usual, options, blocks)
    ahead = recursive.steps_ahead(model, batches(CONTINUED), options.horizon, blocks)
    return {
        "model": model.name,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "split": options.split,
        "sequences": len(split.lengths),
        "frames": len(split.frames),
        "log_likelihood": {
            **asdict(found),
            "stderr_covers": found.stderr_covers,
            "unit": units.unit(mean, std),
            "nats_to_file_units": units.to_file_units(model.visible_dim, std),
        },
        **accuracy.measures(model, usual, options.samples, blocks),
        "recursive": ahead.plain(),
        "chains": _mixing(model, usual, blocks),
        "floors": _floors(data.splits["train"], split, (mean, std), model),
        "data": {
            "path": options.data or trained.data["path"],
            "fingerprint": data.attributes["fingerprint"],
            "mean": mean,
            "std": std,
        },
        "epoch": trained.epoch,
        "seed": options.seed,
        "command": _command(options),
        "versions": _versions(),
    }


def _likelihood(model: Any, batches: Any, options: Any, blocks: Blocks) -> Any:
    from cgrnn.models import RecurrentModel
    from evaluation import likelihood

    tell = say if blocks.rank == 0 else lambda line: None
    if isinstance(model, RecurrentModel):
        how = (options.chains, options.levels, options.stderr, blocks, tell)
        return likelihood.evaluate(model, batches, *how)
    if model.likelihood_kind == "exact":
        return likelihood.exactly(model, batches, blocks)
    return likelihood.by_paths(model, batches, options.paths, options.method, blocks)


def _mixing(model: Any, batches: Any, blocks: Blocks) -> dict[str, Any] | None:
    from cgrnn.models import RecurrentModel
    from evaluation.accuracy import mixing

    if not isinstance(model, RecurrentModel):
        return None

    def one(number: int, generator: Any) -> dict[str, Any]:
        return {"found": mixing(model, batches[number].to(blocks.device), generator)}

    found: dict[str, Any] | None = blocks.run("mixing", [0], one)[0]["found"]
    return found


def _about(options: Any, data: Dataset, device: str) -> dict[str, Any]:
    """What the journal of an evaluation belongs to."""
    from cgrnn.checkpoint import find

    return {
        "checkpoint": hashlib.sha256(find(options.run_directory).read_bytes()).hexdigest(),
        "data": data.attributes["fingerprint"],
        "options": {name: value for name, value in vars(options).items() if name not in _PLACES},
        "device": device,
        "versions": _versions(),
    }


def _begun_anew(before: dict[str, Any], now: dict[str, Any]) -> str:
    """Why nothing of an evaluation that was interrupted is kept."""
    other = []
    for kind, new in now.items():
        old = before.get(kind)
        if isinstance(new, dict):
            its = old or {}
            changed = {name: value for name, value in new.items() if its.get(name) != value}
            other += [f"{name} {its.get(name)} (now {changed[name]})" for name in changed]
        elif old != new:
            other.append(f"another {kind}")
    return (
        "what an interrupted evaluation had finished is dropped, and this one begins anew: that "
        f"one had {', '.join(other)}"
    )


def _versions() -> dict[str, str]:
    import torch

    from cgrnn import __version__

    own = {"cgrnn": __version__, "torch": str(torch.__version__)}
    return {**own, "python": platform.python_version()}


def _command(options: Any) -> str:
    """The words that say the same, without what is said by default."""
    known = parser([])
    words = ["cgrnn", "evaluate", options.run_directory]
    for name, option in known.added.items():
        if option.flag.startswith("-") and options[name] != known.get_default(name):
            words += [option.flag, str(options[name])]
    return shlex.join(words)


def _shown(progress: Callable[..., None]) -> Callable[[int, int, str], None]:
    return lambda done, total, name: progress(done, total, stage=name)


def _floors(
    train: Split, split: Split, normalisation: tuple[float, float], model: Any
) -> list[dict[str, Any]]:
    """The floors that a model's kind of frames has, on frames as the model sees them."""
    from evaluation import floors

    mean, std = normalisation
    kinds = {
        "binary": (floors.independent, floors.markov),
        "continuous": (floors.gaussian,),
        "notes": (floors.frequencies,),
    }

    def normalised(its: Split) -> Iterator[np.ndarray]:
        continuous = model.visible == "continuous"
        return ((frames - mean) / std if continuous else frames for frames in its.sequences())

    return [
        asdict(floor(normalised(train), normalised(split), model.given_frames))
        for floor in kinds[model.visible]
    ]


def table(results: Sequence[dict[str, Any]]) -> str:
    """Models evaluated on the same split, above the floors."""
    head = (
        f"{'':<23} {'per frame':>18} {'per sequence':>13}  {'kind':<12}"
        f"{'prediction':>11} {'reconstruction':>15}"
    )
    lines = [head]
    for result in results:
        scores = result["log_likelihood"]
        found, form = result.get("accuracy"), ".1%"
        if found is None:
            found, form = result["rmse"], ".3f"
        lines.append(
            _row(result["model"], scores)
            + f"  {scores['kind']:<12}{format(found['prediction'], form):>11}"
            + f" {format(found['reconstruction'], form):>15}"
        )
    exact = {"stderr": 0.0, "kind": "exact"}
    lines += [_row(floor["name"], exact | floor) + "  exact" for floor in results[0]["floors"]]
    return "\n".join(lines) + "\n"


def _row(name: str, scores: dict[str, Any]) -> str:
    mark, form = MARKS[scores["kind"]], form_with(scores["stderr"], NATS)
    per_frame = written(Value(scores["per_frame"], scores["stderr"], mark), NATS)
    per_sequence = written(Value(scores["per_sequence"], mark=mark), form)
    return f"{name:<23} {per_frame:>18} {per_sequence:>13}"


def _protocols(result: dict[str, Any]) -> str:
    """The measures of one model: one step ahead, k steps ahead, reconstructed."""
    ahead = result["recursive"]
    shown = [step for step in STEPS_SHOWN if step in ahead["steps"]]
    heads = ["prediction", *(f"{step} ahead" for step in shown), "reconstruction"]
    lines = [f"{'':<25}" + "".join(f"{head:>16}" for head in heads)]
    flat, curve = _flat(result), _flat(ahead)
    for name, (label, form) in _ROWS.items():
        if name in flat:
            curves = [curve[name][step - 1] if name in curve else None for step in shown]
            values = [flat[name]["prediction"], *curves, flat[name]["reconstruction"]]
            cells = ["–" if value is None else format(value, form) for value in values]
            lines.append(f"{label:<25}" + "".join(f"{cell:>16}" for cell in cells))
    return "\n".join(lines)


def _flat(found: dict[str, Any]) -> dict[str, Any]:
    """With the parts of the note split beside the others, by protocol inside."""
    split = found.get("note_split", {})
    if "prediction" not in split:
        return {**found, **split}
    parts = {name: {side: split[side][name] for side in split} for name in split["prediction"]}
    return {**found, **parts}


def render(result: dict[str, Any]) -> str:
    """The table, and beneath it what must be known before a figure is quoted."""
    scores = result["log_likelihood"]
    measure = "share of notes right" if "mean_error" in result else "frame accuracy"
    if "rmse" in result:
        measure = f"error (RMSE); frames in units of {result['data']['std']:.4g}, their deviation"
    told = "scored" if scores["first_frame_scored"] else "told"
    lines = [
        f"{result['split']} split: {result['sequences']} sequences, {result['frames']} frames; "
        f"log-likelihood in {scores['unit']}, first frames {told}; {measure}",
        table([result]).rstrip(),
        _protocols(result),
    ]
    mean, std = normalisation(result["data"])
    if units.normalised(mean, std):
        lines.append(units.conversion(std, scores["nats_to_file_units"]))
    if scores["stderr"]:
        lines.append(f"± covers {scores['stderr_covers']}")
    if scores["bounds"]:
        form = form_with(scores["stderr"], NATS)
        bounds = {name: written(Value(x), form) for name, x in scores["bounds"].items()}
        named = ", ".join(f"{name} {text}" for name, text in bounds.items())
        lines.append(f"lower bounds per frame: {named}; quoted: {scores['estimator']}")
    if scores["draws"]:
        lines.append(
            f"lower bound: the mean over {scores['draws']} draws of the latents that are fed back"
        )
    if scores["chains"]:
        gap = scores["reverse_gap"]
        lines.append(
            f"log Z by annealed importance sampling, {scores['chains']} chains × "
            f"{scores['levels']} levels on {scores['frames_estimated']} frames, on average "
            f"{scores['ess']} effective chains, {scores['chain_levels'] / 1e6:.0f} million "
            "chain-levels in all; halving the levels raises the likelihood by "
            f"{scores['drift']:.3f}; annealing in reverse puts it {abs(gap):.3f} "
            + ("lower" if gap > 0 else "higher")
        )
    if scores["proven_at_most"] is not None:
        # Above a bound the likelihood may be higher than that.
        what = "the bound is at most" if scores["draws"] else "at most"
        most = written(Value(scores["proven_at_most"]), NATS)
        frame = units.frame(mean, std)
        lines.append(f"proven: {what} {most} nats a {frame}, by the states that were found")
    warnings = scores["warnings"] + ([result["chains"]["warning"]] if result["chains"] else [])
    lines += [f"WARNING: {warning}" for warning in warnings if warning]
    return "\n".join(lines) + "\n"
