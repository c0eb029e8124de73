"""The sequence models, by the name that `--model` takes."""

from __future__ import annotations

from typing import Any

from cgrnn.models.cgrnn import CGRNN, RNNSSRBM
from cgrnn.models.recurrent import RecurrentModel as RecurrentModel
from cgrnn.models.rnn import RNN, RNNGMM, RNNNADE, RNNRNADE
from cgrnn.models.rnn_rbm import RNNRBM
from cgrnn.models.sequence import SequenceModel as SequenceModel
from cgrnn.models.vrnn import VRNN

MODELS: dict[str, type[Any]] = {
    model.name: model for model in (CGRNN, RNNSSRBM, RNNRBM, RNN, RNNNADE, RNNGMM, RNNRNADE, VRNN)
}
