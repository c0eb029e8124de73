"""`cgrnn plot`: figures of runs as PNG and PDF files."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from cgrnn import units
from cgrnn.cli import plot_files
from cgrnn.cli.parsing import Parser, make
from cgrnn.cli.progress import bar
from cgrnn.cli.runs import folder_of, make_folder, normalisation, read_data
from cgrnn.settings import NOT_NEGATIVE

if TYPE_CHECKING:
    import torch
    from matplotlib.figure import Figure

    from cgrnn.checkpoint import Run
    from evaluation.figures import Track

Kind = Literal[
    "pianoroll",
    "curves",
    "activations",
    "precision",
    "energy",
    "reconstruction",
    "filters",
    "weights",
    "recursive",
    "similarity",
    "statistics",
]
SEVERAL = ("curves", "activations", "recursive", "statistics")
FORMATS = ("png", "pdf")
FRAMES = 3
SAMPLES = 50


def parser(argv: Sequence[str]) -> Parser:
    result = make(
        "plot",
        "pianoroll: a test sequence, the frames predicted one step ahead, and a continuation. "
        "curves: validation likelihood, loss and KL over the epochs. "
        "activations: hidden features over time. "
        "precision: conditional precision and covariance of chosen frames. "
        "energy: free energy, log Z and likelihood over time. "
        "reconstruction: a sequence, its prediction one frame ahead and its reconstruction. "
        "filters: the learned W. weights: log-weights of annealed importance sampling. "
        "recursive: accuracy up to 32 frames ahead, out of evaluation.json. "
        "similarity: how like each moment of a piece is to every other, real and made up. "
        "statistics: of a folder that `cgrnn generate` wrote, beside the training set's. "
        f"Several runs go together in {', '.join(SEVERAL)}.",
    )
    result.add("kind", kind=Kind, help="which figure")
    result.add("runs", kind=str, nargs="+", metavar="RUN", help="run directory, or folder of music")
    result.add(
        "-o",
        "--output",
        kind=str,
        help="PNG or PDF file; needed for several runs; default: RUN/figures/KIND.png and .pdf",
    )
    result.add("--data", kind=str, help="data set; default: the one trained on")
    result.add(
        "--index",
        kind=int,
        default=0,
        help="which sequence of the test split, from 0",
        limit=NOT_NEGATIVE,
    )
    result.add(
        "--frames",
        kind=str,
        help="frames to show, for precision and weights, as 0,60,140; default: three over the "
        "sequence",
    )
    return result


class _Case(NamedTuple):
    """A run, and the sequence of its data that is shown."""

    name: str
    run: Run
    frames: torch.Tensor
    track: Track
    fingerprint: str
    generator: torch.Generator

    @property
    def title(self) -> str:
        """The run's name, and its model where that is another."""
        model = self.run.model.name
        return model if self.name == model else f"{self.name} ({model})"

    @property
    def unit(self) -> str:
        """A sentence on nats for a caption, where frames are normalised."""
        mean, std = normalisation(self.run.data)
        if not units.normalised(mean, std):
            return ""
        number = units.to_file_units(self.run.model.visible_dim, std)
        return f" Log-likelihoods in {units.conversion(std, number)}."

    def draw(self, frames: Any) -> Track:
        """A track of frames that the model made, as in the data set."""
        mean, std = normalisation(self.run.data)
        return self.track.holding(frames * std + mean)


def run(options: Any) -> dict[str, Any]:
    """Draw the figure; return what `plot --json` prints."""
    from data_prep import store
    from evaluation import figures

    files = _files(options)
    figure = _FIGURES[options.kind](options)
    for file in files:
        make_folder(file.parent)
        with store.replacing(file) as temporary:
            figures.save(figure, temporary, file.suffix[1:])
    return {"files": [str(file) for file in files]}


def render(result: dict[str, Any]) -> str:
    return "".join(f"wrote {file}\n" for file in result["files"])


def _files(options: Any) -> list[Path]:
    """What to write.

    Raises:
        ValueError: for names and numbers of runs that do not do.
    """
    folders = [folder_of(name) for name in options.runs]
    if len(folders) > 1 and options.kind not in SEVERAL:
        raise ValueError(
            f"plot {options.kind}: takes one run, got {len(folders)}; {', '.join(SEVERAL)} take "
            "several"
        )
    if options.output is None:
        if len(folders) > 1:
            raise ValueError("--output: name the file for a figure of several runs, with -o")
        return [folders[0] / "figures" / f"{options.kind}.{suffix}" for suffix in FORMATS]
    file = Path(options.output)
    if file.suffix[1:] not in FORMATS:
        raise ValueError(f"{file}: give a name that ends in .png or .pdf")
    return [file]


def _named(options: Any) -> list[tuple[str, str]]:
    """A short name for each run, and the run."""
    short = [folder_of(name).resolve().name for name in options.runs]
    unique = len(set(short)) == len(short)
    return list(zip(short if unique else options.runs, options.runs, strict=True))


def _cases(options: Any) -> list[_Case]:
    """The runs with the sequence that all of them are shown on."""
    import torch

    from cgrnn.checkpoint import open_run
    from evaluation.figures import Track

    cases: list[_Case] = []
    for name, path in _named(options):
        trained = open_run(path)
        data = read_data(trained, options.data, "test")
        split, mark = data.splits["test"], data.attributes["fingerprint"]
        if cases and mark != cases[0].fingerprint:
            raise ValueError(
                f"{path}: trained on another data set than {options.runs[0]}; plot them apart, or "
                "name one data set for all with --data"
            )
        if options.index >= len(split.lengths):
            raise ValueError(f"--index: the test split has sequences 0 to {len(split.lengths) - 1}")
        frames = split.sequence(options.index)
        mean, std = normalisation(trained.data)
        seen = (torch.from_numpy(frames).float() - mean) / std
        generator = torch.Generator().manual_seed(options.seed)
        track = Track.of(frames, data.attributes)
        cases.append(_Case(name, trained, seen, track, mark, generator))
    return cases


def _chosen(options: Any, track: Track) -> list[int]:
    """The frames that `--frames` names."""
    last = len(track.frames) - 1
    if options.frames is None:
        return sorted({round(last * n / (FRAMES - 1)) for n in range(FRAMES)})
    try:
        chosen = [int(word) for word in options.frames.split(",")]
    except ValueError:
        raise ValueError(
            f"--frames: expected whole numbers as 0,60,140, got {options.frames}"
        ) from None
    for number in chosen:
        if not 0 <= number <= last:
            raise ValueError(f"--frames: the sequence has frames 0 to {last}, got {number}")
    return chosen


def _activations(options: Any) -> Figure:
    from evaluation import figures, inside

    cases = _cases(options)
    features = {
        f"{case.title}: {inside.feature_name(case.run.model)}": inside.activations(
            case.run.model, case.frames, case.generator
        )
        for case in cases
    }
    return figures.activations(features, cases[0].track)


def _pianoroll(options: Any) -> Figure:
    from evaluation import figures, inside

    (case,) = _cases(options)
    track, model = case.track, case.run.model
    if track.kind != "binary" or track.lowest_pitch is None or track.frame_rate is None:
        other = "activations" if track.kind == "notes" else "reconstruction"
        raise ValueError(
            f"{options.data or case.run.data['path']}: has no lowest_pitch, its frames are not "
            f"notes of a piano-roll; see `cgrnn plot {other}`"
        )
    prime = len(track.frames) // 2
    predicted = inside.prediction(model, case.frames, SAMPLES, case.generator)
    given = case.frames[:prime]
    continued = model.generate(len(track.frames) - prime, 1, given, case.generator)[0].numpy()
    rolls = {
        f"Test sequence {options.index}": track.frames,
        f"Predicted one frame ahead by {model.name}, mean of {SAMPLES} draws": predicted,
        f"Continued by {model.name} from the first half": continued,
    }
    return figures.pianoroll(rolls, track.lowest_pitch, track.frame_rate, prime)


def _reconstruction(options: Any) -> Figure:
    from evaluation import figures, inside

    (case,) = _cases(options)
    model = case.run.model
    if case.track.kind == "notes":
        raise ValueError(
            f"{model.name}: notes are classes, with neither roll nor waveform to reconstruct; see "
            "`cgrnn plot energy`"
        )
    drawn = f"mean of {SAMPLES} draws"
    predicted = inside.prediction(model, case.frames, SAMPLES, case.generator)
    again = inside.reconstruction(model, case.frames, SAMPLES, case.generator)
    tracks = {
        f"Test sequence {options.index}": case.track,
        f"{case.title}: prediction one frame ahead, {drawn}": case.draw(predicted),
        f"{case.title}: reconstruction, {drawn}": case.draw(again),
    }
    return figures.reconstruction(tracks)


def _precision(options: Any) -> Figure:
    from evaluation import figures, inside

    (case,) = _cases(options)
    chosen = _chosen(options, case.track)
    found = inside.precisions(case.run.model, case.frames, chosen, generator=case.generator)
    return figures.precision(
        {"C⁻¹, likeliest spikes": found.precision, "E[C⁻¹] over spikes": found.mean_precision},
        {"C, likeliest spikes": found.covariance, "E[C] over spikes": found.mean_covariance},
        chosen,
        case.track,
        f"{case.title}, test sequence {options.index}: covariance C of a frame given the spikes h "
        "and u. The likeliest spikes given the frame are those on with probability above ½. "
        f"E[C⁻¹] is exact, E[C] a mean over {inside.SPIKE_DRAWS} draws of h given the frame.",
    )


def _energy(options: Any) -> Figure:
    from evaluation import figures, inside

    (case,) = _cases(options)
    with bar(" chain-levels") as progress:
        found = inside.energies(
            case.run.model, case.frames, generator=case.generator, progress=progress
        )
    return figures.energy(
        case.track,
        found.log_prob,
        found.log_prob_stderr,
        found.free_energy,
        found.log_z,
        found.log_z_stderr,
        found.kind,
        units.frame(*normalisation(case.run.data)),
        f"{case.title}, test sequence {options.index}. {found.how}".rstrip(". ") + "." + case.unit,
    )


def _filters(options: Any) -> Figure:
    from evaluation import figures, inside

    (case,) = _cases(options)
    return figures.filters(inside.filters(case.run.model), case.track)


def _weights(options: Any) -> Figure:
    from evaluation import figures, inside

    (case,) = _cases(options)
    chosen = _chosen(options, case.track)
    with bar(" chain-levels") as progress:
        found = inside.log_weights(
            case.run.model, case.frames, chosen, generator=case.generator, progress=progress
        )
    return figures.weights(
        found.log_weights.numpy(),
        found.log_z.numpy(),
        found.stderr.numpy(),
        found.ess.numpy(),
        found.collapsed.numpy(),
        [case.track.name(number) for number in chosen],
        f"{case.title}, test sequence {options.index}: annealed importance sampling of log Z, "
        f"{inside.WEIGHT_CHAINS} chains × {inside.WEIGHT_LEVELS} levels along two paths. Where one "
        "path misses a mode, its weights lie far below and are left out of log Ẑ; where both do, "
        "log Ẑ and its ESS are of chains that begin in the mode, which are not shown."
        + (" Frames are normalised, (v − mean)/std." if case.unit else ""),
    )


def _similarity(options: Any) -> Figure:
    from evaluation import figures, music

    (case,) = _cases(options)
    track, model = case.track, case.run.model
    if track.kind != "binary" or track.frame_rate is None:
        raise ValueError(f"{model.name}: only pieces of notes on piano-rolls are compared so")
    drawn = model.generate(len(track.frames), 2, None, case.generator).numpy()
    rolls = {f"Test sequence {options.index}": track.frames}
    rolls |= {f"{case.title}, piece {number + 1}": roll for number, roll in enumerate(drawn)}
    matrices = {title: music.self_similarity(roll) for title, roll in rolls.items()}
    return figures.similarity(matrices, track.frame_rate)


_FIGURES: dict[str, Callable[[Any], Figure]] = {
    "pianoroll": _pianoroll,
    "curves": lambda options: plot_files.curves(_named(options)),
    "activations": _activations,
    "precision": _precision,
    "energy": _energy,
    "reconstruction": _reconstruction,
    "filters": _filters,
    "weights": _weights,
    "recursive": lambda options: plot_files.recursive(_named(options)),
    "similarity": _similarity,
    "statistics": lambda options: plot_files.statistics(_named(options)),
}
