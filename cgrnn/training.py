"""Training with Lightning: the module, its validation by annealed importance sampling, the loop."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.strategies import DDPStrategy
from torch import Tensor
from torch.utils.data import DataLoader

from cgrnn.arithmetic import rounded_products
from cgrnn.batches import Batch, Batches, moved
from cgrnn.history import History
from cgrnn.models.recurrent import RecurrentModel
from cgrnn.models.sequence import SequenceModel, mask_of
from cgrnn.processes import means, rank, summed, world, world_here
from cgrnn.settings import TrainingOptions

MONITOR = "valid_log_likelihood"
_FINAL_RATE = 0.05
_OPTIMIZERS = {"adamw": torch.optim.AdamW, "adam": torch.optim.Adam, "sgd": torch.optim.SGD}

Arrays = tuple[Any, np.ndarray]
"""Frames of a split end to end, `(total, V)`, in memory or on disk, and its sequences' lengths."""


class Training(pl.LightningModule):
    """Trains a model by its own loss and watches the likelihood of fixed validation frames.

    All randomness of an epoch follows from the seed and the epoch's number, so that a run resumed
    from the last epoch's checkpoint goes on as if it had never stopped.

    Several processes share every batch: the gradient is the mean over all its frames, and what is
    measured is agreed on before anything is decided by it, so that all decide alike.

    Args:
        model: the model to train.
        train, valid: frames and lengths of the splits.
        normalisation: `mean` and `std` of the training frames, which the model sees as 0 and 1.
        options: how to train.
        estimate: gives the partition functions of a batch of energy densities, as an object with
            `log_z` `(B,)` and `log_weights` `(chains, B)`; called with a `generator`.
        head: what a checkpoint says of model and data (`cgrnn.checkpoint.describe`).
        draw: gives frames that are spread over the modes of energy densities as their mass is;
            each validation then says whether a mode far from the data has taken over.
    """

    def __init__(
        self,
        model: SequenceModel,
        train: Arrays,
        valid: Arrays,
        options: TrainingOptions,
        estimate: Callable[..., Any],
        head: dict[str, Any],
        normalisation: tuple[float, float] = (0.0, 1.0),
        draw: Callable[..., Tensor] | None = None,
    ) -> None:
        super().__init__()
        self.model, self.options, self.head = model, options, head
        self.train_arrays, self.valid_arrays, self.estimate = train, valid, estimate
        self.normalisation, self.draw = normalisation, draw
        self.chosen = _choose(len(valid[0]), options.valid_frames, model.has_chains)
        self.seconds_before, self.started, self.validation_seconds = 0.0, time.monotonic(), 0.0
        self.seconds_agreed = 0.0  # at the end of the last step
        self.budget_spent = 0.0  # seconds allowed, once they have ended a run
        self.steps_an_epoch = len(self._batches(epoch=0))
        self.steps_planned = options.max_epochs * self.steps_an_epoch
        if options.persistent:
            if not model.has_chains:
                raise ValueError(f"persistent: model {model.name!r} has no chains to keep")
            self.chains: Tensor
            self.register_buffer("chains", torch.from_numpy(self._chains_at_data()))
            self.drawn: Tensor  # whose chains this process has moved in this epoch
            drawn = torch.zeros(len(self.chains), dtype=torch.bool)
            self.register_buffer("drawn", drawn, persistent=False)

    @property
    def seconds(self) -> float:
        """Time trained, earlier parts of a resumed run included."""
        return self.seconds_before + time.monotonic() - self.started

    @property
    def seconds_allowed(self) -> float:
        return math.inf if self.options.max_minutes is None else 60 * self.options.max_minutes

    def _chains_at_data(self) -> np.ndarray:
        frames = np.array(self.train_arrays[0])
        if self.model.visible == "continuous":
            frames -= np.float32(self.normalisation[0])
            frames /= np.float32(self.normalisation[1])
        return frames

    def train_dataloader(self) -> DataLoader[Batch]:
        return self._loader(self._batches(self.current_epoch))

    def val_dataloader(self) -> DataLoader[Batch]:
        mean, std = self.normalisation
        options = self.options
        return self._loader(Batches(*self.valid_arrays, options.batch_size, mean=mean, std=std))

    def _loader(self, batches: Batches) -> DataLoader[Batch]:
        on_disk = not isinstance(batches.frames, np.ndarray)
        return DataLoader(
            batches,
            batch_size=None,  # they are batches already
            num_workers=int(on_disk) if self.options.workers is None else self.options.workers,
            pin_memory=self.device.type == "cuda",
            generator=torch.Generator(),  # it draws seeds for its workers; not from training's own
        )

    def _batches(self, epoch: int) -> Batches:
        options = self.options
        return Batches(
            *self.train_arrays,
            options.batch_size,
            options.segment_frames,
            options.transpose if self.model.visible == "binary" else 0,
            (options.seed, epoch),
            *self.normalisation,
            (rank(), world()),
            self.model.given_frames,
        )

    def configure_optimizers(self) -> Any:
        options = self.options
        optimizer = _OPTIMIZERS[options.optimizer](
            self.model.parameters(), lr=options.learning_rate, weight_decay=options.weight_decay
        )
        rates = {"constant": lambda step: 1.0, "cosine": self._rate, "exponential": self._decayed}
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, rates[options.schedule])
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": schedule, "interval": "step"},
        }

    def _rate(self, step: int) -> float:
        """Cosine from 1 to a twentieth over the epochs or the minutes, whichever end first."""
        done = min(1.0, max(step / self.steps_planned, self.seconds_agreed / self.seconds_allowed))
        return _FINAL_RATE + (1 - _FINAL_RATE) * 0.5 * (1 + math.cos(math.pi * done))

    def _decayed(self, step: int) -> float:
        """One, and from some epoch on less by a factor each epoch."""
        epochs = step // self.steps_an_epoch + 1 - self.options.decay_after
        return self.options.decay ** -max(0, epochs)

    def on_train_start(self) -> None:
        """A run resumed after it had ended stays as it is."""
        validated = self.validation_seconds > 0
        time_ended = self.budget_spent >= self.seconds_allowed
        patience_ended = any(
            stop.wait_count >= stop.patience for stop in self.trainer.early_stopping_callbacks
        )
        self.trainer.should_stop = patience_ended or (validated and time_ended)

    def on_train_epoch_start(self) -> None:
        torch.manual_seed(hash((self.options.seed, self.current_epoch)) + rank())
        if self.current_epoch + 1 == self.options.max_epochs:
            self.trainer.check_val_every_n_epoch = 1

    def on_train_batch_start(self, batch: Batch, index: int) -> None:
        if self.model.kl_weight is not None:
            options = self.options
            epochs = self.current_epoch + index / self.steps_an_epoch
            done = min(1.0, epochs / options.kl_epochs) if options.kl_epochs else 1.0
            self.model.kl_weight = options.kl_start + (1 - options.kl_start) * done

    def training_step(self, batch: Batch, index: int) -> Tensor:
        chains = None
        if self.options.persistent:
            chains = moved(self.chains[batch.rows], batch.shifts).to(batch.frames.dtype)
        with self._products():
            loss = self.model.loss(batch.frames, batch.lengths, chains=chains)
        measured = {"train_loss": loss.detach(), **self.model.monitored}
        measured = self._agreed(measured, batch.share)
        if not torch.isfinite(measured["train_loss"]):
            raise FloatingPointError(
                self._divergence(f"the loss is {measured['train_loss'].item()}")
            )
        if chains is not None and batch.share:
            inside = mask_of(batch.lengths, batch.frames.shape[1])
            back = moved(chains, -batch.shifts).to(self.chains.dtype)
            self.chains[batch.rows[inside]] = back[inside]
            self.drawn[batch.rows[inside]] = True
        self.log_dict(
            measured, batch_size=batch.sequences, on_epoch=True, on_step=False, prog_bar=True
        )
        if world() > 1 and batch.frames.shape[1] == 1:
            # Single frames give a recurrence no gradient, and the processes wait for each other's.
            loss = loss + 0.0 * sum(parameter.sum() for parameter in self.model.parameters())
        return loss * (world() * batch.share)  # lightning takes the mean over the processes

    def backward(self, loss: Tensor, *args: Any, **kwargs: Any) -> None:
        with self._products():
            super().backward(loss, *args, **kwargs)

    def _products(self) -> AbstractContextManager[None]:
        """The arithmetic of a training step; validation keeps the process's own."""
        return rounded_products(self.options.precision == "bf16")

    def _agreed(self, measured: dict[str, Tensor], share: float) -> dict[str, Tensor]:
        """Means over all frames of the batch; the model's running averages become theirs too."""
        averages = list(self.model.buffers())
        agreed = means([*measured.values(), *averages], share)
        for average, mean in zip(averages, agreed[len(measured) :], strict=True):
            average.copy_(mean)
        return dict(zip(measured, agreed, strict=False))

    def configure_gradient_clipping(self, *args: Any, **kwargs: Any) -> None:
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.options.clip_norm)
        if not torch.isfinite(norm):
            raise FloatingPointError(self._divergence(f"the gradient's norm is {norm.item()}"))

    def _divergence(self, what: str) -> str:
        """One line that says what happened, in which parameter, and what to do."""
        return (
            f"epoch {self.current_epoch}, step {self.global_step}: {what}; {_culprit(self.model)}; "
            "the checkpoints kept are from before; lower --learning-rate or --clip-norm"
        )

    def on_train_batch_end(self, *args: Any) -> None:
        """Stop early enough for the last validation to end in time."""
        if self.options.max_minutes is None:
            return
        self.seconds_agreed = self._over_processes(self.seconds)
        if self.seconds_agreed + 1.3 * self.validation_seconds > self.seconds_allowed:
            self.trainer.check_val_every_n_epoch = 1
            self.budget_spent = self.seconds_allowed
            self.trainer.should_stop = True

    def _over_processes(self, seconds: float) -> float:
        (mean,) = means([torch.tensor(seconds, device=self.device)], 1 / world())
        return float(mean)

    def on_train_epoch_end(self) -> None:
        """Called before the checkpoint is written: the last step's result is seen by no loss."""
        if self.options.persistent and world() > 1:
            self._exchange_chains()
        if not all(torch.isfinite(parameter).all() for parameter in self.model.parameters()):
            raise FloatingPointError(self._divergence("the last step spoilt the model"))

    def _exchange_chains(self) -> None:
        """Give every process the chains that the others have moved: no two had one frame."""
        theirs = summed(torch.where(self.drawn[:, None], self.chains, 0.0))
        drawn = summed(self.drawn.int()).bool()
        self.chains.copy_(torch.where(drawn[:, None], theirs, self.chains))
        self.drawn.zero_()

    def on_validation_epoch_start(self) -> None:
        self.validation_started = time.monotonic()
        self.scores = torch.zeros(2, dtype=torch.float64, device=self.device)
        self.spreads, self.missed = torch.zeros_like(self.scores), torch.zeros_like(self.scores)
        self.astray = torch.zeros_like(self.scores)

    def validation_step(self, batch: Batch, index: int) -> None:
        """Log-likelihood of the chosen frames; the same draws each time, whichever process scores
        the batch."""
        if index % world() != rank():
            return
        generator = torch.Generator(self.device).manual_seed(index)
        inside = self.model.scored(batch.lengths, batch.frames.shape[1])
        inside &= self.chosen.to(self.device)[batch.rows]
        if not inside.any():
            return
        found = self.model.scores(batch.frames, batch.lengths, inside, self.estimate, generator)
        self.scores += _total(found.log_prob)
        if found.spread is not None:
            self.spreads += _total(found.spread)
        if found.missed is not None:
            self.missed += _total(found.missed)
        if index == 0 and self.draw is not None and isinstance(self.model, RecurrentModel):
            own = torch.Generator(self.device).manual_seed(1)
            share = self.model.astray(batch.frames, batch.lengths, self.draw, own)
            self.astray += self.astray.new_tensor([share, 1.0])

    def on_validation_epoch_end(self) -> None:
        score, spread = (total / count for total, count in map(summed, (self.scores, self.spreads)))
        if not torch.isfinite(score):
            raise FloatingPointError(
                self._divergence(f"the validation log-likelihood is {score.item()}")
            )
        self.log(MONITOR, score.float(), prog_bar=True)
        if self.spreads[1]:
            self.log("valid_log_weight_std", spread.float())
        for name, sums in (("valid_missed", self.missed), ("valid_astray", self.astray)):
            share, count = summed(sums)
            if count:
                self.log(name, (share / count).float())
        seconds = time.monotonic() - self.validation_started
        self.validation_seconds = self._over_processes(seconds)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["cgrnn"] = self.head
        checkpoint["seconds"] = self.seconds
        checkpoint["validation_seconds"] = self.validation_seconds
        checkpoint["budget_spent"] = self.budget_spent

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.seconds_before = self.seconds_agreed = checkpoint["seconds"]
        self.validation_seconds = checkpoint["validation_seconds"]
        self.budget_spent = checkpoint["budget_spent"]
        self.started = time.monotonic()


def _total(values: Tensor) -> Tensor:
    """Their sum and how many they are, `(2,)` float64."""
    return torch.stack([values.double().sum(), values.new_tensor(len(values)).double()])


def _culprit(model: SequenceModel) -> str:
    """The first parameter gone wrong, in itself or in its gradient; or else the largest."""
    parameters = dict(model.named_parameters())
    for name, parameter in parameters.items():
        if not torch.isfinite(parameter).all():
            return f"first in parameter {name}"
    for name, parameter in parameters.items():
        if parameter.grad is not None and not torch.isfinite(parameter.grad).all():
            return f"first in the gradient of parameter {name}"
    name = max(parameters, key=lambda name: float(parameters[name].detach().abs().max()))
    return f"the largest is parameter {name}"


def _choose(total: int, wanted: int, costly: bool) -> Tensor:
    """Which validation frames are scored: all, unless partition functions cost too much."""
    chosen = torch.ones(total, dtype=torch.bool)
    if costly and wanted < total:
        order = torch.randperm(total, generator=torch.Generator().manual_seed(0))
        chosen[order[wanted:]] = False
    return chosen


def marginals(blocks: Iterable[np.ndarray]) -> Tensor:
    """How often each unit is on, smoothed so that a silent key keeps finite log-odds.

    Example:
        >>> marginals([np.array([[1, 0]]), np.array([[1, 0]])]).tolist()
        [0.75, 0.25]
    """
    on, frames = np.zeros(()), 0
    for block in blocks:
        on, frames = on + block.sum(axis=0, dtype=np.float64), frames + len(block)
    return torch.from_numpy((on + 1) / (frames + 2))


class _Checkpoint(ModelCheckpoint):
    """Remembers its best score also where the run was moved; lightning's own forgets it."""

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict | {"dirpath": self.dirpath})


def fit(
    training: Training, run: Path, resume: bool, say: Callable[[str], None], progress: bool
) -> Mapping[str, Any]:
    """Train until the epochs, the minutes or the patience end.

    Under `torchrun` its processes train together; the first one writes. A `FloatingPointError` is
    raised in all of them.

    Args:
        training: what to train.
        run: run directory; its `checkpoints/`, `metrics.csv` and `tensorboard/` are written.
        resume: go on from the last epoch's checkpoint where there is one.
        say: called with a line about each validation, in the first process.
        progress: show Lightning's progress bar.

    Returns:
        `epochs`, `best_epoch`, `valid` (best validation log-likelihood, nats a frame), `seconds`.
    """
    options, folder = training.options, run / "checkpoints"
    history = History(run / "metrics.csv", say, training.model.likelihood_kind)
    best = _Checkpoint(folder, "best", MONITOR, mode="max", enable_version_counter=False)
    last = _Checkpoint(
        folder, "last", every_n_epochs=1, save_on_train_epoch_end=True, enable_version_counter=False
    )
    trainer = pl.Trainer(
        accelerator=options.accelerator,
        devices=world_here(),
        num_nodes=world() // world_here(),
        # Running averages are agreed on each step, and chains each epoch.
        strategy=DDPStrategy(broadcast_buffers=False) if world() > 1 else "auto",
        use_distributed_sampler=False,  # the batches are shared out already
        precision="64-true" if options.precision == "64-true" else "32-true",
        max_epochs=options.max_epochs,
        min_epochs=0,
        check_val_every_n_epoch=options.validate_every,
        reload_dataloaders_every_n_epochs=1,
        num_sanity_val_steps=0,
        callbacks=[
            EarlyStopping(MONITOR, patience=options.patience, mode="max"),
            history,
            best,
            last,
        ],
        logger=TensorBoardLogger(str(run), name=None, version="tensorboard"),
        enable_model_summary=False,
        enable_progress_bar=progress,
        log_every_n_steps=1,
    )
    start = folder / "last.ckpt"
    trainer.fit(
        training, ckpt_path=start if resume and start.is_file() else None, weights_only=True
    )
    return {
        "epochs": trainer.current_epoch,
        "best_epoch": history.best_epoch,
        "valid": history.best,
        "seconds": round(training.seconds, 1),
    }
