"""FullCRF: gradients, the energy it minimises, windows and ConvCRF as its limits, its presets, refusals, fit."""

import copy

import numpy as np
import oracles
import pytest
import torch
from planted import planted, wrong
from torch.func import functional_call

from pipeline import systems
from pipeline.core import settings
from pipeline.core.errors import SettingsError
from pipeline.systems.convcrf import ConvCRF
from pipeline.systems.fullcrf import FullCRF

CONFIG = settings.ROOT / "config" / "systems"
PRESETS = ("fullcrf", "fullcrf_densecrf")
POSITIVE = FullCRF.positive
MODES = ("none", "symmetric", "after", "before")
CPU = torch.device("cpu")


def preset(name="fullcrf", **changed):
    values = settings.read(CONFIG / f"{name}.yaml", "systems").plain()
    fit = values["fit"] | changed.pop("fit", {})
    return settings.check(values | {"fit": fit} | changed, "systems", where="a test")


def tiny(**changed):
    """Settings whose every part is felt on an image of a few pixels."""
    felt = {"filter": "exact", "iterations": 3, "theta_alpha": 2.0, "theta_beta": 60.0, "theta_gamma": 1.5}
    return preset(**(felt | {"appearance_weight": 1.2, "smoothness_weight": 0.7, "temperature": 1.3} | changed))


def case(height=4, width=5, classes=3, batch=1):
    """Draw images (B 3 H W), 0..255, and log-probabilities (B C H W), float64."""
    generator = torch.Generator().manual_seed(11)
    images = torch.rand(batch, 3, height, width, generator=generator, dtype=torch.float64) * 255
    scores = torch.randn(batch, classes, height, width, generator=generator, dtype=torch.float64)
    return images, scores.log_softmax(dim=1)


# The model


@pytest.mark.parametrize("changed", [{}, {"filter": "window", "filter_size": 3}, {"normalisation": "after"}])
def test_gradient_of_all_iterations(changed):
    crf = FullCRF(tiny(iterations=2, **changed, fit={"parameters": dict.fromkeys(POSITIVE, 1)}), 3, {}).double()
    images, log_probability = case(3, 4)
    names = [f"log_{name}" for name in POSITIVE]
    inputs = [getattr(crf, name).detach().clone().requires_grad_() for name in names]

    def scores(log_probability, *values):
        return functional_call(crf, dict(zip(names, values, strict=True)), (images, log_probability))

    assert torch.autograd.gradcheck(scores, (log_probability.requires_grad_(), *inputs))


@pytest.mark.parametrize("exclude_self", [False, True])
@pytest.mark.parametrize("mode", MODES)
def test_minimises_the_potts_energy(mode, exclude_self):
    chosen = tiny(normalisation=mode, exclude_self=exclude_self)
    images, log_probability = case()
    positions = oracles.positions(*images.shape[-2:])
    colours = images[0].numpy() / chosen.theta_beta
    appearance = oracles.kernel_matrix(np.concatenate([positions / chosen.theta_alpha, colours]))
    smoothness = oracles.kernel_matrix(positions / chosen.theta_gamma)
    matrix = chosen.appearance_weight * oracles.normalised(appearance, mode, exclude_self)
    matrix = matrix + chosen.smoothness_weight * oracles.normalised(smoothness, mode, exclude_self)
    unary = (log_probability / chosen.temperature)[0].numpy()
    expected = oracles.mean_field(unary, matrix, 1 - np.eye(3), chosen.iterations)
    found = FullCRF(chosen, 3, {}).double()(images, log_probability).softmax(dim=1)[0].detach().numpy()
    # The parameters went through a float32 logarithm: 6e-8 of each, times scores up to about 20.
    assert np.abs(found - expected).max() < 1e-5
    assert np.abs(found - oracles.softmax(unary)).max() > 1e-2


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_window_over_the_whole_image_is_exact(mode, dtype):
    images, log_probability = (x.to(dtype) for x in case(6, 9))
    window = tiny(filter="window", filter_size=2 * 9 - 1, normalisation=mode)
    found = FullCRF(window, 3, {}).to(dtype)(images, log_probability).softmax(dim=1)
    expected = FullCRF(tiny(normalisation=mode), 3, {}).to(dtype)(images, log_probability).softmax(dim=1)
    assert (found - expected).abs().max() <= 1e-5
    narrow = FullCRF(tiny(filter="window", filter_size=3, normalisation=mode), 3, {}).to(dtype)
    assert (narrow(images, log_probability).softmax(dim=1) - expected).abs().max() > 1e-3


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("exclude_self", [False, True])
def test_a_convcrf_whose_window_is_huge_is_this(mode, exclude_self):
    images, log_probability = case(6, 9)
    chosen = tiny(normalisation=mode, exclude_self=exclude_self).plain()
    only_here = ("system", "preset", "filter", "filter_size", "smoothness", "fit")
    values = settings.read(CONFIG / "convcrf.yaml", "systems").plain()
    values |= {key: value for key, value in chosen.items() if key not in only_here} | {"filter_size": 17, "blur": 1}
    convcrf = ConvCRF(settings.check(values, "systems", where="a test"), 3, {}).double()
    expected = FullCRF(tiny(normalisation=mode, exclude_self=exclude_self), 3, {}).double()(images, log_probability)
    found = convcrf(images, log_probability)
    assert (found.softmax(dim=1) - expected.softmax(dim=1)).abs().max() <= 1e-5


def test_the_lattice_is_near_the_exact_filter():
    sample, unaries = planted(3)
    lattice, exact = (systems.build(preset(filter=name), 2, CPU) for name in ("lattice", "exact"))
    labels = [system.refine(sample.image, unaries) for system in (lattice, exact)]
    assert (labels[0] != labels[1]).mean() < 0.02
    unary = systems.build(settings.read(CONFIG / "unary.yaml", "systems"), 2, CPU)
    assert (unary.refine(sample.image, unaries) != labels[1]).mean() > 0.1


def test_what_is_read_on_the_host_is_what_the_parameter_is():
    crf = FullCRF(tiny(theta_gamma=1.5), 3, {})
    with torch.inference_mode():
        assert float(crf.on_host("theta_gamma")) == float(crf.value("theta_gamma"))
        assert crf.on_host("theta_gamma") is crf.on_host("theta_gamma")
    crf.set("theta_gamma", 4.0)
    assert float(crf.on_host("theta_gamma")) == float(crf.value("theta_gamma")) == pytest.approx(4)
    crf.set("theta_gamma", 9.0)
    assert float(copy.deepcopy(crf).on_host("theta_gamma")) == pytest.approx(9)
    assert crf.double().on_host("theta_gamma").dtype == torch.float64
    # Numbers met in inference mode serve where gradients are wanted.
    images, log_probability = case()
    crf(images, log_probability.requires_grad_()).sum().backward()
    learnt = FullCRF(tiny(fit={"parameters": {"theta_gamma": 1}}), 3, {})
    assert learnt.on_host("theta_gamma").requires_grad


def test_exact_is_no_other_in_ten_bits():
    """On a CPU the same numbers; on a GPU `test_cuda.test_all_pairs_in_ten_bits` bounds the difference."""
    sample, unaries = planted(3)
    exact, short = (systems.build(preset(filter=name), 2, CPU) for name in ("exact", "exact_tf32"))
    assert (exact.refine(sample.image, unaries) == short.refine(sample.image, unaries)).all()


def test_trace_holds_the_energies_of_every_iteration():
    images, log_probability = case()
    crf, trace = FullCRF(tiny(), 3, {}).double(), []
    parts = log_probability, crf.appearance(images, None), crf.smoothness(images)
    with_trace = crf.scores(*parts, trace=trace)
    assert torch.equal(with_trace, crf.scores(*parts))
    assert [line["iteration"] for line in trace] == [1, 2, 3]
    # Symmetrically normalised Gaussians are positive definite: the energy falls.
    free = [line["free_energy"] for line in trace]
    assert free[0] > free[1] > free[2]


# The system


@pytest.mark.parametrize("filter", ["lattice", "exact", "window"])
def test_fit_solves_a_planted_problem(filter):
    names = ["appearance_weight", "smoothness_weight", "temperature"]
    names += ["theta_gamma"] if filter == "lattice" else ["theta_alpha", "theta_beta", "theta_gamma"]
    weak = {"filter": filter, "appearance_weight": 1.0, "smoothness_weight": 0.3, "theta_alpha": 10.0}
    chosen = preset(**weak, fit={"parameters": dict.fromkeys(names, 1), "epochs": 15, "batch": 2, "learning_rate": 0.1})
    system = systems.build(chosen, 2, CPU)
    curve = list(system.fit([planted(0), planted(1)], seed=0))
    assert len(curve) == 15
    assert curve[-1]["loss"] < 0.8 * curve[0]["loss"]
    for name in POSITIVE:
        # Far above what the float32 logarithm and back makes of a value that stays, 1e-7.
        assert (abs(system.state()[name] / chosen[name] - 1) > 1e-4) == (name in names)
    unary = systems.build(settings.read(CONFIG / "unary.yaml", "systems"), 2, CPU)
    sample, unaries = planted(2)
    assert wrong(system, sample, unaries) < 0.5 * wrong(unary, sample, unaries)
    assert wrong(system, sample, unaries) <= wrong(systems.build(chosen, 2, CPU), sample, unaries)


@pytest.mark.parametrize(
    ("changed", "name", "fixed"),
    [
        ({"filter": "lattice"}, "theta_alpha", "theta_alpha, theta_beta"),
        ({"filter": "lattice"}, "theta_beta", "theta_alpha, theta_beta"),
        ({"filter": "exact", "smoothness": "lattice"}, "theta_gamma", "theta_gamma"),
        ({"filter": "lattice", "smoothness": "lattice"}, "theta_gamma", "theta_alpha, theta_beta, theta_gamma"),
    ],
)
def test_a_lattice_does_not_fit_bandwidths(changed, name, fixed):
    with pytest.raises(SettingsError) as error:
        systems.build(preset(**changed, fit={"parameters": {"temperature": 1, name: 1}}), 2, CPU)
    assert str(error.value) == (
        f"key 'fit.parameters': found '{name}' with a lattice, which has no gradient to it, expected parameters other "
        f"than {fixed}; take it out, or choose filter: window or exact and smoothness: separable"
    )


@pytest.mark.parametrize(
    ("filtered", "smoothness"), [("lattice", "separable"), ("exact", "lattice"), ("lattice", "lattice")]
)
def test_a_lattice_does_not_leave_a_pixel_out(filtered, smoothness):
    with pytest.raises(SettingsError) as error:
        systems.build(preset(exclude_self=True, filter=filtered, smoothness=smoothness), 2, CPU)
    assert str(error.value) == (
        f"key 'exclude_self': found true with filter: {filtered} and smoothness: {smoothness}, expected false, as a "
        "lattice cannot tell a pixel's share of its own sum; set it to false, or choose filter: window or exact and "
        "smoothness: separable"
    )


@pytest.mark.parametrize(
    ("key", "value"),
    [("filter", "grid"), ("filter_size", 4), ("smoothness", "exact"), ("clip", 1), ("theta_gamma", 0), ("blur", 4)],
)
def test_settings_that_do_not_fit_are_refused(key, value):
    with pytest.raises(SettingsError, match=key):
        preset(**{key: value})


def test_state_builds_the_same_system_again():
    chosen = preset(fit={"epochs": 2, "batch": 2})
    system = systems.build(chosen, 2, CPU)
    assert len(list(system.fit([planted(0), planted(1)], seed=0))) == 2
    again = systems.build(chosen, 2, CPU, system.state())
    sample, unaries = planted(3)
    assert np.array_equal(again.refine(sample.image, unaries), system.refine(sample.image, unaries))
    assert again.state() == pytest.approx(system.state(), rel=1e-6)
    assert system.state()["temperature"] != pytest.approx(chosen.temperature, rel=1e-3)


def test_fit_is_deterministic():
    curves = [
        list(systems.build(preset(fit={"epochs": 2}), 2, CPU).fit([planted(0), planted(1)], seed=5)) for _ in range(2)
    ]
    assert curves[0] == curves[1]


@pytest.mark.parametrize("name", PRESETS)
def test_presets_fit_and_refine(name):
    chosen = preset(name)
    system = systems.build(chosen, 2, CPU)
    curve = list(system.fit([planted(0)], seed=0))
    assert len(curve) == chosen.fit.epochs
    sample, unaries = planted(1, (13, 18))
    labels = system.refine(sample.image, unaries)
    assert (labels.shape, labels.dtype) == ((13, 18), np.uint8)
    assert wrong(system, sample, unaries) < 0.5 * float((unaries.scores.argmax(dim=0).numpy() != sample.truth).mean())


def test_the_second_preset_is_what_the_library_does():
    chosen = preset("fullcrf_densecrf")
    assert (chosen.filter, chosen.smoothness, chosen.normalisation) == ("lattice", "lattice", "symmetric")
    assert (chosen.appearance_weight, chosen.smoothness_weight) == (10, 3)
    assert (chosen.theta_alpha, chosen.theta_beta, chosen.theta_gamma) == (80, 13, 3)
    assert (chosen.clip, chosen.iterations, chosen.fit.parameters) == (1e-5, 5, {})
