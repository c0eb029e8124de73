"""How training went."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes

from evaluation.figures.style import Figure, caption, line, sheet, styled, unmarked

Rows = Sequence[Mapping[str, float]]
_CONTRASTIVE = "contrastive"
LOSSES = {
    "estimate": f"{_CONTRASTIVE} loss",
    "exact": "negative log-likelihood",
    "lower bound": "negative bound",
}
"""What a model's training loss is, by the kind of its likelihood."""


@styled
def curves(runs: Mapping[str, Rows], losses: Mapping[str, str], frame: str = "frame") -> Figure:
    """Validation log-likelihood, training loss and, where there is one, the KL and its weight.

    Args:
        runs: name of each run and the rows of its `metrics.csv`.
        losses: what the loss of each run is, such as `LOSSES` names it.
        frame: what nats are counted by (`cgrnn.units.frame`).
    """
    latent = any("kl" in row for rows in runs.values() for row in rows)
    figure = sheet(134 if latent else 74)
    axes = figure.subplots(1 + latent, 2, squeeze=False)
    for number, (name, rows) in enumerate(runs.items()):
        _plot(axes[0, 0], rows, "valid_log_likelihood", name, number, marked=True)
        _plot(axes[0, 1], rows, "train_loss", f"{name}: {losses[name]}", number)
        if latent:
            _plot(axes[1, 0], rows, "kl", name, number)
            _plot(axes[1, 1], rows, "kl_weight", name, number)
    axes[0, 0].set(title="Validation log-likelihood", ylabel=f"nats a {frame}")
    axes[0, 1].set(title="Training loss", ylabel=f"nats a {frame}")
    if any(loss.startswith(_CONTRASTIVE) for loss in losses.values()):
        caption(figure, "A contrastive loss is no likelihood: compare models on the left.")
    if latent:
        axes[1, 0].set(title="KL of posterior from prior", ylabel="nats a frame")
        axes[1, 1].set(title="Weight of the KL in the loss", ylabel="weight", ylim=(0, 1.05))
    for axis in axes.flat:
        axis.set_xlabel("epoch")
        axis.locator_params(axis="x", integer=True)
        axis.grid(True)
        if axis.lines:
            axis.legend()
    return figure


def _plot(
    axis: Axes, rows: Rows, column: str, name: str, number: int, marked: bool = False
) -> None:
    known = [row for row in rows if column in row]
    if known:
        marked = marked or len(known) == 1
        look = line(number) if marked else unmarked(number)
        epochs = [row["epoch"] for row in known]
        axis.plot(epochs, [row[column] for row in known], label=name, **look)
