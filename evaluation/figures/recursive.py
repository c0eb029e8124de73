"""How predictions fade when a model goes on from its own output."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from evaluation.figures.style import Figure, caption, line, sheet, styled

MEASURES = {"accuracy": ("frame accuracy (%)", 100.0), "rmse": ("RMSE (deviations)", 1.0)}


@styled
def recursive(
    runs: Mapping[str, Mapping[str, Any]], protocols: Mapping[str, Mapping[str, float]]
) -> Figure:
    """Accuracy, or error, of frames so many steps ahead, with a band of a standard error each way.

    Args:
        runs: name of each run and its `steps`, `stderr` and `accuracy` or `rmse`, of `(k,)`; all
            of one measure.
        protocols: for each run the figures of `prediction` and `reconstruction`, where known: they
            are marked at one step and at none.

    Raises:
        ValueError: when the runs have not one measure in common.
    """
    known = [name for name in MEASURES if all(name in found for found in runs.values())]
    if not known:
        raise ValueError(f"{', '.join(runs)}: not all accuracies nor all errors; plot them apart")
    label, factor = MEASURES[known[0]]
    figure = sheet(90)
    axis = figure.subplots()
    for number, (name, found) in enumerate(runs.items()):
        steps, values, error = (np.array(found[k], float) for k in ("steps", known[0], "stderr"))
        values, error, look = values * factor, error * factor, line(number)
        axis.plot(steps, values, label=name, **look)
        axis.fill_between(
            steps, values - error, values + error, color=look["color"], alpha=0.25, linewidth=0
        )
        hollow = {**look, "linestyle": "", "markersize": 7, "markerfacecolor": "none"}
        for step, protocol in ((0, "reconstruction"), (1, "prediction")):
            if protocol in protocols.get(name, {}):
                axis.plot([step], [factor * protocols[name][protocol]], **hollow)
    axis.set(xlabel="frames ahead on the model's own output", ylabel=label)
    axis.locator_params(axis="x", integer=True)
    axis.grid(True)
    axis.legend()
    caption(
        figure,
        "Bands: a standard error each way. Hollow marks: at 0 the reconstruction, which has seen "
        "the frame, and at 1 the prediction one frame ahead.",
    )
    return figure
