"""`cgrnn plot`: figures of a run as PNG files."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from cgrnn.cli.parsing import Parser, make
from cgrnn.cli.runs import folder_of, make_folder, playback, read_data
from cgrnn.settings import NOT_NEGATIVE

Kind = Literal["pianoroll", "curves", "activations"]


def parser(argv: Sequence[str]) -> Parser:
    result = make(
        "plot",
        "pianoroll: a test sequence, the frames predicted one step ahead, and a continuation; "
        "curves: validation likelihood and loss; activations: hidden features over time.",
    )
    result.add("kind", kind=Kind, help="which figure")
    result.add("run_directory", kind=str, metavar="RUN", help="run directory")
    result.add("-o", "--output", kind=str, help="PNG file; default: RUN/figures/KIND.png")
    result.add("--data", kind=str, help="data set; default: the one trained on")
    result.add(
        "--index",
        kind=int,
        default=0,
        help="which sequence of the test split, from 0",
        limit=NOT_NEGATIVE,
    )
    return result


def run(options: Any) -> dict[str, Any]:
    """Draw the figure; return what `plot --json` prints."""
    from data_prep import store

    folder = folder_of(options.run_directory)
    file = Path(options.output or folder / "figures" / f"{options.kind}.png")
    if file.suffix != ".png":
        raise ValueError(f"{file}: give a name that ends in .png")
    figure = _curves(folder) if options.kind == "curves" else _of_model(options)
    make_folder(file.parent)
    with store.replacing(file) as temporary:
        figure.savefig(temporary, dpi=150, format="png")
    return {"files": [str(file)]}


def _curves(folder: Path) -> Any:
    from evaluation import figures

    file = folder / "metrics.csv"
    if not file.is_file():
        raise FileNotFoundError(f"{file}: no training metrics; is {folder} a run directory?")
    try:
        with file.open(newline="") as lines:
            rows = [
                {name: float(value) for name, value in row.items() if value}
                for row in csv.DictReader(lines)
            ]
    except (ValueError, TypeError) as error:
        raise ValueError(f"{file}: not the metrics of a run ({error}); train again") from error
    return figures.curves({folder.name: rows})


def _of_model(options: Any) -> Any:
    import torch

    from cgrnn.checkpoint import open_run
    from evaluation import figures

    trained = open_run(options.run_directory)
    data = read_data(trained, options.data, "test")
    split = data.splits["test"]
    if options.index >= len(split.lengths):
        raise ValueError(f"--index: the test split has sequences 0 to {len(split.lengths) - 1}")
    roll = split.sequence(options.index)
    frames = torch.from_numpy(roll)[None].float()
    model, sound = trained.model, playback(trained)
    generator = torch.Generator().manual_seed(options.seed)
    if options.kind == "activations":
        what = "Hidden activations E[h⊙s | v, u]" if model.has_latents else "Recurrent state u"
        features = model.features(frames, generator)[0].numpy()
        return figures.activations(features, roll, sound["frame_rate"], what)
    prime = len(roll) // 2
    predicted = model.predict(frames, generator, samples=50).mean(0)[0].numpy()
    continued = model.generate(len(roll) - prime, 1, frames[0, :prime], generator)[0].numpy()
    rolls = {
        f"Test sequence {options.index}": roll,
        f"Predicted one frame ahead by {model.name}, mean of 50 draws": predicted,
        f"Continued by {model.name} from the first half": continued,
    }
    return figures.pianoroll(rolls, sound["lowest_pitch"], sound["frame_rate"], prime)


def render(result: dict[str, Any]) -> str:
    return "".join(f"wrote {file}\n" for file in result["files"])
