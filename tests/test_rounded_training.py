"""`train --precision bf16` rounds products in training steps, and nowhere else."""

from __future__ import annotations

import csv
import json

import pytest
import torch
from conftest import SMALL

from cgrnn import arithmetic
from cgrnn.models import CGRNN


def test_steps_round_and_validation_does_not(command, music, tmp_path, monkeypatch):
    rounded = {"loss": [], "scores": []}
    for name, seen in rounded.items():
        method = getattr(CGRNN, name)

        def watched(self, *args, method=method, seen=seen, **named):
            seen.append(arithmetic.product_dtype(args[0]) == torch.bfloat16)
            return method(self, *args, **named)

        monkeypatch.setattr(CGRNN, name, watched)
    losses, scores = {}, {}
    for precision in ("32-true", "bf16"):
        run = tmp_path / precision
        words = ["--max-epochs", 2, "--validate-every", 1, "--precision", precision, *SMALL]
        done = command("train", "--data", music, "-o", run, "--json", *words)
        assert done.code == 0, done.err
        with (run / "metrics.csv").open(newline="") as file:
            losses[precision] = [
                float(r["train_loss"]) for r in csv.DictReader(file) if r["train_loss"]
            ]
        scores[precision] = json.loads(done.out)["valid"]
        assert set(rounded["loss"]) == {precision == "bf16"} and set(rounded["scores"]) == {False}
        rounded["loss"].clear()
    assert losses["bf16"] != losses["32-true"]
    assert scores["bf16"] == pytest.approx(scores["32-true"], abs=0.1)
