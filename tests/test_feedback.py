"""What a layer feeds back is what its density expects of the latents, or the layer is refused."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from densities import LAYERS

from cgrnn import CGRNN
from cgrnn.layers import BernoulliRBM
from cgrnn.layers.bernoulli_rbm import BernoulliRBMDensity
from cgrnn.layers.conditional import ConditionalRBM, LatentDrive
from cgrnn.layers.energy import bernoulli
from cgrnn.layers.gaussian_rbm import GaussianLayer, GaussianRBMDensity
from cgrnn.layers.spike_slab import BinarySpikeSlabRBMDensity, SpikeSlabLayer


def anew(kind):
    """A class that was never seen: each is checked once."""
    return type("Anew", (kind,), {})


@pytest.mark.parametrize("sizes", [(1, 1, 1), (6, 5, 4), (40, 30, 20)])
@pytest.mark.parametrize("kind", LAYERS)
def test_the_layers_of_the_project_are_accepted(kind, sizes):
    layer = anew(kind)(*sizes)
    with torch.no_grad():
        layer.drive(torch.ones(2, sizes[0]), sample=False)


@dataclass(frozen=True, eq=False)
class PlusMinus(BernoulliRBMDensity):
    """Hidden units in {-1, +1}."""

    def hidden_logits(self, v, projected=None):
        return 2 * super().hidden_logits(v, projected)

    def sample_latents(self, v, generator=None, projected=None):
        return (2 * bernoulli(torch.sigmoid(self.hidden_logits(v, projected)), generator) - 1,)

    def activation(self, v, projected=None):
        return torch.tanh(self.hidden_logits(v, projected) / 2)


class PlusMinusLayer(ConditionalRBM):
    def _density(self, **fields):
        return PlusMinus(self.W, beta=1.0, **fields)


@dataclass(frozen=True, eq=False)
class Scaled(GaussianRBMDensity):
    """Coupled as `(v ⊙ Λ̃)ᵀW`: the context moves the logits by the precision, too."""

    def hidden_logits(self, v, projected=None):
        return self.hidden_bias + self.beta * ((v * self.precision_diag) @ self.weight)


class ScaledLayer(GaussianLayer):
    def _density(self, **fields):
        return Scaled(self.W, beta=1.0, **fields)


class HalfTheBias(BernoulliRBM):
    """Half of the context's share reaches the density."""

    def _contextual(self, context):
        fields = super()._contextual(context)
        if context is not None:
            fields["hidden_bias"] = 0.5 * (self.hidden_bias + fields["hidden_bias"])
        return fields


class SlabsWithoutMean(SpikeSlabLayer):
    def _density(self, **fields):
        slabs = {"alpha": self.log_alpha.exp(), "mu": self.mu}
        return BinarySpikeSlabRBMDensity(self.W, beta=1.0, **slabs, **fields)

    def _slabs(self, density, v, projected, sample, generator):
        return super()._slabs(density, v, projected, sample, generator) - density.mu


WRONG = (PlusMinusLayer, ScaledLayer, HalfTheBias, SlabsWithoutMean)


@pytest.mark.parametrize("sizes", [(6, 5, 4), (128, 250, 500)])
@pytest.mark.parametrize("kind", WRONG)
def test_a_layer_that_feeds_back_something_else_is_refused_each_time(kind, sizes):
    layer = anew(kind)(*sizes)
    for _ in range(2):
        with pytest.raises(
            ValueError, match=r"Anew.drive: feeds back [-\d.e]+ where \w+.activation"
        ):
            layer.drive(torch.ones(2, sizes[0]), sample=False)


class OwnDrive(BernoulliRBM):
    def drive(self, v, sample, generator=None):
        logits = self.hidden_bias + v @ self.W
        return LatentDrive(logits, torch.full_like(logits, 2), self.context_to_hidden.weight, None)


def test_a_model_refuses_a_layer_with_a_wrong_drive_of_its_own():
    model = CGRNN(visible_dim=6, hidden_dim=5, recurrent_dim=4)
    model.contexts(torch.ones(2, 3, 6))
    model.layer = OwnDrive(6, 5, 4)
    with pytest.raises(ValueError, match=r"OwnDrive.drive: feeds back"):
        model.contexts(torch.ones(2, 3, 6))


@pytest.mark.parametrize("kind", LAYERS)
def test_the_check_disturbs_nothing(kind):
    layer = anew(kind)(6, 5, 4)
    before = {name: value.clone() for name, value in layer.state_dict().items()}
    torch.manual_seed(1)
    state = torch.get_rng_state()
    drive = layer.drive(torch.ones(2, 6), sample=False)
    assert torch.equal(torch.get_rng_state(), state) and torch.is_grad_enabled()
    assert all(torch.equal(value, before[name]) for name, value in layer.state_dict().items())
    assert drive.logits.requires_grad and all(p.grad is None for p in layer.parameters())


def test_a_layer_that_cannot_be_copied_is_refused_with_the_reason():
    layer = anew(BernoulliRBM)(6, 5, 4)
    layer.lines = (line for line in "ab")
    with pytest.raises(TypeError, match=r"Anew: cannot be copied \(.*generator.*copy.deepcopy"):
        layer.drive(torch.ones(2, 6), sample=False)
    del layer.lines
    layer.drive(torch.ones(2, 6), sample=False)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("kind", LAYERS)
def test_a_layer_on_a_gpu_is_checked_on_a_copy(kind):
    layer, state = anew(kind)(6, 5, 4).cuda(), torch.cuda.get_rng_state()
    assert layer.drive(torch.ones(2, 6, device="cuda"), sample=False).logits.is_cuda
    assert torch.equal(torch.cuda.get_rng_state(), state)
