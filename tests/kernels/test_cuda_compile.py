"""Every .cu file compiles by itself, for every generation of GPUs, with constants of small and of large calls.

That needs NVIDIA's run-time compiler, no GPU; the compiler also refuses more shared memory than a block has.
"""

from concurrent.futures import ThreadPoolExecutor

import nvrtc
import pytest
import torch

from pipeline.kernels import all_pairs, blurred_update, permutohedral, potts_chains, source, spatial_gaussian, window
from pipeline.kernels import mean_field_update as update

FILES = sorted(str(path.relative_to(source.PACKAGE)) for path in source.PACKAGE.rglob("*.cu"))
PACKAGES = {package.__name__.rpartition(".")[2]: package for package in (
    all_pairs, blurred_update, permutohedral, potts_chains, spatial_gaussian, update, window
)}  # fmt: skip


@pytest.fixture(scope="module")
def compiler():
    found = nvrtc.load()
    return found or pytest.skip(f"{nvrtc.WHEEL}, NVIDIA's run-time compiler, is not installed")


def compiles(compiler, file, architecture, options=()):
    code = (source.PACKAGE / file).read_text(encoding="utf-8")
    return nvrtc.compiled(compiler, code, [f"-arch=sm_{architecture}", *source.OPTIONS, *options])[:4] == b"\x7fELF"


def test_every_kernel_has_a_source():
    assert {file.partition("/")[0] for file in FILES} == set(PACKAGES)


@pytest.mark.parametrize("architecture", [70, 80, 90, 100])
@pytest.mark.parametrize("file", FILES)
def test_compiles_as_it_stands(compiler, file, architecture):
    if architecture not in nvrtc.architectures(compiler):
        pytest.skip(f"this compiler does not know sm_{architecture}")
    assert compiles(compiler, file, architecture)


@pytest.mark.parametrize("classes", [1, 256])
@pytest.mark.parametrize("name", PACKAGES)
def test_compiles_with_the_constants_of_calls(compiler, monkeypatch, name, classes):
    """Calls of an image of 375 × 500 pixels, kernels not run; the largest windows, features, factors and messages."""
    launches = {(file, options) for file, _, options in launched(monkeypatch, name, classes)}
    with ThreadPoolExecutor() as pool:
        assert all(pool.map(lambda each: compiles(compiler, each[0], 90, each[1]), sorted(launches)))


@pytest.mark.parametrize("name", PACKAGES)
def test_of_21_classes_all_stays_in_registers(compiler, monkeypatch, name):
    """An array that is indexed by what is known only later would lie in memory, and be many times slower."""
    launches = launched(monkeypatch, name, 21)

    def stack(file, kernel, options):
        code = (source.PACKAGE / file).read_text(encoding="utf-8")
        return nvrtc.stacks(compiler, code, ["-arch=sm_90", *source.OPTIONS, *options])[kernel]

    with ThreadPoolExecutor() as pool:
        used = dict(zip(launches, pool.map(lambda launch: stack(*launch), launches), strict=True))
    # 256 features no registers hold.
    assert [launch for launch, size in used.items() if size and "-DFEATURES=256" not in launch[2]] == []


def launched(monkeypatch, name, classes):
    """Return file, kernel and options of every launch of a package's calls."""
    launches = set()

    def launch(file, kernel, grid, block, *arguments, **constants):
        assert all(1 <= size < limit for size, limit in zip(grid, (2**31, 2**16, 2**16), strict=False))
        launches.add((file, kernel, source.defines(constants)))

    monkeypatch.setattr(source, "launch", launch)
    monkeypatch.setitem(PACKAGES[name].REFUSALS, "cuda", lambda *tensors: None)
    CALLS[name](torch.zeros(1, classes, 375, 500))
    assert launches
    return sorted(launches)


def call_window(q):
    features, ones = torch.zeros(1, 5, *q.shape[2:], requires_grad=True), torch.ones(1, 2, *q.shape[2:])
    for radius in (3, 5, 20):
        degree = window.degree(features, radius, backend="cuda")
        weights = window.weights([features, features[:, :2]], radius, ones, ones, backend="cuda")
        (window.message(q, weights).sum() + degree.sum()).backward()


def call_all_pairs(q):
    for count in (5, 256):
        features = torch.zeros(1, count, *q.shape[2:], requires_grad=True)
        all_pairs.all_pairs(q, features, backend="cuda").sum().backward()
    for count in (5, 16):
        all_pairs.all_pairs(q, features[:, :count].detach(), precision="tf32", backend="cuda")


def call_spatial_gaussian(q):
    spatial_gaussian.spatial_gaussian(q, torch.tensor(3.0), backend="cuda")


def call_mean_field_update(q):
    for count in (1, 2, 4):
        update.mean_field_update(q, [q] * count, torch.ones(count, q.shape[1]), backend="cuda")


def call_blurred_update(q):
    q = q.requires_grad_()
    for factor in (2, 4, 200):
        message = torch.zeros(1, q.shape[1], *(-(-size // factor) for size in q.shape[2:]))
        blurred_update.blurred_update(q, message, factor, backend="cuda").sum().backward()
        blurred_update.add_unblurred(q, message, factor, backend="cuda").sum().backward()


def call_permutohedral(q):
    for count in (2, 5, 8):
        places = permutohedral.build(torch.zeros(1, count, 30, 40), backend="cuda")
        permutohedral.permutohedral(q[..., :30, :40], places)


def call_potts_chains(unary):
    edges = potts_chains.Edges(unary[:, 0, :, 1:], unary[:, 0, 1:])
    labels = torch.zeros(unary[:, 0].shape, dtype=torch.uint8)
    for axis in ("rows", "columns"):
        potts_chains.hand_over(unary, unary, edges, axis, backend="cuda")
        potts_chains.minimum(unary, unary, edges, axis, backend="cuda")
        potts_chains.relabel(unary, edges, labels, axis, 1, backend="cuda")


CALLS = {
    "all_pairs": call_all_pairs,
    "blurred_update": call_blurred_update,
    "mean_field_update": call_mean_field_update,
    "permutohedral": call_permutohedral,
    "potts_chains": call_potts_chains,
    "spatial_gaussian": call_spatial_gaussian,
    "window": call_window,
}
