"""Densities that break their contract are refused; those that keep it are not, whatever their
parameters."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace

import pytest
import strangers
import torch
from densities import (
    BINARY,
    CONTINUOUS,
    LAYERS,
    SPIKE_SLAB,
    SpectralSpikeSlabRBM,
    generator,
    random_density,
    random_frames,
    random_layer,
)
from strangers import Ising, IsingAsInherited, IsingRightBase, Potts
from torch.nn.functional import softplus

from cgrnn.layers import BernoulliRBM, BinarySpikeSlabRBM, GaussianRBM, GaussianSpikeSlabRBM
from cgrnn.layers.bernoulli_rbm import BernoulliRBMDensity, HiddenBernoulli
from cgrnn.layers.gaussian_rbm import GaussianEnergyDensity, GaussianRBMDensity
from evaluation import ais, contract, exact, nvil
from evaluation.proposals import BernoulliUnits, VariationalProposal
from samplers import contrastive_loss


def of_class(density, kind):
    return kind(**{field.name: getattr(density, field.name) for field in fields(density)})


def check_anew(density):
    """The check, as of a class that was never seen: it is made once for a class."""
    density = of_class(density, type("Anew", (type(density),), {}))
    contract.check(density)


def extremes(kind, seed):
    """Densities of one kind with parameters of all sizes."""
    random = generator(seed)
    visible, hidden = 1 + seed % 7, 1 + seed % 5
    for scale, batch in ((0.1, ()), (1.0, (3,)), (4.0, (2, 3))):
        layer = random_layer(kind, visible, hidden, seed, scale, context=2)
        u = torch.randn(*batch, 2, dtype=torch.float64, generator=random)
        yield layer(u)
        yield layer.float()(u.float())
        layer.double()
        if kind in SPIKE_SLAB:
            for alpha in (1e-2, 1e2):
                layer.log_alpha.fill_(math.log(alpha))
                yield layer(u)
            layer.log_alpha.normal_(std=2, generator=random)
            layer.mu.normal_(std=10, generator=random)
            yield layer(u)
        if kind in CONTINUOUS:
            layer.log_precision.normal_(std=3, generator=random)
            yield layer(u)
        layer.visible_bias.fill_(1e4 * (-1) ** seed)
        layer.hidden_bias.fill_(-1e4)
        yield layer(u)
        layer.W[1:] = 0
        yield layer(u)
        layer.W[:] = 0
        yield layer(u)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("kind", LAYERS)
def test_densities_with_parameters_of_any_size_are_accepted(kind, seed):
    for density in extremes(kind, seed):
        check_anew(density)


@pytest.mark.parametrize("kind", LAYERS)
def test_layers_as_they_begin_and_after_training_are_accepted(kind):
    layer, random = kind(12, 10, 3).double(), generator(0)
    v = random_frames(kind, 60, 12, 1)
    u = torch.randn(60, 3, dtype=torch.float64, generator=random)
    check_anew(layer(u))
    optimiser = torch.optim.Adam(layer.parameters(), lr=0.05)
    for _ in range(30):
        optimiser.zero_grad()
        contrastive_loss(layer(u), v, 1, random).mean().backward()
        optimiser.step()
    check_anew(layer(u))
    check_anew(layer(u[0]))


@pytest.mark.parametrize("kind", [BernoulliRBM, GaussianSpikeSlabRBM])
def test_large_layers_are_accepted(kind):
    check_anew(random_density(kind, 88, 60, 0, scale=0.3))


def refusal(density):
    """What the density is refused with."""
    with pytest.raises(ValueError) as caught:
        check_anew(density)
    text = str(caught.value)
    assert "should have" in text and "\n" not in text
    return text


def without(density, name):
    return replace(density, **{name: torch.zeros_like(getattr(density, name))})


# Faults: each makes methods of a class wrong, given the class.


def slabs_of_variance_alpha(kind):
    def sample_latents(self, v, generator=None, projected=None):
        h, s = kind.sample_latents(self, v, generator, projected)
        mean = h * self.slab_mean(v, projected)
        return h, mean + (s - mean) * self.alpha

    return {"sample_latents": sample_latents}


def slabs_without_noise(kind):
    def sample_latents(self, v, generator=None, projected=None):
        h, _ = kind.sample_latents(self, v, generator, projected)
        return h, h * self.slab_mean(v, projected)

    return {"sample_latents": sample_latents}


def slabs_without_mu(kind):
    def sample_latents(self, v, generator=None, projected=None):
        h, s = kind.sample_latents(self, v, generator, projected)
        return h, s - h * self.mu

    return {"sample_latents": sample_latents}


def free_energy_with_the_other_sign_of_the_hidden_bias(kind):
    """With a base that belongs to it, so that the base alone shows nothing."""

    def other(self):
        return replace(self, hidden_bias=-self.hidden_bias)

    return {
        "free_energy": lambda self, v, projected=None: kind.free_energy(other(self), v, projected),
        "base_log_partition": lambda self: kind.base_log_partition(other(self)),
    }


def free_energy_of_stronger_couplings(kind):
    def free_energy(self, v, projected=None):
        return kind.free_energy(replace(self, beta=1.1 * self.beta), v, projected)

    return {"free_energy": free_energy}


def free_energy_without_slab_volume(kind):
    def free_energy(self, v, projected=None):
        return kind.free_energy(self, v, projected) + self._log_slab_volume()

    return {"free_energy": free_energy}


def free_energy_with_twice_the_damping(kind):
    def free_energy(self, v, projected=None):
        return kind.free_energy(replace(self, damping=2 * self.damping), v)

    return {"free_energy": free_energy}


def base_without_hidden_units(kind):
    def base_log_partition(self):
        return kind.base_log_partition(self) - softplus(self.hidden_bias).sum(-1)

    return {"base_log_partition": base_log_partition}


def base_drawn_without_bias(kind):
    def sample_base(self, shape, generator=None):
        return kind.sample_base(without(self, "visible_bias"), shape, generator)

    return {"sample_base": sample_base}


def base_drawn_with_deviation_precision(kind):
    def sample_base(self, shape, generator=None):
        v, mean = kind.sample_base(self, shape, generator), self.visible_bias / self.precision_diag
        return mean + (v - mean) * self.precision_diag

    return {"sample_base": sample_base}


def frames_drawn_at_another_temperature(kind):
    def sample_visible(self, latents, generator=None):
        return kind.sample_visible(replace(self, beta=1.0), latents, generator)

    return {"sample_visible": sample_visible}


def frames_drawn_without_couplings(kind):
    def sample_visible(self, latents, generator=None):
        return kind.sample_visible(self, tuple(0 * one for one in latents), generator)

    return {"sample_visible": sample_visible}


def frames_drawn_with_one_number(kind):
    def sample_visible(self, latents, generator=None):
        mean = self.mean_visible(latents)
        return (torch.rand(mean.shape[:-1], generator=generator)[..., None] < mean).to(mean)

    return {"sample_visible": sample_visible}


def frames_drawn_with_deviation_precision(kind):
    def sample_visible(self, latents, generator=None):
        v, mean = kind.sample_visible(self, latents, generator), self.mean_visible(latents)
        return mean + (v - mean) * self.visible_precision(latents)

    return {"sample_visible": sample_visible}


def latents_drawn_without_couplings(kind):
    def sample_latents(self, v, generator=None, projected=None):
        return kind.sample_latents(replace(self, beta=0.0), v, generator, projected)

    return {"sample_latents": sample_latents}


def latents_drawn_at_another_temperature_by_products(kind):
    def sample_latents(self, v, generator=None, projected=None):
        other = self if projected is None else replace(self, beta=1.0)
        return kind.sample_latents(other, v, generator, projected)

    return {"sample_latents": sample_latents}


def latents_drawn_without_bias(kind):
    def sample_latents(self, v, generator=None, projected=None):
        return kind.sample_latents(without(self, "hidden_bias"), v, generator, projected)

    return {"sample_latents": sample_latents}


def latents_of_both_signs(kind):
    def sample_latents(self, v, generator=None, projected=None):
        h, *slabs = kind.sample_latents(self, v, generator, projected)
        return 2 * h - 1, *slabs

    return {"sample_latents": sample_latents}


def mean_without_bias(kind):
    def mean_visible(self, latents):
        return kind.mean_visible(without(self, "visible_bias"), latents)

    return {"mean_visible": mean_visible}


def precision_without_damping(kind):
    return {"visible_precision": lambda self, latents: self.precision_diag}


def products_after_annealing(kind):
    def project(self, v):
        found = kind.project(self, v)
        return (
            tuple(self.beta * one for one in found)
            if isinstance(found, tuple)
            else self.beta * found
        )

    return {"project": project}


def path_that_ends_elsewhere(kind):
    return {"tempered": lambda self, beta: without(kind.tempered(self, beta), "visible_bias")}


def sweep_at_another_temperature(kind):
    def gibbs_step(self, v, generator=None, projected=None):
        return kind.gibbs_step(replace(self, beta=1.0), v, generator, projected)

    return {"gibbs_step": gibbs_step}


def masses_without_biases(kind):
    return {
        "hidden_log_mass": lambda self, h: kind.hidden_log_mass(without(self, "hidden_bias"), h)
    }


def masses_of_weaker_couplings(kind):
    return {"hidden_log_mass": lambda self, h: kind.hidden_log_mass(self.annealed(0.8), h)}


def collapsed_draws_that_forget_the_slabs(kind):
    def sample_collapsed(self, h, generator=None):
        return self.sample_visible((h, self.mu.expand_as(h)), generator)

    return {"sample_collapsed": sample_collapsed}


FAULTS = {
    slabs_of_variance_alpha: SPIKE_SLAB,
    slabs_without_noise: SPIKE_SLAB,
    slabs_without_mu: SPIKE_SLAB,
    free_energy_with_the_other_sign_of_the_hidden_bias: LAYERS,
    free_energy_of_stronger_couplings: LAYERS,
    free_energy_without_slab_volume: SPIKE_SLAB,
    free_energy_with_twice_the_damping: [GaussianSpikeSlabRBM],
    base_without_hidden_units: LAYERS,
    base_drawn_without_bias: LAYERS,
    base_drawn_with_deviation_precision: CONTINUOUS,
    frames_drawn_at_another_temperature: LAYERS,
    frames_drawn_without_couplings: LAYERS,
    frames_drawn_with_one_number: BINARY,
    frames_drawn_with_deviation_precision: CONTINUOUS,
    latents_drawn_without_couplings: LAYERS,
    latents_drawn_at_another_temperature_by_products: LAYERS,
    latents_drawn_without_bias: LAYERS,
    latents_of_both_signs: LAYERS,
    mean_without_bias: LAYERS,
    precision_without_damping: [GaussianSpikeSlabRBM],
    products_after_annealing: LAYERS,
    path_that_ends_elsewhere: LAYERS,
    sweep_at_another_temperature: LAYERS,
    masses_without_biases: [BernoulliRBM, *CONTINUOUS],
    masses_of_weaker_couplings: [BernoulliRBM, *CONTINUOUS],
    collapsed_draws_that_forget_the_slabs: [SpectralSpikeSlabRBM],
}
# Where another method is named than the one that is at fault.
NAMED = {
    free_energy_with_the_other_sign_of_the_hidden_bias: "free_energy",
    free_energy_without_slab_volume: "base_log_partition",
    frames_drawn_without_couplings: "sample_visible",
    precision_without_damping: "mean_visible",
    products_after_annealing: "free_energy",
    latents_of_both_signs: "",
}


@pytest.mark.parametrize("fault", FAULTS)
def test_every_planted_fault_is_refused(fault):
    for kind in FAULTS[fault]:
        sound = random_density(kind, 6, 5, 0, scale=0.7)
        check_anew(sound)
        methods = fault(type(sound))
        faulty = dataclass(frozen=True, eq=False)(type("Faulty", (type(sound),), methods))
        named = NAMED.get(fault, next(iter(methods)))
        assert f"Anew.{named}" in refusal(of_class(sound, faulty))


@pytest.mark.parametrize("kind", LAYERS)
def test_a_fault_is_seen_in_a_layer_that_is_not_yet_trained(kind):
    """Its biases are 0, precisions 1 and couplings 0.01, which would hide it."""
    density = kind(20, 15)(None)
    for fault in (
        latents_drawn_without_bias,
        free_energy_with_the_other_sign_of_the_hidden_bias,
        frames_drawn_without_couplings,
        frames_drawn_at_another_temperature,
        *((slabs_of_variance_alpha,) if kind in SPIKE_SLAB else ()),
        *((base_drawn_with_deviation_precision,) if kind in CONTINUOUS else ()),
    ):
        faulty = type("Faulty", (type(density),), fault(type(density)))
        refusal(of_class(density, faulty))


def test_a_density_whose_units_depend_on_each_other_at_beta_0_is_refused():
    class Pairs(BernoulliRBMDensity):
        def _visible_energy(self, v):
            return super()._visible_energy(v) - v[..., 0] * v[..., 1]

    text = refusal(of_class(random_density(BernoulliRBM, 4, 3, 0), Pairs))
    assert "free_energy" in text and "not independent" in text


def test_a_density_that_cannot_be_normalised_at_beta_0_is_refused():
    density = random_density(GaussianRBM, 4, 3, 0)
    negative = replace(density, precision_diag=-density.precision_diag)
    assert "cannot be normalised" in refusal(negative)

    class Flat(type(density)):
        """Along "tempered" the precision goes to 0, too."""

        def tempered(self, beta):
            return replace(super().tempered(beta), precision_diag=beta * self.precision_diag)

    text = refusal(of_class(density, Flat))
    assert "tempered(0)" in text and "cannot be normalised" in text


ESTIMATES = (
    lambda density: ais.log_partition(density, 4, 3, generator(0)),
    lambda density: ais.reverse_log_partition(density, density.sample_base((4,)), 3, generator(0)),
    lambda density: exact.log_masses(density),
    lambda density: exact.sample(density, 2, generator(0)),
    lambda density: nvil.train(density, 1, generator(0)),
    lambda density: nvil.log_partition(
        density,
        VariationalProposal(density.flatten(), BernoulliUnits.of_base(density.flatten())),
        5,
        generator(0),
    ),
)


@pytest.mark.parametrize("estimate", ESTIMATES)
def test_no_estimator_takes_a_density_that_breaks_its_contract(estimate):
    with pytest.raises(ValueError, match=r"IsingAsInherited.base_log_partition: gave [-\d.]+ for"):
        estimate(strangers.random_of(IsingAsInherited, 6, 4, 0))
    with pytest.raises(ValueError, match=r"IsingRightBase.*should have given"):
        estimate(strangers.random_of(IsingRightBase, 6, 4, 0))
    estimate(strangers.random_of(Ising, 6, 4, 0))


def test_the_difference_is_named():
    density = strangers.random_of(IsingRightBase, 6, 4, 0)
    text = refusal(density)
    gave, right = (
        float(text.split(word)[1].split()[0]) for word in ("gave ", "should have given ")
    )
    assert abs(gave - right) > 0.1


@pytest.mark.parametrize("seed", range(4))
def test_annealing_of_a_strangers_densities_agrees_with_their_sum(seed):
    for kind, visible, states in ((Ising, 7, (-1.0, 1.0)), (Potts, 9, (0.0, 1.0))):
        density = strangers.random_of(kind, visible, 4, seed)
        check_anew(density)
        truth = strangers.log_partition(density, states)
        found = ais.log_partition(density, 200, 300, generator(seed))
        assert abs(float(found.log_z) - truth) < 6 * float(found.stderr) + 1e-3
        if kind is Ising:
            assert float(exact.log_partition(density)) == pytest.approx(truth, abs=1e-8)


def test_frames_that_are_not_declared_are_not_summed():
    density = strangers.random_of(Potts, 6, 4, 0)
    for estimate in ESTIMATES[2:]:
        with pytest.raises(ValueError, match=r"Potts.frames: is None, and (exact|nvil) must know"):
            estimate(density)


def test_one_hot_frames_are_not_binary():
    class Declared(Potts):
        frames = "binary"

    text = refusal(of_class(strangers.random_of(Potts, 6, 4, 0), Declared))
    assert "base_log_partition" in text and "{0, 1}^V" in text

    class Misspelt(Potts):
        frames = "onehot"

    with pytest.raises(ValueError, match=r"Misspelt.frames: is 'onehot', should be None"):
        contract.check(of_class(strangers.random_of(Potts, 6, 4, 0), Misspelt))


@pytest.mark.parametrize(
    "fault",
    [
        base_without_hidden_units,
        frames_drawn_without_couplings,
        latents_drawn_without_couplings,
        mean_without_bias,
        free_energy_of_stronger_couplings,
        lambda kind: {"base_log_partition": lambda self: softplus(self.hidden_bias).sum(-1)},
    ],
)
def test_faults_of_undeclared_frames_are_refused(fault):
    sound = strangers.random_of(Potts, 12, 6, 0)
    check_anew(sound)
    refusal(of_class(sound, type("Faulty", (Potts,), fault(Potts))))


def test_hidden_units_of_both_signs_are_annealed_but_not_enumerated():
    """Of continuous frames, `hidden_log_mass` is summed over {0, 1}."""

    class Signs(GaussianRBMDensity):
        energy = IsingAsInherited.energy
        field = IsingAsInherited.field
        hidden_logits = IsingAsInherited.hidden_logits
        sample_latents = IsingAsInherited.sample_latents
        free_energy = Ising.free_energy

        def base_log_partition(self):
            hidden = strangers.log_cosh(self.hidden_bias) - softplus(self.hidden_bias)
            return super().base_log_partition() + hidden.sum(-1)

    density = of_class(random_density(GaussianRBM, 4, 3, 0), Signs)
    text = refusal(density)
    assert "sample_latents: gave a hidden unit the value -1, should have given 0 or 1" in text
    check_anew(of_class(density, type("Undeclared", (Signs,), {"frames": None})))


def test_continuous_frames_that_are_not_integrated_are_annealed_alone():
    class Plain(GaussianEnergyDensity):
        energy, hidden_logits = HiddenBernoulli.energy, HiddenBernoulli.hidden_logits
        sample_latents, activation = HiddenBernoulli.sample_latents, HiddenBernoulli.activation
        _latent_input = HiddenBernoulli._latent_input

    sound = random_density(GaussianRBM, 5, 4, 0, scale=0.5)
    density = of_class(sound, Plain)
    with pytest.raises(ValueError, match=r"Plain.hidden_log_mass: is missing"):
        exact.log_partition(density)
    found = ais.log_partition(density, 100, 300, generator(0))
    assert abs(float(found.log_z - exact.log_partition(sound))) < 6 * float(found.stderr) + 1e-3


def test_a_class_is_checked_once_and_nothing_else_is_disturbed():
    calls = []

    class Counted(BernoulliRBMDensity):
        def energy(self, v, *latents):
            calls.append(torch.rand(1))  # from the global generator
            return super().energy(v, *latents)

    density = of_class(random_density(BernoulliRBM, 5, 4, 0), Counted)
    density = replace(density, weight=density.weight.requires_grad_())
    torch.manual_seed(3)
    before = torch.get_rng_state()
    contract.check(density)
    assert torch.equal(torch.get_rng_state(), before) and torch.is_grad_enabled()
    assert density.weight.grad is None
    made = len(calls)
    contract.check(density)
    assert len(calls) == made > 0


def test_without_couplings_a_class_is_not_cleared():
    sound = random_density(BinarySpikeSlabRBM, 6, 5, 0)
    methods = free_energy_of_stronger_couplings(type(sound))
    faulty = of_class(sound, type("Faulty", (type(sound),), methods))
    contract.check(without(faulty, "weight"))
    with pytest.raises(ValueError, match="free_energy"):
        contract.check(faulty)


def test_an_empty_batch_is_left_alone():
    contract.check(strangers.random_of(IsingAsInherited, 6, 4, 0, batch=(0,)))


def test_a_contextual_field_that_is_no_vector_is_named():
    density = random_density(GaussianRBM, 4, 3, 0)
    for shape in ((), (4, 4), (1, 4)):
        wrong = replace(density, precision_diag=torch.ones(shape, dtype=torch.float64))
        for use in (lambda density: density.flatten(), lambda density: density[None]):
            with pytest.raises(ValueError, match=r"precision_diag: .* of shape \(\*B, n\)"):
                use(wrong)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("kind", LAYERS)
def test_densities_on_a_gpu_are_accepted(kind):
    for layer in (kind(8, 6, 2), random_layer(kind, 8, 6, 0, context=2)):
        layer = layer.cuda()
        density = layer(torch.randn(3, 2, device="cuda", dtype=layer.W.dtype))
        state = torch.cuda.get_rng_state()
        check_anew(density)
        assert torch.equal(torch.cuda.get_rng_state(), state)
