"""`cgrnn report`: a page of evaluated runs, made by the commands that it names."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import cgrnn.cli as cli
from cgrnn.cli.parsing import Parser, make
from cgrnn.cli.runs import make_folder
from cgrnn.settings import AT_LEAST_ONE, NOT_NEGATIVE

if TYPE_CHECKING:
    from evaluation.comparison import Evaluated
    from evaluation.report import Section


class _Plot(NamedTuple):
    """A kind of figure: its heading, and what it shows."""

    kind: str
    title: str
    text: str


TOGETHER = (
    _Plot("curves", "Training", "Validation log-likelihood and training loss over the epochs."),
    _Plot(
        "recursive",
        "On their own output",
        "How near each model comes to the frame k steps ahead when it goes on by itself, "
        "k = 1 to 32; bands are one standard error.",
    ),
    _Plot(
        "activations",
        "Hidden activations",
        "What the hidden units do over time on the same test sequence: E[h⊙s | v, u] of "
        "spike-and-slab models, posterior means of latent-variable models, the recurrent state "
        "of others.",
    ),
)
ALONE = {
    "binary": (
        _Plot(
            "pianoroll",
            "Prediction and continuation",
            "A test sequence, the probability of each note one frame ahead, and how the model "
            "goes on from the first half.",
        ),
    ),
    "continuous": (),
    "notes": (),
}
OF_ALL = (
    _Plot(
        "reconstruction",
        "Truth, prediction, reconstruction",
        "A test sequence, the same predicted one frame ahead from the frames before it, and "
        "reconstructed by latents that have seen it.",
    ),
    _Plot(
        "energy",
        "Likelihood over time",
        "Free energy, log Z and log-likelihood of each frame of a test sequence, in nats.",
    ),
    _Plot(
        "precision",
        "Precision and covariance",
        "Precision matrix C_h⁻¹ and covariance C_h of the frame density at three frames, and "
        "averaged over the spikes; one scale, zero in the middle.",
    ),
    _Plot("filters", "Filters", "The columns of the coupling matrix W, sorted."),
    _Plot(
        "weights",
        "Weights of annealed importance sampling",
        "Log-weights of the annealing chains at some frames: a narrow spread means a log Z that "
        "can be trusted.",
    ),
)


def parser(argv: Sequence[str]) -> Parser:
    result = make(
        "report",
        "One HTML page of evaluated runs, with everything in it: the table, every figure, music "
        "to hear and to take away, and the command behind each. Opens from disk.",
    )
    result.add_argument("runs", nargs="+", metavar="RUN", help="run directories, evaluated")
    result.add("-o", "--output", kind=str, required=True, help="folder to write")
    result.add(
        "--index",
        kind=int,
        default=0,
        help="test sequence that the figures show, from 0",
        limit=NOT_NEGATIVE,
    )
    result.add("--count", kind=int, default=3, help="pieces to draw a run", limit=AT_LEAST_ONE)
    result.add("--title", kind=str, default="Sequence models compared", help="heading")
    return result


def run(options: Any) -> dict[str, Any]:
    """Make figures, music and the page; return what `report --json` prints."""
    import platform

    import torch

    from cgrnn import __version__
    from data_prep import store
    from evaluation import comparison, report

    evaluated = [comparison.read(folder) for folder in options.runs]
    maker = _Maker(make_folder(options.output), options)
    table = comparison.compare(evaluated)
    groups: dict[Any, list[Evaluated]] = {}
    for one in evaluated:
        groups.setdefault(one.protocol, []).append(one)
    sections = [maker.group(number, group) for number, group in enumerate(groups.values())]
    words = ["cgrnn", "report", *options.runs, "-o", options.output]
    made = [
        f"Made on {date.today():%d %B %Y} by cgrnn {__version__}, torch {torch.__version__}, "
        f"Python {platform.python_version()}: {shlex.join(words)}"
    ]
    file = maker.folder / "report.html"
    with store.replacing(file) as temporary:
        temporary.write_text(report.page(options.title, table, sections, made), encoding="utf-8")
    return {"files": [str(file)]}


def render(result: dict[str, Any]) -> str:
    return "".join(f"wrote {file}\n" for file in result["files"])


class _Maker:
    """Calls the commands whose results the page shows.

    Args:
        folder: where figures and music go.
        options: of the report.
    """

    def __init__(self, folder: Path, options: Any) -> None:
        self.folder, self.options = folder, options

    def group(self, number: int, group: Sequence[Evaluated]) -> Section:
        """The section of a data set: what its runs show together, then each run."""
        from evaluation.comparison import names_of
        from evaluation.report import Section

        names = names_of([group])
        first, anchor = group[0], f"data-{number}"
        data = first.found["data"]
        section = Section(
            first.setting,
            anchor,
            facts=[
                ("data set", f"{data['path']}, fingerprint {data['fingerprint'][:16]}"),
                ("scored", f"{first.found['sequences']} sequences, {first.found['frames']} frames"),
                *(
                    ("floor", f"{floor['name']}: {floor['per_frame']:.2f} nats per frame")
                    for floor in first.found["floors"]
                ),
            ],
            sections=[
                self.run(f"{anchor}-{place}", one, names[id(one)])
                for place, one in enumerate(group)
            ],
        )
        paths = [str(one.run) for one in group]
        for plot in TOGETHER:
            self.draw(section, plot, paths, ["--index", str(self.options.index)])
        return section

    def run(self, anchor: str, one: Evaluated, name: str) -> Section:
        """The section of a run."""
        from evaluation.report import Section

        section = Section(name, anchor, facts=_facts(one))
        self.play(section, one)
        kind = "binary" if "accuracy" in one.found else "continuous"
        for plot in (*ALONE[kind], *OF_ALL):
            self.draw(section, plot, [str(one.run)], ["--index", str(self.options.index)])
        return section

    def draw(self, section: Section, plot: _Plot, runs: Sequence[str], more: Sequence[str]) -> None:
        """Add a figure, or the reason why there is none."""
        from evaluation.report import Picture

        file = self.folder / "figures" / f"{section.anchor}-{plot.kind}.png"
        words = ["plot", plot.kind, *runs, *more, "--seed", str(self.options.seed)]
        try:
            called([*words, "-o", str(file)])
        except ValueError as reason:
            section.missing.append(f"{plot.title}: {reason}")
            return
        text = f"{plot.text} {section.title}."
        section.pictures.append(Picture(file, plot.title, text, "cgrnn " + shlex.join(words)))

    def play(self, section: Section, one: Evaluated) -> None:
        """Add what the model makes up, and how it compares with the training set."""
        from evaluation.report import Piece

        folder = self.folder / "samples" / section.anchor
        words = ["generate", str(one.run), "-o", str(folder), "--count", str(self.options.count)]
        words += ["--seed", str(self.options.seed), "--wav", "true"]
        try:
            made = called(words)
        except ValueError as reason:
            section.missing.append(f"Music: {reason}")
            return
        files = [Path(file) for file in made["files"]]
        scores = {file.stem: file for file in files if file.suffix == ".mid"}
        for number, file in enumerate(file for file in files if file.suffix == ".wav"):
            piece = Piece(f"Drawn from silence, {number + 1}", file, scores.get(file.stem))
            section.pieces.append(piece)


def called(words: Sequence[str]) -> dict[str, Any]:
    """Run a command as the shell would; return its JSON."""
    cli.say(f"$ cgrnn {shlex.join(words)}")
    result: dict[str, Any] = json.loads(cli.run([*words, "--json"]))
    return result


def _facts(one: Evaluated) -> list[tuple[str, str]]:
    """What a reader asks first of a run."""
    from cgrnn.models import MODELS

    found, scores = one.found, one.found["log_likelihood"]
    about = " ".join((MODELS[found["model"]].__doc__ or "").split()).split(". ")[0]
    facts = [
        ("model", f"{found['model']}: {about}"),
        ("run", f"{one.run}, epoch {found['epoch']}, {found['parameters']:,} parameters"),
        ("likelihood", f"{scores['kind']}, by {scores['estimator']}"),
        ("measured by", found["command"]),
    ]
    if scores["bounds"]:
        bounds = (f"{name} {value:.3f}" for name, value in scores["bounds"].items())
        facts.append(("lower bounds", ", ".join(bounds)))
    if scores["chains"]:
        effort = (
            f"{scores['chains']} chains × {scores['levels']} levels on "
            f"{scores['frames_estimated']} frames, {scores['ess']} chains effective; annealing in "
            f"reverse lies {-scores['reverse_gap']:+.3f} nats a frame from the figure"
        )
        facts.append(("log Z", effort))
    chains = found["chains"] or {"warning": ""}
    warnings = [*scores["warnings"], chains["warning"]]
    return facts + [("warning", text) for text in warnings if text]
