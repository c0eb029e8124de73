"""`cgrnn evaluate`: the figures to quote, each with its error and its side."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Literal

from cgrnn.cli import say
from cgrnn.cli.parsing import Parser, make
from cgrnn.cli.progress import bar
from cgrnn.cli.runs import SWEEPS_HELP, folder_of, make_folder, normalisation, read_data
from cgrnn.settings import AT_LEAST_ONE, AT_LEAST_TWO, POSITIVE

if TYPE_CHECKING:
    import numpy as np

    from data_prep.store import Split

MARKS = {"exact": "=", "estimate": "≈", "lower bound": "≥"}


def parser(argv: Sequence[str]) -> Parser:
    result = make(
        "evaluate",
        "Log-likelihood in nats, under both averages, and frame accuracy under both protocols, "
        "beside two floors fitted on the training split. Writes evaluation.json into the run.",
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
        help="standard error to reach, nats a frame",
        limit=POSITIVE,
    )
    result.add(
        "--paths",
        kind=int,
        default=100,
        help="paths of latents for each sequence, in models with latents",
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
    result.add("--sweeps", kind=int, default=200, help=SWEEPS_HELP, limit=AT_LEAST_ONE)
    return result


def run(options: Any) -> dict[str, Any]:
    """Score the split; return what `evaluate --json` prints."""
    import torch

    from cgrnn.arithmetic import use_fast_products
    from cgrnn.batches import Batches
    from cgrnn.checkpoint import open_run
    from cgrnn.models import RecurrentModel
    from data_prep import store
    from evaluation.accuracy import mixing

    use_fast_products()
    trained = open_run(options.run_directory)
    folder = make_folder(folder_of(options.run_directory))
    data = read_data(trained, options.data, options.split, others=True)
    train, split = data.splits["train"], data.splits[options.split]
    trained.model.sweeps = options.sweeps
    mean, std = normalisation(trained.data)
    batches = Batches(split.frames, split.lengths, batch_size=16, mean=mean, std=std)
    generator = torch.Generator().manual_seed(options.seed)
    found = _likelihood(trained.model, batches, options, generator)
    result = {
        "model": trained.model.name,
        "split": options.split,
        "sequences": len(split.lengths),
        "frames": len(split.frames),
        "log_likelihood": asdict(found),
        **_hits(trained.model, batches, options.samples, generator),
        "chains": mixing(trained.model, next(iter(batches)), generator)
        if isinstance(trained.model, RecurrentModel)
        else None,
        "floors": _floors(train, split, (mean, std), trained.model.visible),
        "data": {
            "path": options.data or trained.data["path"],
            "fingerprint": data.attributes["fingerprint"],
            "mean": mean,
            "std": std,
        },
        "epoch": trained.epoch,
        "seed": options.seed,
    }
    with store.replacing(folder / "evaluation.json") as file:
        file.write_text(json.dumps(result, indent=2) + "\n")
    return result


def _likelihood(model: Any, batches: Any, options: Any, generator: Any) -> Any:
    from cgrnn.models import RecurrentModel
    from evaluation import likelihood

    if isinstance(model, RecurrentModel):
        how = (options.chains, options.levels, options.stderr, generator, say)
        with bar(" chain-levels") as progress:
            return likelihood.evaluate(model, batches, *how, progress)
    if model.likelihood_kind == "exact":
        return likelihood.exactly(model, batches)
    with bar(" batches") as progress:
        return likelihood.by_paths(
            model, batches, options.paths, options.method, generator, progress=progress
        )


def _hits(model: Any, batches: Any, samples: int, generator: Any) -> dict[str, Any]:
    """How near predictions come, by the measure of the model's kind of frames."""
    from evaluation import accuracy

    if model.visible == "notes":
        return accuracy.note_errors(model, batches)
    if model.visible == "binary":
        return {"accuracy": accuracy.accuracies(model, batches, samples, generator)}
    return {"rmse": accuracy.errors(model, batches, samples, generator)}


def _floors(
    train: Split, split: Split, normalisation: tuple[float, float], kind: str
) -> list[dict[str, Any]]:
    """The floors that a kind of frames has, on frames as the model sees them."""
    from evaluation import floors

    mean, std = normalisation
    kinds = {
        "binary": (floors.independent, floors.markov),
        "continuous": (floors.gaussian,),
        "notes": (floors.frequencies,),
    }

    def normalised(its: Split) -> Iterator[np.ndarray]:
        return (
            (frames - mean) / std if kind == "continuous" else frames for frames in its.sequences()
        )

    return [asdict(floor(normalised(train), normalised(split))) for floor in kinds[kind]]


def table(results: Sequence[dict[str, Any]]) -> str:
    """Models evaluated on the same split, above the floors."""
    head = (
        f"{'':<23} {'per frame':>16} {'per sequence':>13}  {'kind':<12}"
        f"{'prediction':>11} {'reconstruction':>15}"
    )
    lines = [head]
    for result in results:
        scores = result["log_likelihood"]
        found, form = result.get("accuracy"), ".1%"
        if found is None:
            found, form = result["rmse"], ".3f"
        error = f" ± {scores['stderr']:.2f}" if scores["stderr"] else ""
        lines.append(
            _row(result["model"], MARKS[scores["kind"]], scores, error)
            + f"  {scores['kind']:<12}{format(found['prediction'], form):>11}"
            + f" {format(found['reconstruction'], form):>15}"
        )
    lines += [_row(floor["name"], "=", floor, "") + "  exact" for floor in results[0]["floors"]]
    return "\n".join(lines) + "\n"


def _row(name: str, mark: str, scores: dict[str, Any], error: str) -> str:
    per_frame = f"{mark}{scores['per_frame']:.2f}{error}"
    return f"{name:<23} {per_frame:>16} {mark + format(scores['per_sequence'], '.2f'):>13}"


def render(result: dict[str, Any]) -> str:
    """The table, and beneath it what must be known before a figure is quoted."""
    scores = result["log_likelihood"]
    measure = "share of notes right" if "mean_error" in result else "frame accuracy"
    if "rmse" in result:
        measure = f"error (RMSE); frames in units of {result['data']['std']:.4g}, their deviation"
    told = "scored" if scores["first_frame_scored"] else "told"
    lines = [
        f"{result['split']} split: {result['sequences']} sequences, {result['frames']} frames; "
        f"log-likelihood in nats, first frames {told}; {measure}",
        table([result]).rstrip(),
    ]
    if scores["bounds"]:
        named = ", ".join(f"{name} {value:.3f}" for name, value in scores["bounds"].items())
        lines.append(f"lower bounds per frame: {named}; quoted: {scores['estimator']}")
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
    warnings = scores["warnings"] + ([result["chains"]["warning"]] if result["chains"] else [])
    lines += [f"WARNING: {warning}" for warning in warnings if warning]
    return "\n".join(lines) + "\n"
