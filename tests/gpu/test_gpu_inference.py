"""What only a GPU shows of inference: streams, CUDA graphs, who waits for whom, whose memory it is, a second device."""

import warnings

import pytest
import torch

from pipeline import systems
from pipeline.algorithms import gaussian_filters
from pipeline.core import settings
from pipeline.kernels import source
from pipeline.kernels.lattice_mean_field import lattice_mean_field

CONFIG = settings.ROOT / "config" / "systems"
CLASSES, HEIGHT, WIDTH = 5, 60, 83
# Systems, and what changes of their settings. Those with a lattice read back what it needs, twice for each lattice;
# DualMM looks at the colours and at the costs before it begins.
WAITLESS = {
    "convcrf, blurred": ("convcrf", {}),
    "convcrf, sharp": ("convcrf_sharp", {}),
    "convcrf, released": ("convcrf_released", {}),
    "fullcrf, exact": ("fullcrf_exact", {}),
    "fullcrf, exact in ten bits": ("fullcrf_exact", {"filter": "exact_tf32"}),
    "fullcrf, window": ("fullcrf", {"filter": "window"}),
    "crfrnn, exact": ("crfrnn", {"filter": "exact"}),
}
WAITING = {
    "fullcrf": ("fullcrf", {}, 2),
    "fullcrf, two lattices": ("fullcrf_densecrf", {}, 4),
    "crfrnn": ("crfrnn", {}, 2),
    "hybrid": ("hybrid", {}, 2),
}


def module(name, changed, device):
    """Build the model of a system of config/systems."""
    values = settings.read(CONFIG / f"{name}.yaml", "systems").plain() | changed
    return systems.build(settings.check(values, "systems", where="a test"), CLASSES, device).module


def inputs(device, seed=0):
    """Draw an image (1 3 H W), 0..255, and log-probabilities (1 C H W)."""
    generator = torch.Generator().manual_seed(seed)
    images = torch.rand(1, 3, HEIGHT, WIDTH, generator=generator) * 255
    scores = 3 * torch.randn(1, CLASSES, HEIGHT, WIDTH, generator=generator)
    return images.to(device), scores.log_softmax(dim=1).to(device)


def answer(model, *given):
    """Return what a model says: scores, or of DualMM what the rows own."""
    with torch.inference_mode():
        return model.solve(*given).rows if hasattr(model, "solve") else model(*given)


EVERY = {name: entry[:2] for name, entry in (WAITLESS | WAITING).items()}


@pytest.mark.parametrize("name", [name for name in EVERY if name != "hybrid"])  # whose answers are not unique
def test_the_gpu_says_what_other_devices_say(gpu, name):
    cpu = torch.device("cpu")
    there, here = (answer(module(*EVERY[name], device), *inputs(device)).cpu() for device in (gpu, cpu))
    difference = (there.softmax(dim=1) - here.softmax(dim=1)).abs()
    # Five iterations on: what rounds in a lattice's weights or in ten bits may grow.
    assert difference.max() <= 1e-2
    assert difference.mean() <= 1e-4


@pytest.mark.parametrize("name", EVERY)
def test_work_waits_for_what_comes_before_it_on_its_stream(gpu, name):
    model, (images, log_probability) = module(*EVERY[name], gpu), inputs(gpu)
    expected = answer(model, images, log_probability)
    given = [torch.full_like(each, 7.0) for each in (images, log_probability)]
    torch.cuda.synchronize(gpu)
    stream = torch.cuda.Stream(gpu)
    with torch.cuda.stream(stream):
        torch.cuda._sleep(10**8)  # cycles: the inputs come late
        for late, each in zip(given, (images, log_probability), strict=True):
            late.copy_(each)
        found = answer(model, *given)
    stream.synchronize()
    assert torch.equal(found, expected)


@pytest.mark.parametrize("name", WAITLESS)
def test_a_recorded_graph_repeats_a_refinement(gpu, name):
    model, given = module(*WAITLESS[name], gpu), inputs(gpu)
    found = recorded(lambda: answer(model, *given))
    others = inputs(gpu, seed=1)
    for place, each in zip(given, others, strict=True):
        place.copy_(each)
    found.graph.replay()
    assert torch.equal(found.out, answer(model, *others))


def test_a_recorded_graph_repeats_mean_field_on_lattices(gpu):
    """Lattices are built beforehand; their number of vertices is no part of a graph."""
    (images, log_probability), weights = inputs(gpu), torch.full((2, CLASSES), 3.0, device=gpu)
    with torch.inference_mode():
        features = [images / 13, images[:, :2] / 40]
        lattices = list(zip(*(gaussian_filters.placed(each, "symmetric") for each in features), strict=True))
        found = recorded(lambda: lattice_mean_field(log_probability, *lattices, weights, 5))
        _, other = inputs(gpu, seed=1)
        log_probability.copy_(other)
        found.graph.replay()
        assert torch.equal(found.out, lattice_mean_field(other, *lattices, weights, 5))


class recorded:
    """A call recorded as a CUDA graph, after it was made thrice, so that its kernels are compiled."""

    def __init__(self, call):
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(3):
                call()
        torch.cuda.current_stream().wait_stream(stream)
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph):
            self.out = call()


@pytest.mark.parametrize("name", WAITLESS)
def test_nothing_waits_inside_a_refinement(gpu, name):
    assert waits(name, WAITLESS[name], gpu) == 0


@pytest.mark.parametrize("name", WAITING)
def test_what_waits_does_so_before_the_iterations(gpu, name):
    *entry, count = WAITING[name]
    assert waits(name, entry, gpu) <= count
    more = [*entry[:1], entry[1] | {"iterations": 9}]
    assert waits(name, more, gpu) <= count


def waits(name, entry, gpu):
    """Count the waits that PyTorch tells of in a second refinement; the first compiles."""
    model, given = module(*entry, gpu), inputs(gpu)
    answer(model, *given)
    torch.cuda.synchronize(gpu)
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            answer(model, *given)
        finally:
            torch.cuda.set_sync_debug_mode("default")
    return sum("called a synchronizing" in str(each.message) for each in found)


def test_all_memory_is_pytorchs(gpu):
    """CuPy launches kernels and takes no memory of its own, so nothing is reserved twice."""
    for entry in EVERY.values():
        answer(module(*entry, gpu), *inputs(gpu))
    pool = source._cupy().get_default_memory_pool()
    assert (pool.used_bytes(), pool.total_bytes()) == (0, 0)


def test_refining_again_takes_no_more_memory(gpu):
    model, given = module("fullcrf_densecrf", {}, gpu), inputs(gpu)
    answer(model, *given)
    peaks = []
    for _ in range(3):
        torch.cuda.reset_peak_memory_stats(gpu)
        answer(model, *given)
        peaks.append(torch.cuda.max_memory_allocated(gpu))
    assert len(set(peaks)) == 1


@pytest.mark.parametrize("name", EVERY)
def test_tensors_of_another_device_are_worked_on_there(gpu, name):
    if torch.cuda.device_count() < 2:
        pytest.skip("one GPU")
    other = torch.device("cuda", (gpu.index + 1) % torch.cuda.device_count())
    found = answer(module(*EVERY[name], other), *inputs(other))
    assert found.device == other
    assert torch.cuda.current_device() == gpu.index
    assert torch.equal(found.cpu(), answer(module(*EVERY[name], gpu), *inputs(gpu)).cpu())
