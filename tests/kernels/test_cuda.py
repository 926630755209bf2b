"""CUDA kernels against the reference, forward and backward: on a GPU, and without one on the CPU by cuda_cpu.

On the CPU, what is tested is the arithmetic, the indices, barriers, grids and arguments; not the memory model of a GPU,
its own exponential, or speed.
"""

import random

import agreement
import calls
import cuda_cpu
import pytest
import torch

from pipeline.kernels import (
    all_pairs,
    blurred_update,
    lattice_mean_field,
    permutohedral,
    potts_chains,
    source,
    spatial_gaussian,
    window,
)
from pipeline.kernels import mean_field_update as update

PACKAGES = (
    all_pairs, blurred_update, lattice_mean_field, update, permutohedral, potts_chains, spatial_gaussian, window
)  # fmt: skip
EPS = torch.finfo(torch.float32).eps


@pytest.fixture(scope="module")
def launcher(tmp_path_factory):
    return cuda_cpu.Launcher(tmp_path_factory.mktemp("kernels"))


@pytest.fixture(params=["threads on the CPU", "GPU"])
def device(request, monkeypatch, launcher):
    """Where the CUDA kernels of the call run."""
    if request.param == "GPU":
        if not torch.cuda.is_available() or source.missing():
            pytest.skip("no GPU with CuPy")
        return "cuda"
    if cuda_cpu.COMPILER is None:
        pytest.skip("no g++")
    monkeypatch.setattr(source, "launch", launcher)
    for package in PACKAGES:
        monkeypatch.setitem(package.REFUSALS, "cuda", lambda *tensors: None)
    return "cpu"


def draw(*shape, low=None):
    """Draw normal numbers, or uniform ones between `low` and low + 1."""
    generator = torch.Generator().manual_seed(sum(shape))
    return torch.randn(shape, generator=generator) if low is None else low + torch.rand(shape, generator=generator)


def positions(height, width, scale, batch=1):
    rows, cols = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    return (torch.stack([cols, rows]) / scale).expand(batch, -1, -1, -1)


def results(operation, backend, inputs, learnt):
    """Return what an operation gives and its gradients to the inputs numbered in `learnt`, in float64 on the CPU."""
    inputs = [x.clone().requires_grad_(k in learnt) for k, x in enumerate(inputs)]
    out = operation(backend, *inputs)
    sent = draw(*out.shape).to(out)
    gradients = torch.autograd.grad(out, [inputs[k] for k in learnt], sent) if learnt else ()
    return [x.detach().double().cpu() for x in (out, *gradients)]


def plain_distance(operation, inputs, learnt, number, turn):
    """Return how far plain float32 is from float64 in one result, a number, of the images rolled by some columns."""
    inputs = [x.roll(turn, dims=3) if x.ndim == 4 else x for x in inputs]
    exact, plain = (
        results(operation, "reference", [x.to(dtype) for x in inputs], learnt)[number]
        for dtype in (torch.float64, torch.float32)
    )
    return (plain - exact).abs() / exact.abs()


def agrees(operation, *inputs, device, learnt=None):
    """Hold CUDA to the house's rule: twice as far from float64 as plain float32 is, and a rounding of the largest."""
    learnt = range(len(inputs)) if learnt is None else learnt
    exact = results(operation, "reference", [x.double() for x in inputs], learnt)
    plain = results(operation, "reference", inputs, learnt)
    fast = results(operation, "cuda", [x.to(device) for x in inputs], learnt)
    for number, (e, p, f) in enumerate(zip(exact, plain, fast, strict=True)):
        far = (p - e).abs().max()
        if e.ndim == 0 and e != 0:
            # One number may be exact by luck: as far as plain float32 is from such numbers of images like these.
            alike = (plain_distance(operation, inputs, learnt, number, turn) for turn in range(1, 9))
            far = max(far, *(e.abs() * distance for distance in alike))
        bound = 2 * far + EPS * e.abs().max()
        assert (f - e).abs().max() <= bound, f"result {number}: {(f - e).abs().max():.2e} off, {bound:.2e} allowed"


def test_cuda_is_asked_first():
    assert all(next(iter(package.REFUSALS)) == "cuda" for package in PACKAGES)


@pytest.mark.parametrize(
    ("radius", "features", "height", "width"), [(0, 2, 3, 3), (1, 5, 9, 37), (3, 1, 8, 5), (6, 3, 17, 33)]
)
def test_degree(device, radius, features, height, width):
    features = draw(2, features, height, width)
    agrees(lambda backend, x: window.degree(x, radius, backend=backend), features, device=device)


@pytest.mark.parametrize("exclude_self", [False, True])
@pytest.mark.parametrize(("radius", "counts"), [(1, [5, 2]), (2, [3]), (4, [1, 2, 4])])
def test_weights(device, radius, counts, exclude_self):
    kernels = [draw(2, count, 7, 9) for count in counts]
    scales = [draw(2, len(counts), 7, 9, low=low) for low in (0, 1)]

    def operation(backend, left, right, *kernels):
        merged = window.weights(kernels, radius, left, right, exclude_self=exclude_self, backend=backend)
        # A layout of each backend's own: what they do to numbers that differ from pixel to pixel.
        return window.message(positions(7, 9, 4.0, batch=2).to(left), merged)

    agrees(operation, *scales, *kernels, device=device)


@pytest.mark.parametrize("enough", [0, 256])
@pytest.mark.parametrize(
    ("radius", "classes", "height", "width"),
    [(0, 1, 3, 2), (1, 3, 5, 70), (2, 21, 9, 37), (6, 2, 19, 8), (11, 9, 4, 6)],
)
def test_message(device, monkeypatch, enough, radius, classes, height, width):
    """At 0, threads sum four rows each; at 256, one, since these images are small."""
    monkeypatch.setattr(window.cuda, "ENOUGH", enough)
    q, features = draw(2, classes, height, width), draw(2, 3, height, width)

    def operation(backend, q, features):
        ones = torch.ones_like(features[:, :1])
        return window.message(q, window.weights([features], radius, ones, ones, backend=backend))

    agrees(operation, q, features, device=device)


@pytest.mark.parametrize(
    ("classes", "features", "height", "width"), [(1, 1, 1, 1), (3, 5, 15, 20), (25, 2, 9, 7), (50, 12, 3, 5)]
)
def test_all_pairs(device, classes, features, height, width):
    values, features = draw(2, classes, height, width), draw(2, features, height, width)
    agrees(lambda backend, *x: all_pairs.all_pairs(*x, backend=backend), values, features, device=device)


@pytest.mark.parametrize(
    ("classes", "features", "height", "width"), [(1, 1, 1, 1), (3, 5, 15, 20), (33, 5, 13, 11), (70, 16, 9, 5)]
)
def test_all_pairs_in_ten_bits(device, classes, features, height, width):
    """Kernel and values are each within 2⁻¹¹ of what they were, so the sum is within 2⁻¹⁰ of the sum of sizes."""
    values, features = draw(2, classes, height, width), draw(2, features, height, width)

    def operation(values, *, precision="tf32"):
        features_there = features.to(values)
        return all_pairs.all_pairs(
            values, features_there, precision=precision, backend="cuda" if precision == "tf32" else "reference"
        )

    exact, sizes = (operation(each.double(), precision="float32") for each in (values, values.abs()))
    given = values.to(device).requires_grad_()
    found = operation(given)
    assert ((found.detach().cpu().double() - exact).abs() <= 2**-10 * sizes + EPS * sizes.max()).all()
    (gradient,) = torch.autograd.grad(found, given, values.to(device))  # the kernel is symmetric
    assert torch.equal(gradient, found)


def test_ten_bits_are_not_float32(device):
    """The products are those of tensor cores: of a number with more bits some are lost."""
    values = torch.full((1, 1, 1, 1), 1 + 2.0**-12, device=device)
    given = values, torch.zeros_like(values)
    assert float(all_pairs.all_pairs(*given, precision="tf32", backend="cuda")) == 1
    assert float(all_pairs.all_pairs(*given, backend="cuda")) == float(values)


def test_ten_bits_over_many_tiles_of_senders(device):
    """A block's last receivers and a tile's last senders do not exist, and thousands of sums do not drift."""
    values, features = draw(1, 2, 19, 61, low=0), positions(19, 61, 20.0)
    exact = all_pairs.all_pairs(values.double(), features.double(), backend="reference")
    found = all_pairs.all_pairs(values.to(device), features.to(device), precision="tf32", backend="cuda")
    assert ((found.cpu().double() - exact).abs() <= 1e-4 * exact).all()


@pytest.mark.parametrize("theta", [0.3, 2.0, 40.0])
@pytest.mark.parametrize(("height", "width"), [(1, 1), (5, 40), (70, 33)])
def test_spatial_gaussian(device, theta, height, width):
    values, theta = draw(2, 3, height, width, low=0), torch.tensor(theta)
    scales = draw(2, 1, height, width, low=0), draw(2, 1, height, width, low=1)

    def operation(backend, values, theta, left, right):
        return spatial_gaussian.spatial_gaussian(values, theta, left, right, backend=backend)

    agrees(operation, values, theta, *scales, device=device)
    agrees(operation, values, theta, *scales, device=device, learnt=(0, 1))


@pytest.mark.parametrize(
    ("classes", "messages", "result"),
    [(1, 1, "q"), (3, 2, "scores"), (21, 3, "q"), (256, 4, "q"), (3, 0, "scores"), (21, 0, "log_q"), (256, 2, "log_q")],
)
def test_mean_field_update(device, classes, messages, result):
    unary, weights = 5 * draw(2, classes, 9, 17), draw(messages, classes)
    sent = [draw(2, classes, 9, 17) for _ in range(messages)]

    def operation(backend, unary, weights, *messages):
        return update.mean_field_update(unary, messages, weights, result=result, backend=backend)

    learnt = None if messages else (0,)  # weights of no message have no gradient
    agrees(operation, unary, weights, *sent, device=device, learnt=learnt)


@pytest.mark.parametrize(
    ("classes", "factor", "height", "width"),
    [(3, 1, 4, 5), (21, 4, 13, 139), (2, 3, 10, 11), (1, 5, 3, 2), (256, 4, 3, 9), (2, 131, 7, 140)],
)
def test_blurred_update(device, classes, factor, height, width):
    unary, message = 3 * draw(2, classes, height, width), draw(2, classes, -(-height // factor), -(-width // factor))
    for function in (blurred_update.blurred_update, blurred_update.add_unblurred):
        agrees(lambda backend, *x, f=function: f(*x, factor, backend=backend), unary, message, device=device)


@pytest.mark.parametrize(
    ("features", "classes", "spread"), [(1, 1, 1.0), (2, 5, 3.0), (3, 4, 0.1), (5, 21, 1.0), (8, 2, 0.5)]
)
def test_permutohedral(device, features, classes, spread):
    """At a spread of 0.1 a vertex has hundreds of entries, at 3 most have one."""
    height, width = 13, 17
    features = spread * draw(2, features, height, width)
    scales = draw(2, 1, height, width, low=0), draw(2, 1, height, width, low=1)

    def operation(backend, values, left, right):
        places = permutohedral.build(features.to(values), backend=backend)
        return permutohedral.permutohedral(values, places, left, right)

    agrees(operation, draw(2, classes, height, width), *scales, device=device)
    agrees(operation, draw(2, classes, height, width), *scales, device=device, learnt=(0,))


@pytest.mark.parametrize("iterations", [0, 1, 3])
def test_lattice_mean_field(device, iterations):
    unary, weights = 2 * draw(2, 5, 9, 11), draw(2, 5, low=0)
    scales = [draw(2, 1, 9, 11, low=low) for low in (0, 0.5, 1, 1.5)]
    features = [draw(2, count, 9, 11) for count in (5, 2)]

    def operation(backend, unary, weights, *scales):
        places = [permutohedral.build(some.to(unary), backend=backend) for some in features]
        given = unary, places, scales[:2], scales[2:], weights, iterations
        return lattice_mean_field.lattice_mean_field(*given, backend=backend)

    agrees(operation, unary, weights, *scales, device=device, learnt=())


def test_a_lattice_of_two_images_is_that_of_each(device):
    features = torch.cat([positions(9, 8, 2.0, batch=2), draw(2, 1, 9, 8)], dim=1).to(device)
    values = draw(2, 3, 9, 8).to(device)
    both = permutohedral.permutohedral(values, permutohedral.build(features, backend="cuda"))
    for k in range(2):
        one = slice(k, k + 1)
        alone = permutohedral.permutohedral(values[one], permutohedral.build(features[one], backend="cuda"))
        assert torch.equal(both[one], alone)


@pytest.mark.parametrize("name", ["windowed", "all_pairs", "lattice", "spatial_gaussian", "blurred_update"])
def test_equal_calls_give_equal_bits(device, monkeypatch, name):
    """On the CPU every call of these tests already runs in three orders of threads."""
    monkeypatch.setattr(agreement, "device_of", lambda backend: torch.device(device))
    kernel = calls.KERNELS[name]
    tensors, options = kernel.draw(random.Random(1), (2, 3, 40, 50) if device == "cuda" else (1, 2, 3, 4))
    first, second = (agreement.run(kernel, "cuda", tensors, options, dtype=torch.float32) for _ in range(2))
    assert all(torch.equal(first[part], second[part]) for part in first)


def test_inputs_need_not_be_contiguous(device):
    def strided(x):
        return x.to(device).permute(3, 2, 0, 1).contiguous().permute(2, 3, 1, 0)

    values, features, ones = draw(2, 3, 6, 5), draw(2, 2, 6, 5), torch.ones(2, 1, 6, 5)
    for make in (lambda x: x.to(device), strided):
        q, f, scale = make(values), make(features), make(ones)
        found = [
            window.message(q, window.weights([f], 1, scale, scale, backend="cuda")),
            all_pairs.all_pairs(q, f, backend="cuda"),
            spatial_gaussian.spatial_gaussian(q, torch.tensor(1.0), scale, scale, backend="cuda"),
            update.mean_field_update(q, [q], torch.ones(1, 3, device=device), backend="cuda"),
            blurred_update.blurred_update(q, make(draw(2, 3, 3, 3)), 2, backend="cuda"),
            permutohedral.permutohedral(q, permutohedral.build(f, backend="cuda"), scale, scale),
        ]
        if make is not strided:
            expected = found
    assert all(torch.equal(*pair) for pair in zip(found, expected, strict=True))


@pytest.mark.parametrize("axis", ["rows", "columns"])
@pytest.mark.parametrize(
    ("classes", "height", "width"), [(1, 1, 1), (3, 2, 9), (5, 9, 70), (2, 70, 3), (40, 5, 12), (256, 3, 4)]
)
def test_potts_chains(device, axis, classes, height, width):
    """All three calls; what they answer is labels, minima in float64, and what the rows own."""
    unary, rows = draw(2, classes, height, width), draw(2, classes, height, width)
    right, below = draw(2, height, width - 1, low=0), draw(2, height - 1, width, low=0)
    first = torch.randint(classes, (2, height, width), generator=torch.Generator().manual_seed(0)).byte()
    found = {}

    def operation(backend, unary, rows, right, below, part):
        edges, owned = potts_chains.Edges(right, below), rows.clone()
        labels, changed = torch.zeros_like(first, device=unary.device), first.to(unary.device).clone()
        minima = potts_chains.hand_over(unary, owned, edges, axis, labels=labels, backend=backend)
        for parity in (0, 1):
            potts_chains.relabel(unary, edges, changed, axis, parity, backend=backend)
        found[backend, unary.dtype] = labels.cpu(), changed.cpu()
        return {
            "rows": owned,
            "minima": minima,
            "whole": potts_chains.minimum(unary, rows, edges, axis, backend=backend),
        }[part]

    for part in ("rows", "minima", "whole"):
        agrees(lambda *given, p=part: operation(*given, p), unary, rows, right, below, device=device, learnt=())
    for one, other in zip(found["cuda", torch.float32], found["reference", torch.float64], strict=True):
        assert torch.equal(one, other)
