"""The sequence models, by the name that `--model` takes."""

from __future__ import annotations

from cgrnn.models.recurrent import CGRNN, RNN, RNNRBM, RecurrentModel

MODELS: dict[str, type[RecurrentModel]] = {model.name: model for model in (CGRNN, RNNRBM, RNN)}
