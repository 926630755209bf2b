"""ConvCRF: gradient through all iterations, the energy it minimises, its symmetries, its presets, its fit."""

import builders
import numpy as np
import oracles
import pytest
import torch
from planted import planted, wrong
from torch.autograd import gradcheck
from torch.func import functional_call

from pipeline import systems
from pipeline.core import settings
from pipeline.core.errors import SettingsError
from pipeline.core.grids import Grid
from pipeline.core.settings import Settings
from pipeline.core.unaries import Unaries
from pipeline.systems.convcrf import ConvCRF

CONFIG = settings.ROOT / "config" / "systems"
PRESETS = ("convcrf", "convcrf_paper", "convcrf_released")
POSITIVE = ConvCRF.positive
MODES = ("none", "symmetric", "after", "before")
CPU = torch.device("cpu")
# Sums of ≲ 100 numbers of size ≲ 100 in another order, over a few iterations, in float64.
ROUNDING = 1e-10


def preset(name="convcrf", **changed):
    values = settings.read(CONFIG / f"{name}.yaml", "systems").plain()
    fit = {key: value for key, value in values["fit"].items() if key != "watch"} | changed.pop("fit", {})
    return settings.check(values | {"fit": fit} | changed, "systems", where="a test")


def tiny(**changed):
    """Settings whose every part is felt on an image of a few pixels."""
    felt = {"filter_size": 5, "blur": 1, "iterations": 3, "theta_alpha": 2.0, "theta_beta": 60.0, "theta_gamma": 1.5}
    return preset(**(felt | {"appearance_weight": 1.2, "smoothness_weight": 0.7, "temperature": 1.3} | changed))


def model(chosen):
    return ConvCRF(chosen, 3, {}).double()


def case(height=4, width=5, classes=3, batch=1):
    """Draw images (B 3 H W), 0..255, and log-probabilities (B C H W), float64."""
    generator = torch.Generator().manual_seed(11)
    images = torch.rand(batch, 3, height, width, generator=generator, dtype=torch.float64) * 255
    scores = torch.randn(batch, classes, height, width, generator=generator, dtype=torch.float64)
    return images, scores.log_softmax(dim=1)


# The model


@pytest.mark.parametrize(
    "chosen",
    [
        *({"normalisation": mode} for mode in MODES),
        {"blur": 2},
        {"combine": "mix"},
        {"start": "log_softmax", "appearance_position": False},
    ],
)
def test_gradient_of_all_iterations(chosen):
    used = [name for name in POSITIVE if name not in model(tiny(**chosen, fit={"parameters": {}})).unused()]
    crf = model(tiny(iterations=2, **chosen, fit={"parameters": dict.fromkeys(used, 1)}))
    images, log_probability = case(3, 4)
    names = [f"log_{name}" for name in used]
    inputs = [getattr(crf, name).detach().clone().requires_grad_() for name in names]

    def scores(log_probability, *values):
        return functional_call(crf, dict(zip(names, values, strict=True)), (images, log_probability))

    assert gradcheck(scores, (log_probability.requires_grad_(), *inputs))


def test_every_learnt_parameter_gets_a_gradient():
    crf = model(tiny())
    images, log_probability = case()
    crf(images, log_probability)[:, 0].sum().backward()
    moved = {name for name in POSITIVE if getattr(crf, f"log_{name}").grad is not None}
    assert moved == set(tiny().fit.parameters)
    assert all(getattr(crf, f"log_{name}").grad.abs() > 1e-6 for name in moved)


@pytest.mark.parametrize("mode", MODES)
def test_minimises_the_potts_energy(mode):
    """The message added to the scores does what the penalty 1 − I subtracts, term by term."""
    chosen = tiny(normalisation=mode)
    images, log_probability = case()
    height, width = images.shape[-2:]
    positions = np.stack(np.meshgrid(np.arange(height), np.arange(width), indexing="ij")).astype(np.float64)
    colours = images[0].numpy() / chosen.theta_beta
    appearance = oracles.kernel_matrix(np.concatenate([positions / chosen.theta_alpha, colours]), 2)
    smoothness = oracles.kernel_matrix(positions / chosen.theta_gamma, 2)
    matrix = chosen.appearance_weight * oracles.normalised(appearance, mode)
    matrix = matrix + chosen.smoothness_weight * oracles.normalised(smoothness, mode)
    unary = (log_probability / chosen.temperature)[0].numpy()
    expected = oracles.mean_field(unary, matrix, 1 - np.eye(3), chosen.iterations)
    found = model(chosen)(images, log_probability).softmax(dim=1)[0].detach().numpy()
    # The parameters went through a float32 logarithm: 6e-8 of each, times scores up to about 20.
    assert np.abs(found - expected).max() < 1e-5
    assert np.abs(found - oracles.softmax(unary)).max() > 1e-2


def test_classes_are_treated_alike():
    images, log_probability = case()
    crf, order = model(tiny()), [2, 0, 1]
    found = crf(images, log_probability[:, order])
    assert (found - crf(images, log_probability)[:, order]).abs().max() <= ROUNDING


@pytest.mark.parametrize("axes", [(-1,), (-2,), (-2, -1)])
def test_mirrored_images_give_mirrored_scores(axes):
    images, log_probability = case()
    crf = model(tiny())
    found = crf(images.flip(axes), log_probability.flip(axes))
    assert (found - crf(images, log_probability).flip(axes)).abs().max() <= ROUNDING


def test_a_batch_is_its_images_one_by_one():
    images, log_probability = case(batch=2)
    crf = model(tiny(blur=2))
    both = crf(images, log_probability)
    for image in range(2):
        part = slice(image, image + 1)
        assert (crf(images[part], log_probability[part]) - both[part]).abs().max() <= ROUNDING


@pytest.mark.parametrize("blur", [1, 2, 3, 4, 8])
@pytest.mark.parametrize(("height", "width"), [(7, 10), (9, 5), (8, 8), (3, 1)])
def test_any_blur_fits_any_image(blur, height, width):
    images, _ = case(height, width)
    constant = torch.tensor([0.2, 0.5, 0.3], dtype=torch.float64).log().view(1, 3, 1, 1).expand(1, 3, height, width)
    found = model(tiny(blur=blur))(images, constant)
    assert found.shape == (1, 3, height, width)
    # Every pixel knows the same, and `after` makes the weights of its neighbours sum to 1.
    assert (found - found[..., :1, :1]).abs().max() <= ROUNDING


@pytest.mark.parametrize("blur", [2, 4])
def test_the_blurred_grid_lies_on_the_image(blur):
    """A mirrored image of whole cells gives mirrored scores only if no cell is shifted on the way back."""
    images, log_probability = case(2 * blur, 3 * blur)
    crf = model(tiny(blur=blur))
    found = crf(images.flip(-1, -2), log_probability.flip(-1, -2)).flip(-1, -2)
    assert (found - crf(images, log_probability)).abs().max() <= ROUNDING


def test_temperature_trusts_the_crf_more():
    images, log_probability = case()
    cold, hot = (
        model(tiny(temperature=value, iterations=0))(images, log_probability).softmax(dim=1) for value in (1.0, 4.0)
    )
    assert hot.amax(dim=1).mean() < cold.amax(dim=1).mean()


def test_state_replaces_settings():
    crf = ConvCRF(tiny(), 3, {"theta_beta": np.float32(7.5)})
    # One float32 logarithm and exponential.
    assert crf.value("theta_beta").item() == pytest.approx(7.5, rel=1e-6)
    assert crf.value("theta_gamma").item() == pytest.approx(1.5, rel=1e-6)


# The system


def fitted(chosen, seed=0):
    torch.manual_seed(seed + 100)
    system = systems.build(chosen, 2, CPU)
    return list(system.fit([planted(0), planted(1)], seed=0)), system


@pytest.mark.parametrize("loss", ["cross_entropy", "soft_jaccard"])
def test_fit_solves_a_planted_problem(loss):
    chosen = tiny(
        appearance_weight=0.5,
        smoothness_weight=0.2,
        theta_alpha=10.0,
        fit={"loss": loss, "epochs": 15, "batch": 2, "learning_rate": 0.1},
    )
    before = systems.build(chosen, 2, CPU)
    curve, system = fitted(chosen)
    assert len(curve) == 15
    assert curve[-1]["loss"] < 0.8 * curve[0]["loss"]
    for name in chosen.fit.parameters:
        # Far above what the float32 logarithm and back makes of a value that stays, 1e-7.
        assert abs(system.state()[name] / chosen[name] - 1) > 1e-4
    assert system.state()["unary_weight"] == pytest.approx(chosen.unary_weight)
    unary = systems.build(settings.read(CONFIG / "unary.yaml", "systems"), 2, CPU)
    sample, unaries = planted(2)
    assert wrong(system, sample, unaries) < 0.5 * wrong(unary, sample, unaries)
    assert wrong(system, sample, unaries) <= wrong(before, sample, unaries)


def test_fit_is_deterministic():
    chosen = preset(fit={"epochs": 2, "batch": 1})
    assert fitted(chosen, seed=0)[0] == fitted(chosen, seed=1)[0]


def test_what_is_not_named_is_not_moved():
    _, system = fitted(preset(fit={"parameters": {"theta_beta": 1}, "epochs": 2}))
    # Through the float32 logarithm and back.
    kept = [name for name in POSITIVE if name != "theta_beta"]
    assert all(system.state()[name] == pytest.approx(preset()[name], rel=1e-6) for name in kept)
    assert system.state()["theta_beta"] != pytest.approx(preset().theta_beta, rel=1e-3)


def test_state_builds_the_same_system_again():
    chosen = preset(fit={"epochs": 2, "batch": 2})
    _, system = fitted(chosen)
    again = systems.build(chosen, 2, CPU, system.state())
    sample, unaries = planted(3)
    assert np.array_equal(again.refine(sample.image, unaries), system.refine(sample.image, unaries))
    assert again.state() == pytest.approx(system.state(), rel=1e-6)


def test_no_iteration_gives_the_unary_labels():
    sample, unaries = planted(0)
    unary = systems.build(settings.read(CONFIG / "unary.yaml", "systems"), 2, CPU)
    crf = systems.build(preset(iterations=0), 2, CPU)
    expected = unary.refine(sample.image, unaries)
    assert np.array_equal(crf.refine(sample.image, unaries), expected)
    assert not np.array_equal(systems.build(preset(), 2, CPU).refine(sample.image, unaries), expected)


@pytest.mark.parametrize("name", PRESETS)
def test_presets_fit_and_refine(name):
    chosen = preset(name)
    chosen = preset(name, fit={"epochs": min(chosen.fit.epochs, 1)})
    system = systems.build(chosen, 2, CPU)
    curve = list(system.fit([planted(0)], seed=0))
    assert len(curve) == chosen.fit.epochs
    sample, unaries = planted(1, (13, 18))
    labels = system.refine(sample.image, unaries)
    assert (labels.shape, labels.dtype) == ((13, 18), np.uint8)
    assert set(np.unique(labels)) <= {0, 1}


@pytest.mark.parametrize("filter_size", [5, 7, 11, 13, 15])
@pytest.mark.parametrize("name", ["convcrf_paper", "convcrf_released"])
def test_systems_of_table_1_are_the_presets_with_another_window_and_no_fit(name, filter_size):
    other = {"filter_size": filter_size, "fit": {"parameters": {}, "epochs": 0, "batch": 1}}
    assert preset(f"{name}_{filter_size}") == preset(name, **other)


def test_unaries_of_a_coarse_grid_are_refined_at_image_size():
    sample = builders.sample("a", 1, (22, 31))
    scores = torch.from_numpy(builders.scores_of(sample.truth, 4, seed=2, stride=8))
    unaries = Unaries(scores, "logits", Grid("cells", 8))
    assert systems.build(preset(), 4, CPU).refine(sample.image, unaries).shape == (22, 31)


# Every system


@pytest.mark.parametrize("path", sorted(CONFIG.glob("*.yaml")), ids=lambda path: path.stem)
def test_settings_files_are_valid_and_build(path):
    chosen = settings.read(path, "systems")
    system = systems.build(chosen, 3, CPU)
    assert all(isinstance(value, np.floating | np.ndarray) for value in system.state().values())


def test_unary_learns_nothing():
    system = systems.build(settings.read(CONFIG / "unary.yaml", "systems"), 2, CPU)
    assert (list(system.fit([planted(0)], seed=0)), system.state()) == ([], {})
    sample, unaries = planted(0)
    assert np.array_equal(system.refine(sample.image, unaries), unaries.scores.argmax(dim=0).numpy())


def test_an_unknown_system_is_refused_with_the_nearest():
    with pytest.raises(SettingsError, match=r"system: found 'convcrv', .*did you mean 'convcrf'\?"):
        systems.build(Settings({"system": "convcrv"}), 2, CPU)
