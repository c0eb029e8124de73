"""Densities at a temperature, against sums and integrals over all that they range over."""

import itertools
import math

import pytest
import torch
from densities import (
    BINARY,
    GAUSSIAN_SPIKE_SLAB,
    LAYERS,
    SPIKE_SLAB,
    generator,
    random_density,
    random_frames,
)

from cgrnn.layers import (
    NADE,
    RNADE,
    GaussianMixture,
    IndependentBernoulli,
    IndependentGaussian,
)
from cgrnn.models import CGRNN, LGSSM, RNN, RNNNADE, RNNRBM, VRNN, NoteRNN
from cgrnn.models.notes import CategoricalDensity, RoundedGaussianDensity

TEMPERATURES = (0.3, 2.5)


def every(size: int) -> torch.Tensor:
    """All binary vectors, `(2^size, size)`."""
    return torch.tensor(list(itertools.product((0.0, 1.0), repeat=size)), dtype=torch.float64)


def log_mass(kind: type, density, v: torch.Tensor, temperature: float) -> torch.Tensor:
    """`log Σ_h ∫ exp(-E(v, h, s)/T) ds` by the trapezium rule, `(frames,)`."""
    h = every(density.hidden_dim)
    if kind not in SPIKE_SLAB:
        return (-density.energy(v[:, None], h) / temperature).logsumexp(-1)
    line = torch.linspace(-24, 24, 161, dtype=torch.float64)
    s = torch.cartesian_prod(line, line)
    step = math.log(line[1] - line[0])
    parts = [
        (-density.energy(one, spikes.expand_as(s), s) / temperature).logsumexp(0)
        for one in v
        for spikes in h
    ]
    return torch.stack(parts).view(len(v), len(h)).logsumexp(-1) + density.hidden_dim * step


@pytest.mark.parametrize("temperature", TEMPERATURES)
@pytest.mark.parametrize("kind", LAYERS)
def test_free_energy_is_that_of_the_joint_energy_over_the_temperature(kind, temperature):
    density = random_density(kind, 4, 2, seed=3)
    v = every(4)[::3] if kind in BINARY else random_frames(kind, 4, 4, seed=1)
    tempered = density.at_temperature(temperature)
    expected = -log_mass(kind, density, v, temperature)
    torch.testing.assert_close(tempered.free_energy(v), expected, rtol=1e-8, atol=1e-8)
    assert type(tempered) is type(density)


@pytest.mark.parametrize("temperature", TEMPERATURES)
@pytest.mark.parametrize("kind", BINARY)
def test_probabilities_are_those_of_the_joint_energy_over_the_temperature(kind, temperature):
    density, v = random_density(kind, 4, 2, seed=5), every(4)
    expected = log_mass(kind, density, v, temperature).softmax(0)
    found = (-density.at_temperature(temperature).free_energy(v)).softmax(0)
    torch.testing.assert_close(found, expected, rtol=1e-8, atol=1e-12)
    assert (found - (-density.free_energy(v)).softmax(0)).abs().max() > 0.01


@pytest.mark.parametrize("kind", GAUSSIAN_SPIKE_SLAB)
def test_the_precision_given_spikes_is_divided_by_the_temperature(kind):
    density, h = random_density(kind, 5, 3, seed=2), every(3)
    tempered = density.at_temperature(4.0)
    torch.testing.assert_close(tempered.precision(h), density.precision(h) / 4.0)


@pytest.mark.parametrize("kind", LAYERS)
def test_temperature_commutes_with_annealing(kind):
    density, v = random_density(kind, 4, 3, seed=4), random_frames(kind, 6, 4, seed=2)
    one = density.annealed(0.6).at_temperature(2.0).free_energy(v)
    torch.testing.assert_close(one, density.at_temperature(2.0).annealed(0.6).free_energy(v))


def randomised(layer, seed: int = 0):
    with torch.no_grad():
        for parameter in layer.double().parameters():
            parameter.normal_(generator=generator(seed))
    return layer(None)


@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_independent_units_are_powers_of_themselves(temperature):
    v = every(4)
    density = randomised(IndependentBernoulli(4))
    expected = (density.log_prob(v) / temperature).log_softmax(0)
    torch.testing.assert_close(density.at_temperature(temperature).log_prob(v), expected)
    density, v = randomised(IndependentGaussian(4)), torch.randn(9, 4, dtype=torch.float64)
    found = density.at_temperature(temperature)
    off = found.log_prob(v) - density.log_prob(v) / temperature
    torch.testing.assert_close(off, off[:1].expand(9))  # up to the constant that normalises
    widened = (found.log_deviation - density.log_deviation).exp() ** 2
    torch.testing.assert_close(widened, torch.full_like(widened, temperature))


@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_conditionals_of_a_nade_are_powers_of_themselves(temperature):
    density, v = randomised(NADE(4, 3)), every(4)
    p = density.log_prob(v).exp()
    expected = torch.zeros(len(v), dtype=torch.float64)
    for d in range(4):
        both = []
        for value in (0.0, 1.0):
            agrees = (v[:, None, :d] == v[None, :, :d]).all(-1) & (v[:, d] == value)
            both.append((agrees * p).sum(-1).log() / temperature)
        chosen = torch.where(v[:, d] == 1, both[1], both[0])
        expected += chosen - torch.stack(both).logsumexp(0)
    torch.testing.assert_close(density.at_temperature(temperature).log_prob(v), expected)


def test_mixtures_of_one_component_are_gaussians():
    v = torch.randn(5, 3, dtype=torch.float64)
    mixture = randomised(GaussianMixture(3, 1)).at_temperature(2.5)
    plain = torch.distributions.Normal(mixture.means[0], mixture.log_deviations[0].exp())
    torch.testing.assert_close(mixture.log_prob(v), plain.log_prob(v).sum(-1))


def test_mixtures_scale_weights_and_variances():
    density = randomised(GaussianMixture(3, 4))
    found = density.at_temperature(2.5)
    assert torch.equal(found.means, density.means)
    torch.testing.assert_close(found.logits, density.logits / 2.5)
    widened = (found.log_deviations - density.log_deviations).exp() ** 2
    torch.testing.assert_close(widened, torch.full_like(widened, 2.5))
    density, v = randomised(RNADE(3, 4, 2)), torch.randn(5, 3, dtype=torch.float64)
    before = density.conditionals(v).chunk(3, -1)
    after = density.at_temperature(2.5).conditionals(v).chunk(3, -1)
    torch.testing.assert_close(after[0], before[0] / 2.5)
    torch.testing.assert_close(after[1], before[1])
    torch.testing.assert_close(after[2].exp() ** 2, before[2].exp() ** 2 * 2.5)


def test_notes_are_powers_of_themselves():
    density = CategoricalDensity(torch.tensor([[0.3, -1.0, 2.0]]))
    expected = (density.logits.log_softmax(-1) / 0.3).log_softmax(-1)
    torch.testing.assert_close(density.at_temperature(0.3).logits.log_softmax(-1), expected)
    rounded = RoundedGaussianDensity(torch.tensor([[5.0]]), torch.tensor(1.0), 11)
    spread = [rounded.at_temperature(t).sample((4000,), generator(0)).std() for t in (0.25, 1.0)]
    assert float(spread[0] / spread[1]) == pytest.approx(0.5, abs=0.05)


@pytest.mark.parametrize("wrong", [0.0, -1.0, math.inf, math.nan])
def test_other_temperatures_are_refused(wrong):
    for density in (random_density(LAYERS[0], 3, 2, 0), IndependentBernoulli(3)(None)):
        with pytest.raises(ValueError, match="temperature: expected a number above 0"):
            density.at_temperature(wrong)


def loud(model):
    """With parameters large enough for the temperature to tell."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.7, generator=generator(1))
    return model.eval()


MODELS = [
    loud(CGRNN(visible_dim=6, hidden_dim=4, recurrent_dim=5)),
    loud(RNNRBM(visible_dim=6, hidden_dim=4, recurrent_dim=5)),
    loud(RNN(visible_dim=6, recurrent_dim=5)),
    loud(RNNNADE(visible_dim=6, recurrent_dim=5, hidden_dim=4)),
    loud(VRNN(visible_dim=6, latent_dim=2, recurrent_dim=5, feature_dim=4)),
    loud(NoteRNN(classes=300, window=3, recurrent_dim=5)),
]


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.name)
def test_colder_music_has_fewer_frames_and_nothing_else_changes(model):
    model.sweeps = 20
    frames = model.generate(5, 2, generator=generator(0))

    def kinds(temperature: float) -> int:
        model.temperature = temperature
        return len(model.generate(4, 100, generator=generator(0)).flatten(0, 1).unique(dim=0))

    try:
        assert kinds(0.05) < kinds(1.0) < kinds(20.0)
        at_twenty = model.predict(frames, generator(2))
    finally:
        del model.temperature  # the class's own again
    assert torch.equal(at_twenty, model.predict(frames, generator(2)))
    assert torch.equal(frames, model.generate(5, 2, generator=generator(0)))


def test_a_state_space_model_spreads_its_frames_alone():
    model = loud(LGSSM(visible_dim=3, latent_dim=2)).double()
    cold, usual = [], []
    for temperature, into in ((1e-12, cold), (1.0, usual)):
        model.temperature = temperature
        into.append(model.generate(1, 20_000, generator=generator(0))[:, 0])
    emission, spread = model.emission.detach(), model.initial_deviation.detach()
    of_state = (emission * spread).square().sum(-1)
    torch.testing.assert_close(cold[0].var(0), of_state, rtol=0.05, atol=0)
    whole = of_state + model.visible_deviation.detach() ** 2
    torch.testing.assert_close(usual[0].var(0), whole, rtol=0.05, atol=0)
