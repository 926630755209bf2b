"""Diffusion: rows of P, limits of μ and β, their symmetry in the first walk, the closed form, errors."""

import numpy as np
import oracles
import pytest
import torch
from observe import refusal

from pipeline.algorithms import diffusion
from pipeline.kernels.random_walk import AFFINITIES, random_walk, transition

affinities = pytest.mark.parametrize("affinity", AFFINITIES)
DOUBLE = {"dtype": torch.float64}


def drawn(classes=3, channels=4, height=4, width=5, levels=5, seed=0):
    generator = torch.Generator().manual_seed(seed)
    maps = torch.randn(2, classes, height, width, generator=generator, **DOUBLE)
    return maps, list(torch.randn(levels, 2, channels, height, width, generator=generator, **DOUBLE))


def last(states):
    *_, state = states
    return state


@affinities
def test_rows_sum_to_1(affinity):
    _, levels = drawn()
    for features in levels:
        rows = transition(features, torch.arange(20), affinity)
        assert (rows.sum(dim=(2, 3)) - 1).abs().max() <= 1e-14


@affinities
def test_a_cascade_is_the_formula_with_matrices(affinity):
    seed, levels = drawn()
    mu, beta = torch.rand(2, 5, **DOUBLE)
    found = last(diffusion.cascade(seed, levels, mu, beta, affinity))
    for image in range(2):
        start = seed[image].flatten(1).T.numpy()
        state = start
        for features, m, b in zip(levels, mu.tolist(), beta.tolist(), strict=True):
            matrix = oracles.transition_matrix(features[image].numpy(), affinity)
            state = b * (m * matrix @ state + (1 - m) * start) + (1 - b) * state
        assert np.abs(found[image].flatten(1).T.numpy() - state).max() <= 1e-13


def test_without_walks_the_seed_stays():
    seed, _ = drawn()
    assert torch.equal(last(diffusion.cascade(seed, [], torch.zeros(0), torch.zeros(0), "product")), seed)


def test_limits_of_mu_and_beta():
    seed, (features, *_) = drawn()
    before, beta = torch.randn_like(seed), torch.tensor(0.3, **DOUBLE)
    none, whole = torch.zeros(2, **DOUBLE)[0], torch.ones(2, **DOUBLE)[0]
    assert torch.equal(diffusion.walk(seed, before, features, none, beta, "product"), beta * seed + (1 - beta) * before)
    assert torch.equal(diffusion.walk(seed, before, features, beta, none, "product"), before)
    walked = random_walk(features, before)
    assert torch.equal(diffusion.walk(seed, before, features, whole, whole, "product"), walked)


@affinities
def test_mu_and_beta_of_the_first_walk_stay_equal_while_they_learn(affinity):
    seed, levels = drawn()
    logits = [torch.zeros(5, **DOUBLE, requires_grad=True) for _ in range(2)]
    optimiser = torch.optim.Adam(logits, lr=0.05)
    target = torch.randn_like(seed)
    for _ in range(50):
        optimiser.zero_grad()
        found = last(diffusion.cascade(seed, levels, *(each.sigmoid() for each in logits), affinity))
        (found - target).square().sum().backward()
        optimiser.step()
    mu, beta = (each.detach() for each in logits)
    assert mu[0].abs() > 0.5
    assert (mu[0] - beta[0]).abs() <= 1e-10
    assert (mu[1:] - beta[1:]).abs().min() > 1e-3


@affinities
def test_many_equal_walks_end_at_the_closed_form(affinity):
    seed, (features, *_) = drawn()
    mu = torch.tensor(0.7, **DOUBLE)
    expected = diffusion.limit(seed, features, mu, affinity)
    for beta, walks in ((1.0, 120), (0.4, 300)):
        states = diffusion.cascade(
            seed, [features] * walks, mu.expand(walks), torch.full((walks,), beta, **DOUBLE), affinity
        )
        assert (last(states) - expected).abs().max() <= 1e-12


@affinities
def test_the_closed_form_solves_its_equation(affinity):
    seed, (features, *_) = drawn()
    mu = torch.tensor(0.7, **DOUBLE)
    found = diffusion.limit(seed, features, mu, affinity)
    assert (diffusion.walk(seed, found, features, mu, torch.ones_like(mu), affinity) - found).abs().max() <= 1e-13


@affinities
def test_log_probabilities_walk_as_logits_do(affinity):
    """What a softmax takes off a position's scores walks along in all classes alike, so the labels do not change."""
    seed, levels = drawn()
    mu, beta = torch.rand(2, 5, **DOUBLE)
    logits, logs = (last(diffusion.cascade(x, levels, mu, beta, affinity)) for x in (seed, seed.log_softmax(dim=1)))
    assert (logits.softmax(dim=1) - logs.softmax(dim=1)).abs().max() <= 1e-13


@affinities
def test_gradients(affinity):
    seed, levels = drawn(classes=2, channels=2, height=2, width=3, levels=2)
    mu, beta = torch.rand(2, 2, **DOUBLE)
    given = [x.clone().requires_grad_() for x in (seed, mu, beta, *levels)]
    assert torch.autograd.gradcheck(lambda s, m, b, *each: last(diffusion.cascade(s, each, m, b, affinity)), given)


def test_features_are_brought_to_the_seeds_size():
    features = torch.arange(24.0).view(1, 1, 4, 6)
    assert diffusion.resized(features, (2, 3)).flatten().tolist() == [7, 9, 11, 19, 21, 23]
    assert diffusion.resized(features, (4, 6)) is features
    larger = diffusion.resized(features, (8, 12))
    assert larger.shape == (1, 1, 8, 12)
    assert (larger[0, 0, 0, 0], larger[0, 0, -1, -1], larger[0, 0, 1, 2]) == (0, 23, 0.25 * 6 + 0.75)


def test_influence_is_the_sum_of_absolute_scores():
    scores = torch.tensor([[[[1.0, -2.0]], [[-3.0, 0.5]]]])
    assert diffusion.Walked(scores, None, [], [], None, "product").influence().tolist() == [[[4.0, 2.5]]]


SEED, LEVELS = torch.zeros(1, 3, 4, 5), [torch.zeros(1, 8, 4, 5)] * 2
BAD = {
    "too few": (
        lambda: last(diffusion.cascade(SEED, LEVELS, torch.zeros(5), torch.zeros(5), "product")),
        "cascade: found 2 levels of features, 5 μ, 5 β, expected one of each for every walk; give each walk its level",
    ),
    "another stride": (
        lambda: last(diffusion.cascade(SEED[:, :, ::2], LEVELS, torch.zeros(2), torch.zeros(2), "product")),
        "cascade, walk 1: found features of 4 × 5 positions for a seed of 2 × 5, expected one stride; "
        "bring the features to the seed's size",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_refused_in_one_line(name):
    function, message = BAD[name]
    assert refusal(function) == message


def test_what_there_is_on_the_way():
    """Labels at the image's size, and the rows of the position that a pixel lies in."""
    seed, levels = drawn()
    mixing = torch.rand(2, 5, **DOUBLE)
    states = list(diffusion.cascade(seed, levels, *mixing, "product"))
    found = diffusion.Walked(seed, torch.ones_like(seed[:, :1]), states, levels, mixing, "product")
    labels = list(found.labels(lambda scores: scores.repeat_interleave(2, 2).repeat_interleave(2, 3)))
    assert len(labels) == 7
    assert all(each.shape == (8, 10) for each in labels)
    assert torch.equal(labels[0], labels[1])
    assert torch.equal(labels[0][::2, ::2], seed[0].argmax(dim=0))
    assert [found.position(pixel, (8, 10)) for pixel in ((0, 0), (7, 9), (3, 5))] == [0, 19, 7]
    rows = found.rows(torch.tensor([7]))
    assert [tuple(each.shape) for each in rows] == [(2, 1, 4, 5)] * 5
    expected = oracles.transition_matrix(levels[2][1].numpy())[7].reshape(4, 5)
    assert np.abs(rows[2][1, 0].numpy() - expected).max() <= 1e-14
