"""The run's `metrics.csv`: one row an epoch, kept through kills and resumes."""

from __future__ import annotations

import csv
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning.pytorch as pl

from cgrnn import units
from cgrnn.settings import MARKS

COLUMNS = (
    "epoch",
    "step",
    "seconds",
    "learning_rate",
    "train_loss",
    "valid_log_likelihood",
    "valid_log_weight_std",
)

SPREAD_ALLOWED = 1.0  # deviation of the log-weights beyond which few chains find log Z too low
ASTRAY_ALLOWED = 0.5  # share of the mass on frames larger than any of the data
KL_NEEDED = 0.01  # nats a frame below which latents tell next to nothing


class History(pl.Callback):
    """Keeps the rows in the checkpoint and rewrites the file whole after each epoch.

    Lightning's own CSV logger begins a new file when a run is resumed.

    Args:
        path: the file to write.
        say: called with a line about each validation.
        kind: of the model's likelihood.
    """

    def __init__(self, path: Path, say: Callable[[str], None], kind: str) -> None:
        self.path, self.say, self.kind = path, say, kind
        self.rows: list[dict[str, float]] = []

    @property
    def best(self) -> float | None:
        """Best validation log-likelihood so far, nats a frame as the model sees it."""
        scores = [row["valid_log_likelihood"] for row in self._validated]
        return max(scores, default=None)

    @property
    def best_epoch(self) -> int | None:
        rows = self._validated
        return (
            int(max(rows, key=lambda row: row["valid_log_likelihood"])["epoch"]) if rows else None
        )

    @property
    def _validated(self) -> list[dict[str, float]]:
        return [row for row in self.rows if "valid_log_likelihood" in row]

    def on_train_epoch_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        validated = (trainer.current_epoch + 1) % (trainer.check_val_every_n_epoch or 1) == 0
        measured = {
            name: float(value)
            for name, value in trainer.callback_metrics.items()
            if validated or not name.startswith("valid")
        }
        self.rows.append(
            {
                "epoch": trainer.current_epoch + 1,
                "step": trainer.global_step,
                "seconds": round(float(module.seconds), 1),  # type: ignore[arg-type]
                "learning_rate": trainer.optimizers[0].param_groups[0]["lr"],
                **measured,
            }
        )
        if not trainer.is_global_zero:
            return
        self._write()
        if validated:
            self.say(self._line(units.frame(*module.normalisation)))  # type: ignore[misc]

    def _line(self, frame: str) -> str:
        row = self.rows[-1]
        spread = row.get("valid_log_weight_std")
        quality = MARKS[self.kind]
        if "kl" in row:
            vanished = ": VANISHED, the latents tell nothing" if row["kl"] < KL_NEEDED else ""
            quality += f", KL {row['kl']:.3f} at weight {row['kl_weight']:.2f}{vanished}"
        if spread is not None:
            flatters = ": it flatters" if spread > SPREAD_ALLOWED else ""
            quality = f"≈, short AIS, deviation of log-weights {spread:.2f}{flatters}"
        missed = row.get("valid_missed", 0.0)
        if missed:
            quality += f"; ≤ on {missed:.0%} of the frames, where it misses a mode that is proven"
        line = (
            f"epoch {row['epoch']:4.0f}  {row['seconds'] / 60:5.1f} min  validation "
            f"{row['valid_log_likelihood']:.3f} nats a {frame} ({quality})"
        )
        astray = row.get("valid_astray", 0.0)
        if astray > ASTRAY_ALLOWED:
            line += (
                f"\nWARNING: {astray:.0%} of the model's mass lies on frames larger than any of "
                "the data: a mode far from the data has taken over; train anew with --restarts "
                "0.1, or more"
            )
        return line

    def _write(self) -> None:
        partial = self.path.with_suffix(".partial")
        with partial.open("w", newline="") as file:
            named = dict.fromkeys([*COLUMNS, *(name for row in self.rows for name in row)])
            writer = csv.DictWriter(file, list(named))
            writer.writeheader()
            writer.writerows(self.rows)
        os.replace(partial, self.path)

    def state_dict(self) -> dict[str, Any]:
        return {"rows": self.rows}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.rows = state["rows"]
