"""The sequence models, by the name that `--model` takes."""

from __future__ import annotations

from typing import Any

from cgrnn.models.cgrnn import CGRNN, RNNSSRBM
from cgrnn.models.lgssm import LGSSM
from cgrnn.models.lstm_nade import LSTMNADE
from cgrnn.models.nasmc import NASMC
from cgrnn.models.notes import NoteRNN
from cgrnn.models.recurrent import RecurrentModel as RecurrentModel
from cgrnn.models.rnn import RNN, RNNGMM, RNNNADE, RNNRNADE
from cgrnn.models.rnn_rbm import RNNRBM
from cgrnn.models.sequence import SequenceModel as SequenceModel
from cgrnn.models.srnn import SRNN
from cgrnn.models.storn import STORN
from cgrnn.models.tsbn import TSBN
from cgrnn.models.vrnn import VRNN
from cgrnn.models.z_forcing import ZForcing

MODELS: dict[str, type[Any]] = {
    model.name: model
    for model in (
        *(CGRNN, RNNSSRBM, RNNRBM, RNN, RNNNADE, LSTMNADE, RNNGMM, RNNRNADE),
        *(LGSSM, TSBN, STORN, VRNN, SRNN, ZForcing, NASMC, NoteRNN),
    )
}
