"""One loop over all models: what each must do, whatever its density and its transition."""

from __future__ import annotations

import itertools
import math
from types import SimpleNamespace

import pytest
import torch
from densities import generator

from cgrnn.models import (
    CGRNN,
    LGSSM,
    LSTMNADE,
    MODELS,
    NASMC,
    RNN,
    RNNGMM,
    RNNNADE,
    RNNRBM,
    RNNRNADE,
    RNNSSRBM,
    SRNN,
    STORN,
    TSBN,
    VRNN,
    RecurrentModel,
    ZForcing,
)
from evaluation import exact

STATES = {"latent_dim": 3, "recurrent_dim": 5}
LATENT = STATES | {"feature_dim": 4}
RECURRENT = {"recurrent_dim": 5, "mlp_dims": (7,), "dropout": 0.0}
VARIANTS = [
    *(
        (kind, {"hidden_dim": 4, "feedback": feedback, "latents": latents, "cell": cell})
        for kind, feedback, latents, cell in itertools.product(
            (CGRNN, RNNRBM), ("visible", "latent", "full"), ("mean", "sample"), ("gru", "lstm")
        )
    ),
    (RNNSSRBM, {"hidden_dim": 4}),
    *((RNN, {"cell": cell}) for cell in ("gru", "lstm", "tanh")),
    (RNN, {"layers": 2, "cell": "lstm"}),
    (RNNNADE, {"hidden_dim": 4}),
    *(
        (CGRNN, {"hidden_dim": 4, "visible": "continuous", "construction": how, "latents": latents})
        for how, latents in itertools.product(("by spike", "spectral"), ("mean", "sample"))
    ),
    (RNNSSRBM, {"hidden_dim": 4, "visible": "continuous"}),
    (RNNRBM, {"hidden_dim": 4, "visible": "continuous", "feedback": "full"}),
    (RNN, {"visible": "continuous"}),
    (RNNGMM, {"components": 3}),
    (RNNRNADE, {"hidden_dim": 4, "components": 2}),
    *(
        (kind, sizes | {"visible": visible})
        for visible in ("binary", "continuous")
        for kind, sizes in (
            (LSTMNADE, {"hidden_dim": 4, "window": 3, "layers": 2}),
            (TSBN, {"latent_dim": 3, "baseline_dim": 4}),
            (STORN, {"latent_dim": 3, "recurrent_dim": 5}),
            (VRNN, LATENT),
            *(
                (SRNN, STATES | {"mlp_dim": 4, "inference": how, "residual": residual})
                for how, residual in itertools.product(("smoothing", "filtering"), (True, False))
            ),
            (ZForcing, LATENT),
            (NASMC, LATENT | {"particles": 4}),
        )
    ),
    (LGSSM, {"latent_dim": 3}),
]
every_model = pytest.mark.parametrize(
    ("kind", "options"),
    VARIANTS,
    ids=lambda value: value.name if isinstance(value, type) else "-".join(map(str, value.values())),
)


def make(kind, options, std=0.5, **sizes):
    torch.manual_seed(0)
    recurrent = RECURRENT if issubclass(kind, RecurrentModel) else {}
    model = kind(**({"visible_dim": 6} | recurrent | options | sizes)).double()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=std)
    model.sweeps = 20
    return model


def exact_estimate(density, generator=None):
    log_z = exact.log_partition(density)
    return SimpleNamespace(log_z=log_z, log_weights=log_z.expand(2, *log_z.shape))


def frames_and_lengths(model):
    frames = torch.bernoulli(torch.full((3, 5, 6), 0.4), generator=generator(0)).double()
    if model.visible == "continuous":
        frames = torch.randn(3, 5, 6, generator=generator(0)).double()
    lengths = torch.tensor([5, 3, 4])
    return frames * (torch.arange(5) < lengths[:, None])[..., None], lengths


@every_model
def test_every_parameter_gets_a_gradient(kind, options):
    model = make(kind, options)
    model.loss(*frames_and_lengths(model), generator=generator(1)).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


@every_model
def test_padding_changes_nothing(kind, options):
    model = make(kind, options | {"latents": "mean"} if "latents" in options else options)
    frames, lengths = frames_and_lengths(model)
    padded = torch.cat([frames, torch.ones(3, 4, 6, dtype=torch.float64)], 1)

    def scores(frames, lengths):
        chosen = model.scored(lengths, frames.shape[1])
        return model.scores(frames, lengths, chosen, exact_estimate, generator(1)).log_prob

    short = scores(frames, lengths)
    assert len(short) == 12
    assert torch.allclose(short, scores(padded, lengths))
    if isinstance(model, RecurrentModel):  # others draw as many latents as there are sequences
        assert torch.allclose(short[5:8], scores(frames[1:2, :3], lengths[1:2]))
    if not model.has_chains:
        losses = [model.loss(f, lengths, generator(1)) for f in (frames, padded)]
        assert torch.allclose(*losses)


@every_model
def test_given_frames_are_told_and_not_scored(kind, options):
    model = make(kind, options | {"latents": "mean"} if "latents" in options else options)
    frames, lengths = frames_and_lengths(model)
    chosen = model.scored(lengths, 5)
    whole = model.scores(frames, lengths, chosen, exact_estimate, generator(1)).log_prob
    model.given_frames = 2
    later = model.scored(lengths, 5)
    assert later.sum() == chosen.sum() - 6
    some = model.scores(frames, lengths, later, exact_estimate, generator(1)).log_prob
    if isinstance(model, RecurrentModel):
        assert torch.allclose(some, whole[later[chosen]])
    walk = model.walk(frames, lengths, 3, generator(1), exact.log_partition)
    weights = [walk.step() for _ in range(5)]
    assert not weights[0].any() and not weights[1].any() and weights[2].all()


@every_model
def test_prediction_never_sees_the_frame_it_predicts(kind, options):
    model = make(kind, options)
    frames, _ = frames_and_lengths(model)
    changed = frames.clone()
    changed[:, 2] = 1 - changed[:, 2]
    before = model.predict(frames, generator(3), samples=200)
    after = model.predict(changed, generator(3), samples=200)
    assert before.shape == (200, 3, 5, 6)
    assert torch.equal(before[:, :, :3], after[:, :, :3])


@every_model
def test_generation_keeps_the_prime_and_draws_frames_of_its_kind(kind, options):
    model = make(kind, options, std=0.2)  # larger ones let deviations fed by frames run away
    frames, _ = frames_and_lengths(model)
    drawn = model.generate(4, 3, frames, generator(0))
    assert drawn.shape == (3, 9, 6)
    assert torch.equal(drawn[:, :5], frames)
    assert drawn.isfinite().all()
    assert (model.visible == "binary") == (set(drawn.unique().tolist()) <= {0.0, 1.0})
    assert not torch.equal(drawn, model.generate(4, 3, frames, generator(1)))
    assert torch.equal(drawn, model.generate(4, 3, frames, generator(0)))
    assert model.generate(2, 4, generator=generator(0)).shape == (4, 2, 6)


@every_model
def test_features_and_reconstructions_have_their_shapes(kind, options):
    model = make(kind, options)
    frames, lengths = frames_and_lengths(model)
    features = model.features(frames, generator(0), lengths)
    assert features.shape[:2] == (3, 5) and features.shape[2] in (3, 4, 5)
    assert model.reconstruct(frames, generator(0), samples=2).shape == (2, 3, 5, 6)


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        (kind, options)
        for kind, options in VARIANTS
        if options.get("latents") != "sample"
        and issubclass(kind, RecurrentModel)
        and "binary" in kind.kinds
        and options.get("visible") != "continuous"
    ],
    ids=str,
)
def test_likelihood_of_all_sequences_sums_to_one(kind, options):
    """Two keys and three frames: 64 sequences, all that can happen."""
    model = make(kind, options, visible_dim=2)
    sequences = torch.tensor(list(itertools.product((0.0, 1.0), repeat=6))).double().view(64, 3, 2)
    likelihood = model.log_likelihood(sequences, torch.full((64,), 3), exact.log_partition)
    assert likelihood.kind == ("estimate" if model.has_latents else "exact")
    assert likelihood.log_prob.view(64, 3).sum(1).logsumexp(0) == pytest.approx(0.0, abs=1e-10)


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        (kind, options)
        for kind, options in VARIANTS
        if options.get("latents") != "sample"
        and issubclass(kind, RecurrentModel)
        and (kind.kinds == ("continuous",) or options.get("visible") == "continuous")
    ],
    ids=str,
)
def test_likelihood_of_all_continuous_pairs_integrates_to_one(kind, options):
    """One unit and two frames on a grid, finer than the narrowest conditional is wide."""
    model = make(kind, options, visible_dim=1)
    line = torch.linspace(-60, 60, 1201).double()
    pairs = torch.cartesian_prod(line, line).view(-1, 2, 1)
    total = []
    for some in pairs.split(1201 * 100):
        likelihood = model.log_likelihood(some, torch.full((len(some),), 2), exact.log_partition)
        total.append(likelihood.log_prob.view(-1, 2).sum(1))
    mass = torch.cat(total).logsumexp(0) + 2 * math.log(0.1)
    assert mass == pytest.approx(0.0, abs=1e-4)


def test_generated_frames_follow_the_models_own_likelihood():
    """First frames and pairs of frames drawn, against their exact probabilities."""
    model = make(CGRNN, {"hidden_dim": 3}, visible_dim=2)
    count = 20_000
    drawn = model.generate(2, count, generator=generator(0)).view(count, 4)
    sequences = torch.tensor(list(itertools.product((0.0, 1.0), repeat=4))).double()
    likelihood = model.log_likelihood(
        sequences.view(16, 2, 2), torch.full((16,), 2), exact.log_partition
    )
    p = likelihood.log_prob.view(16, 2).sum(1).exp()
    place = (drawn @ torch.tensor([8.0, 4.0, 2.0, 1.0]).double()).long()
    seen = torch.bincount(place, minlength=16) / count
    assert ((seen - p).abs() < 5 * (p * (1 - p) / count).sqrt() + 1e-9).all()


def test_sampled_feedback_is_a_lower_bound_of_its_own_mixture():
    """E[log p(v|h,s)] averaged over draws lies under the log of the averaged likelihood."""
    model = make(CGRNN, {"hidden_dim": 3, "latents": "sample"}, visible_dim=2)
    frames = torch.tensor([[[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]]]).double().expand(4000, 3, 2)
    likelihood = model.log_likelihood(
        frames, torch.full((4000,), 3), exact.log_partition, generator(0)
    )
    assert likelihood.kind == "lower bound"
    total = likelihood.log_prob.view(4000, 3).sum(1)
    assert total.std() > 0.01
    assert total.mean() < total.logsumexp(0) - math.log(4000)


def test_reconstruction_keeps_what_prediction_cannot_know():
    """Frames independent in time: strong couplings copy a frame that the past does not tell."""
    model = make(CGRNN, {"hidden_dim": 8}, visible_dim=8)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
        model.layer.W.copy_(8 * torch.eye(8))
        model.layer.mu.fill_(1.0)
        model.layer.visible_bias.fill_(-5.0)
        model.layer.hidden_bias.fill_(-34.0)
    frames = torch.bernoulli(torch.full((4, 50, 8), 0.5), generator=generator(0)).double()
    kept = (model.reconstruct(frames, generator(1))[0] == frames).double().mean()
    known = (model.predict(frames, generator(1))[0] == frames).double().mean()
    assert kept > 0.9
    assert known < 0.7


@pytest.mark.parametrize("name", MODELS)
def test_bad_options_are_refused_by_name(name):
    with pytest.raises(ValueError, match=r"visible: expected '(binary|continuous|notes)'"):
        MODELS[name](visible="ternary")
    if not issubclass(MODELS[name], RecurrentModel):
        return
    with pytest.raises(ValueError, match="cell"):
        MODELS[name](cell="rnn")
    if MODELS[name]().has_latents:
        with pytest.raises(ValueError, match="feedback: expected one of visible, latent, full"):
            MODELS[name](feedback="none")
        with pytest.raises(ValueError, match="log_partition"):
            MODELS[name](visible_dim=2).log_likelihood(torch.zeros(1, 1, 2), torch.tensor([1]))


def test_prime_of_another_size_is_refused():
    with pytest.raises(ValueError, match="prime: frames of 5 units, but the model has 6"):
        make(RNN, {}).generate(1, prime=torch.zeros(3, 5).double())
