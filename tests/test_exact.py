"""Enumeration against a partition function computed another way."""

from __future__ import annotations

import pytest
import torch
from densities import LAYERS, random_density, random_layer

from cgrnn.layers import BernoulliRBM, BinarySpikeSlabRBM
from evaluation import exact


def test_rbm_against_the_sum_over_hidden_states():
    for seed in range(20):
        density = random_density(BernoulliRBM, 7, 4, seed)
        hidden = exact.all_frames(4)
        drive = hidden @ density.W.T + density.visible_bias
        other = hidden @ density.hidden_bias + torch.nn.functional.softplus(drive).sum(-1)
        assert exact.log_partition(density) == pytest.approx(float(other.logsumexp(0)), abs=1e-8)


def test_spike_slab_against_the_closed_form_of_one_visible_unit():
    for seed in range(20):
        density = random_density(BinarySpikeSlabRBM, 1, 2, seed)
        w, alpha, mu = density.W[0], density.alpha, density.mu
        volume = (2 * torch.pi / alpha).sqrt().prod()
        off = (1 + density.hidden_bias.exp()).prod()
        on = (1 + (mu * w + w**2 / (2 * alpha) + density.hidden_bias).exp()).prod()
        z = volume * (off + on * density.visible_bias.exp()[0])
        assert exact.log_partition(density) == pytest.approx(float(z.log()), abs=1e-8)


@pytest.mark.parametrize("kind", LAYERS)
def test_blocks_and_batches_do_not_matter(kind):
    layer = kind(15, 3, context_dim=2).double()  # two blocks of frames
    context = torch.randn(2, 3, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    together = exact.log_partition(layer(context))
    assert together.shape == (2, 3)
    assert together[1, 2] == pytest.approx(float(exact.log_partition(layer(context[1, 2]))))


def test_too_many_units_are_refused_with_the_limit():
    with pytest.raises(ValueError, match="limited to 20 visible units, got 21"):
        exact.log_partition(random_layer(BernoulliRBM, 21, 2, 0)(None))
