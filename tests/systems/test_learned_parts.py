"""What CRFs learn beyond numbers: weights by class, compatibility, positions, iterations of their own."""

import pytest
import torch
from learned import CLASSES, CPU, FREE, ROUNDING, all_of, case, chosen, convcrf, crfrnn, stirred
from planted import planted
from torch.autograd import gradcheck
from torch.func import functional_call

from pipeline import systems
from pipeline.core.errors import DataError

# Gradients of the whole unrolled system, in double, to every learnable part and to the unary


@pytest.mark.parametrize(
    "changed",
    [
        {},
        {"kernel_weights": "matrix"},
        {"kernel_weights": "scalar", "compatibility": "symmetric"},
        {"untied": True},
        {"normalise": "relu"},
        {"filter": "window", "filter_size": 3, "normalisation": "symmetric"},
        {"filter": "lattice", "smoothness": "lattice"},
        {"clip": 0.2},
    ],
    ids=lambda changed: "-".join(map(str, changed.values())) or "default",
)
def test_gradient_of_crfrnn(changed):
    learnt = all_of(crfrnn(**changed))
    if changed.get("filter") == "lattice":
        learnt = {name: rate for name, rate in learnt.items() if not name.startswith("theta")}
    crf = stirred(crfrnn(**changed, fit={"parameters": learnt})).train()
    assert _gradients_are_right(crf, learnt)


@pytest.mark.parametrize(
    "changed",
    [
        {},
        {"blur": 2},
        {"compatibility": "symmetric"},
        {"positions": FREE | {"other_sizes": "resample"}},
        {"combine": "mix"},
    ],
    ids=lambda changed: "-".join(changed) or "default",
)
def test_gradient_of_convcrf(changed):
    small = {"positions": FREE} | changed
    learnt = all_of(convcrf(**small))
    crf = stirred(convcrf(**small, fit={"parameters": learnt})).train()
    assert _gradients_are_right(crf, learnt)


def _gradients_are_right(crf, learnt):
    images, log_probability = case(3, 4)
    named = {name: value for name, value in crf.named_parameters() if value.requires_grad}
    assert {name.removeprefix("log_") for name in named} == set(learnt)
    inputs = [value.detach().clone().requires_grad_() for value in named.values()]

    def scores(log_probability, *values):
        return functional_call(crf, dict(zip(named, values, strict=True)), (images, log_probability))

    return gradcheck(scores, (log_probability.requires_grad_(), *inputs))


@pytest.mark.parametrize(
    ("build", "changed"),
    [
        (crfrnn, {}),
        (crfrnn, {"filter": "lattice"}),
        (crfrnn, {"kernel_weights": "matrix", "untied": True}),
        (convcrf, {"positions": FREE}),
        (convcrf, {"positions": FREE, "blur": 2}),
    ],
)
def test_recomputing_changes_no_gradient(build, changed):
    images, log_probability = case()
    found = []
    for recompute in (False, True):
        crf = stirred(build(**changed)).train()
        crf.recompute = recompute
        crf(images, log_probability)[:, 0].sum().backward()
        found.append({name: value.grad for name, value in crf.named_parameters() if value.requires_grad})
    assert all(torch.equal(found[0][name], found[1][name]) for name in found[0])


@pytest.mark.parametrize(
    ("build", "changed"),
    [
        (crfrnn, {"kernel_weights": "matrix", "untied": True}),
        (crfrnn, {"compatibility": "symmetric", "normalise": "relu"}),
        (crfrnn, {"filter": "lattice", "smoothness": "lattice", "clip": 1e-3}),
        (convcrf, {"positions": FREE}),
        (convcrf, {"positions": FREE, "blur": 2}),
    ],
)
def test_a_batch_is_its_images_one_by_one(build, changed):
    """Scores and gradients."""
    images, log_probability = (torch.cat([x, x.flip(2)]) for x in case())
    crf = stirred(build(**changed)).train()
    both = crf(images, log_probability)
    both.square().sum().backward()
    together = {name: value.grad.clone() for name, value in crf.named_parameters() if value.requires_grad}
    crf.zero_grad()
    for image in range(2):
        part = slice(image, image + 1)
        alone = crf(images[part], log_probability[part])
        assert (alone - both[part]).abs().max() <= ROUNDING
        alone.square().sum().backward()
    for name, value in crf.named_parameters():
        assert not value.requires_grad or (value.grad - together[name]).abs().max() <= 1e-6 * together[name].abs().max()


# Identities


@pytest.mark.parametrize("blur", [1, 2])
@pytest.mark.parametrize("name", ["convcrf_c", "convcrf_t", "convcrf_ct"])
def test_learnt_parts_begin_as_the_plain_model(name, blur):
    """+C as Potts, in the words of section 4.2 a 1 × 1 convolution; +T as the pixel grid."""
    images, log_probability = case(8, 9)
    plain = convcrf("convcrf", blur=blur)(images, log_probability).softmax(dim=1)
    found = convcrf(name, blur=blur)(images, log_probability).softmax(dim=1)
    assert (found - plain).abs().max() <= ROUNDING
    assert (stirred(convcrf(name, blur=blur))(images, log_probability).softmax(dim=1) - plain).abs().max() > 1e-3


@pytest.mark.parametrize("weights", ["scalar", "diag", "matrix"])
@pytest.mark.parametrize("compatibility", ["potts", "symmetric", "asymmetric"])
@pytest.mark.parametrize("untied", [False, True])
def test_all_forms_of_crfrnn_begin_as_one(weights, compatibility, untied):
    images, log_probability = case()
    plain = crfrnn(kernel_weights="scalar", compatibility="potts")(images, log_probability).softmax(dim=1)
    found = crfrnn(kernel_weights=weights, compatibility=compatibility, untied=untied)
    # Numbers went through a float32 logarithm, arrays did not.
    assert (found(images, log_probability).softmax(dim=1) - plain).abs().max() <= 1e-6


def test_the_released_start_of_the_convolution_is_potts():
    """There every entry begins at 0.1 · √(2 / C): the same number for all classes moves none against another."""
    images, log_probability = case()
    potts, released = (convcrf("convcrf_c") for _ in range(2))
    with torch.no_grad():
        released.compatibility -= 0.1 * (2 / CLASSES) ** 0.5
    difference = released(images, log_probability) - potts(images, log_probability)
    assert (difference - difference.mean(dim=1, keepdim=True)).abs().max() <= ROUNDING


def test_no_iteration_returns_the_unary():
    images, log_probability = case()
    for crf in (crfrnn(iterations=0), convcrf(iterations=0)):
        scores = stirred(crf).eval()(images, log_probability)
        assert (scores.softmax(dim=1) - log_probability.exp()).abs().max() <= ROUNDING


def test_one_iteration_is_its_closed_form():
    """softmax(U − μ Σ_m w_m ∘ k̄_m softmax(U)), with the kernels' matrices written out."""
    images, log_probability = case()
    crf = stirred(crfrnn(iterations=1)).eval()
    q = log_probability.exp()[0].flatten(1)
    total = 0
    kernels = crf.appearance(images), crf.smoothness(images)
    for weight, features in zip(crf.weights(CLASSES), kernels, strict=True):
        places = features[0].flatten(1)
        matrix = torch.exp(-0.5 * (places[:, :, None] - places[:, None, :]).square().sum(dim=0))
        total = total + weight[:, None] * (q @ (matrix / matrix.sum(dim=1, keepdim=True)).T)
    expected = (log_probability[0].flatten(1) - crf.penalties() @ total).softmax(dim=0)
    found = crf(images, log_probability).softmax(dim=1)[0].flatten(1)
    assert (found - expected).abs().max() <= ROUNDING


def test_a_symmetric_compatibility_is_the_mean_of_both_ways():
    images, log_probability = case()
    symmetric, asymmetric = stirred(crfrnn(compatibility="symmetric")), stirred(crfrnn())
    with torch.no_grad():
        asymmetric.compatibility.copy_((asymmetric.compatibility + asymmetric.compatibility.T) / 2)
    found = symmetric(images, log_probability) - asymmetric(images, log_probability)
    assert found.abs().max() <= ROUNDING


def test_training_has_its_own_number_of_iterations():
    images, log_probability = case()
    crf = stirred(crfrnn(iterations=3, training_iterations=1))
    longer, shorter = (stirred(crfrnn(iterations=count)).eval() for count in (3, 1))
    assert torch.equal(crf.eval()(images, log_probability), longer(images, log_probability))
    assert torch.equal(crf.train()(images, log_probability), shorter(images, log_probability))


def test_iterations_after_those_of_the_training_take_the_last_ones_parts():
    images, log_probability = case()
    crf = stirred(crfrnn(untied=True, iterations=3, training_iterations=1)).eval()
    tied = stirred(crfrnn(iterations=3)).eval()
    with torch.no_grad():
        for name in crf.starts:
            assert getattr(crf, name).shape == (1, *getattr(tied, name).shape)
            getattr(tied, name).copy_(getattr(crf, name)[0])
    assert (crf(images, log_probability) - tied(images, log_probability)).abs().max() <= ROUNDING


# Positions


def test_an_image_takes_the_corner_of_the_canvas():
    crf = stirred(convcrf(positions=FREE))
    images, _ = case(4, 5)
    rows, cols = torch.meshgrid(torch.arange(4.0).double(), torch.arange(5.0).double(), indexing="ij")
    expected = (torch.stack([cols, rows]) + crf.positions[:, :4, :5]) / crf.value("theta_gamma")
    assert torch.allclose(crf.smoothness(images)[0], expected, rtol=0, atol=ROUNDING)


def test_a_canvas_may_be_resized_to_any_image():
    crf = convcrf(positions=FREE | {"other_sizes": "resample"})
    with torch.no_grad():
        crf.positions += 0.25
    for size in ((3, 3), (6, 7), (12, 21)):
        plain = convcrf("convcrf_c").smoothness(case(*size)[0])
        moved = crf.smoothness(case(*size)[0])
        assert torch.allclose(moved - plain, torch.full_like(plain, 0.25 / 1.5), rtol=0, atol=1e-6)


def test_a_canvas_smaller_than_the_image_is_refused():
    images, log_probability = case(7, 7)
    said = r"positions: found 7 × 7 px, expected at most 6 × 7, the canvas of its positions; choose a larger canvas"
    with pytest.raises(DataError, match=said):
        convcrf(positions=FREE)(images, log_probability)
    system = systems.build(chosen("convcrf_t", positions=FREE), 2, CPU)
    with pytest.raises(DataError, match="image 0, positions: found 20 × 24 px, expected at most 6 × 7"):
        list(system.fit([planted(0)], seed=0))
