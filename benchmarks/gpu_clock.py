"""How the gpu_*.py scripts tell the time, and what the device they run on can do at most.

Calls take turns on several sets of inputs, so that the second-level cache holds none of them. Told are

- median_ms, quartiles_ms: of single calls among many that are issued without waiting, by CUDA events;
- alone_ms: one call with nothing before and after it, by the wall clock; host_ms: its part until the call returns;
- back_to_back_ms: many calls issued without waiting, the whole time over their number;
- graph_ms: the same calls as one CUDA graph, replayed, or in `graph` why there is none;
- waits: every place at which torch makes the host wait for the GPU within a call, empty if it nowhere does.

On the CPU all but the last two are taken with the wall clock.
"""

import gc
import math
import statistics
import subprocess
import time
import traceback
import warnings
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile

from pipeline.core import device as devices
from pipeline.core.settings import ROOT
from pipeline.kernels import source

LEAST_CALLS, MOST_CALLS = 3, 1000  # of one way to time them
MOST_SECONDS = 4  # of one way, unless its fewest calls take longer
ROUNDS = 3  # of calls back to back
CACHES = 3  # times the second-level cache that all sets of inputs fill together
LEAST_SETS = 2
SPECIAL_PER_CLOCK = 16  # exponentials that a multiprocessor begins in a clock, by NVIDIA's programming guide
CLOCK_RATE = 13  # the number of CUDA's attribute of a device, kHz
NO_GPU = "no GPU"
WAITS = "called a synchronizing"  # in torch's words about it
SMI = ("driver_version", "clocks.sm", "clocks.max.sm", "clocks.mem", "clocks.max.mem", "power.limit", "temperature.gpu")


def chosen(name):
    """Return the device of a name, "cpu" or "cuda", with its number; say what is missing for ours to run there."""
    if name == "cpu":
        return torch.device("cpu")
    if not torch.cuda.is_available() or source.missing():
        raise SystemExit(f"--device {name}: found {source.missing() or 'no CUDA device'}; use --device cpu")
    return torch.device("cuda", torch.cuda.current_device())


def wait(device):
    """Wait until the device has done all it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def input_sets(each_bytes, device):
    """Return how many sets of inputs, of so many bytes each, no cache holds."""
    if device.type == "cpu":
        return LEAST_SETS
    cache = torch.cuda.get_device_properties(device).L2_cache_size
    return max(LEAST_SETS, math.ceil(CACHES * cache / each_bytes))


def timed(calls, device, least_seconds, least_calls, *, once=False):
    """Return the figures above.

    Parameters
    ----------
    calls : list of callable
        Without arguments, each on inputs of its own; what they return is dropped.
    device : torch.device
    least_seconds, least_calls : float, int
        Of each way to time them, whichever is longer; fewer calls where they would take more than MOST_SECONDS.
    once : bool
        Whether one call is timed and no more, without any before it: for those of many seconds.
    """
    if once:
        (one,) = spans(calls, 1, device)
        return {"calls": 1, "input_sets": 1, "median_ms": one, "alone_ms": one, "back_to_back_ms": one}
    for call in calls:
        call()
    seconds = statistics.median(alone(calls, LEAST_CALLS, device)[1]) / 1e3
    count = _calls(seconds, least_seconds, least_calls)
    figures = {"calls": count, "input_sets": len(calls)}
    figures |= _summary("median_ms", "quartiles_ms", spans(calls, count, device))
    host, whole = alone(calls, count, device)
    figures |= _summary("alone_ms", "alone_quartiles_ms", whole) | {"host_ms": statistics.median(host)}
    rounds = ROUNDS if count * seconds < MOST_SECONDS / ROUNDS else 1
    figures["back_to_back_ms"] = statistics.median(together(calls, count, device) for _ in range(rounds))
    figures["waits"] = waits(calls[0], device)
    if figures["waits"]:
        # A capture that a wait breaks off may leave torch's allocator behind it in an odd state.
        return figures | {"graph_ms": None, "graph": "not tried: the host waits within a call"}
    return figures | replayed(calls, device, count)


def _calls(seconds, least_seconds, least_calls):
    """Return how many calls of so many seconds are made in one way to time them."""
    wanted = max(least_calls, math.ceil(least_seconds / seconds))
    return max(LEAST_CALLS, min(wanted, MOST_CALLS, math.floor(MOST_SECONDS / seconds)))


def _summary(middle, outer, values):
    low, median, high = statistics.quantiles(values, n=4, method="inclusive")
    return {middle: median, outer: [low, high]}


def rotated(calls, count):
    """Yield so many calls, taking turns."""
    for number in range(count):
        yield calls[number % len(calls)]


def spans(calls, count, device):
    """Return the ms that each call took on the device, issued one after another without waiting."""
    if device.type == "cpu":
        return alone(calls, count, device)[1]
    pairs = [[torch.cuda.Event(enable_timing=True) for _ in range(2)] for _ in range(count)]
    wait(device)
    for (start, end), call in zip(pairs, rotated(calls, count), strict=True):
        start.record()
        call()
        end.record()
    wait(device)
    return [start.elapsed_time(end) for start, end in pairs]


def alone(calls, count, device):
    """Return the ms until each call returned, and until the device had done it; nothing overlaps."""
    host, whole = [], []
    for call in rotated(calls, count):
        wait(device)
        begun = time.perf_counter()
        call()
        host.append(1e3 * (time.perf_counter() - begun))
        wait(device)
        whole.append(1e3 * (time.perf_counter() - begun))
    return host, whole


def together(calls, count, device):
    """Return the ms per call of many, issued without waiting."""
    wait(device)
    begun = time.perf_counter()
    for call in rotated(calls, count):
        call()
    wait(device)
    return 1e3 * (time.perf_counter() - begun) / count


def waits(call, device):
    """Return where torch makes the host wait within a call: file, line and torch's words; None without a GPU.

    Waits of other libraries are not seen.
    """
    if device.type == "cpu":
        return None
    places = {}
    try:
        torch.cuda.set_sync_debug_mode("error")
        call()
    except RuntimeError as error:
        if WAITS not in str(error):
            raise
        places[_place(traceback.extract_tb(error.__traceback__))] = str(error).splitlines()[0]
    finally:
        torch.cuda.set_sync_debug_mode("default")
    if places:
        # The call ended at the first; as warnings all of them are told.
        wait(device)
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            try:
                torch.cuda.set_sync_debug_mode("warn")
                call()
            finally:
                torch.cuda.set_sync_debug_mode("default")
        for each in told:
            if WAITS in str(each.message):
                places.setdefault(f"{_relative(each.filename)}:{each.lineno}", str(each.message).splitlines()[0])
    return [f"{place}: {message}" for place, message in places.items()]


def _place(frames):
    """Return file and line of the innermost frame that is ours."""
    own = [frame for frame in frames if str(ROOT / "pipeline") in frame.filename] or frames
    return f"{_relative(own[-1].filename)}:{own[-1].lineno}"


def _relative(name):
    path = Path(name)
    return str(path.relative_to(ROOT)) if path.is_relative_to(ROOT) else path.name


def replayed(calls, device, count):
    """Return graph_ms, per call, of a graph that holds every call once, and graph: "captured" or why it is not."""
    if device.type == "cpu":
        return {"graph_ms": None, "graph": NO_GPU}
    try:
        beside = torch.cuda.Stream(device)
        beside.wait_stream(torch.cuda.current_stream(device))
        with torch.cuda.stream(beside):
            calls[0]()  # what libraries make once for a stream that is not the usual one
        torch.cuda.current_stream(device).wait_stream(beside)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, capture_error_mode="thread_local"):
            kept = [call() for call in calls]
        graph.replay()
        ms = together([graph.replay], -(-count // len(calls)), device) / len(calls)
        del graph, kept
        return {"graph_ms": ms, "graph": "captured"}
    except Exception as error:  # whatever keeps a graph from being made is a figure here
        return {"graph_ms": None, "graph": f"{type(error).__name__}: {str(error).splitlines()[0]}"}
    finally:
        gc.collect()
        torch.cuda.empty_cache()


def kernels(calls, device, most=6):
    """Return kernels_ms and launches per call, by torch's profiler, and the longest of them by name.

    Launches may be slower once the profiler has run: whatever else is timed comes first.
    """
    if device.type == "cpu":
        return {"kernels_ms": None, "kernels": NO_GPU}
    for call in calls:
        call()
    wait(device)
    with profile(activities=[ProfilerActivity.CUDA]) as seen:
        for call in calls:
            call()
        wait(device)
    rows = [row for row in seen.key_averages() if row.device_type == torch.autograd.DeviceType.CUDA]
    rows.sort(key=lambda row: -row.self_device_time_total)
    microseconds = sum(row.self_device_time_total for row in rows)
    if not microseconds:
        return {"kernels_ms": None, "kernels": "the profiler saw no kernel"}
    longest = {row.key[:60]: row.self_device_time_total / 1e3 / len(calls) for row in rows[:most]}
    launches = sum(row.count for row in rows) / len(calls)
    return {"kernels_ms": microseconds / 1e3 / len(calls), "launches": launches, "longest_ms": longest}


def ceilings(device):
    """Return what the device does at most, per second, each measured but for `special`.

    Bytes of a large copy, read and written; operations of large products of matrices, a multiply-add counting twice;
    exponentials, multiprocessors times what one begins in a clock; and the seconds that a launch costs where kernels
    are next to empty, torch's own and those by `source.launch`.
    """
    cuda = device.type == "cuda"
    told = {"bytes": _copied(device, 2 << 30 if cuda else 1 << 25)}
    side = 8192 if cuda else 512
    told["float32"] = _multiplied(device, side, torch.float32, "highest")
    tf32 = cuda and torch.cuda.get_device_capability(device) >= (8, 0)
    told["tf32"] = _multiplied(device, side, torch.float32, "high") if tf32 else None
    told["bfloat16"] = _multiplied(device, side, torch.bfloat16, "highest")
    told["special"] = _special(device) if cuda else None
    one = torch.zeros(1, device=device)
    told["torch_launch_s"] = together([lambda: one.add_(1)], MOST_CALLS, device) / 1e3
    told["own_launch_s"] = _own_launch(device) if cuda and not source.missing() else None
    return told


def _copied(device, size):
    if device.type == "cuda":
        size = min(size, torch.cuda.mem_get_info(device)[0] // 4)
    start = torch.rand(size // 4, device=device)
    end = torch.empty_like(start)
    return 2 * start.nbytes / _seconds(lambda: end.copy_(start), device)


def _multiplied(device, side, dtype, precision):
    """Return the operations per second of a product of random matrices; zeros would be faster."""
    before = torch.get_float32_matmul_precision()
    one, other = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    torch.set_float32_matmul_precision(precision)
    try:
        return 2 * side**3 / _seconds(lambda: one @ other, device)
    finally:
        torch.set_float32_matmul_precision(before)


def _seconds(call, device):
    for _ in range(3):
        call()
    return statistics.median(spans([call], 20, device)) / 1e3


def _special(device):
    if source.missing():
        return None
    multiprocessors = torch.cuda.get_device_properties(device).multi_processor_count
    return (
        multiprocessors
        * SPECIAL_PER_CLOCK
        * 1e3
        * _cupy().cuda.runtime.deviceGetAttribute(CLOCK_RATE, device.index or 0)
    )


def _own_launch(device):
    """Return the seconds of one launch of a kernel that does next to nothing."""
    out = torch.zeros(1, dtype=torch.int32, device=device)

    def call():
        source.launch("permutohedral/kernel.cu", "tell", (1,), (1,), out, out, out, 0, DIMENSIONS=2)

    call()
    return together([call], MOST_CALLS, device) / 1e3


def device_facts(device):
    """Return what the device is: name, sizes, versions, and what nvidia-smi says if it answers."""
    if device.type == "cpu":
        return {"name": devices.describe(device), "threads": torch.get_num_threads()}
    known = torch.cuda.get_device_properties(device)
    facts = {
        "name": known.name,
        "capability": f"{known.major}.{known.minor}",
        "multiprocessors": known.multi_processor_count,
        "l2_bytes": known.L2_cache_size,
        "memory_bytes": known.total_memory,
        "torch_cuda": torch.version.cuda,
        "cudnn_tf32": torch.backends.cudnn.allow_tf32,
    }
    if (reason := source.missing()) is not None:
        facts["cupy"] = reason
    else:
        runtime = _cupy().cuda.runtime
        facts |= {"cupy": _cupy().__version__, "cuda_driver": runtime.driverGetVersion()}
        facts["cuda_runtime"] = runtime.runtimeGetVersion()
    return facts | _smi(device)


def _smi(device):
    command = ["nvidia-smi", f"--id={device.index or 0}", f"--query-gpu={','.join(SMI)}", "--format=csv,noheader"]
    try:
        told = subprocess.run(command, capture_output=True, text=True, check=True, timeout=30).stdout
    except (OSError, subprocess.SubprocessError) as error:
        return {"nvidia_smi": str(error)}
    return {"nvidia_smi": dict(zip(SMI, (part.strip() for part in told.split(",")), strict=False))}


def _cupy():
    import cupy  # asked for only where `source.missing` finds nothing missing

    return cupy
