# What the rules share: the run tables, the settings behind its names, wildcard patterns, source hashes.
import re
from pathlib import Path

from snakemake.exceptions import WorkflowError

from pipeline.core import layout, settings
from pipeline.core.closure import source_hash
from pipeline.core.errors import PipelineError, SettingsError


def checked(read, *arguments, **named):
    """Call a reader of the pipeline; end with its one line, not with a traceback."""
    try:
        return read(*arguments, **named)
    except PipelineError as error:
        raise WorkflowError(str(error)) from None


def settings_of(folder, name):
    """The checked settings of one name."""
    return checked(settings.read, f"config/{folder}/{name}.yaml", folder)


checked(settings.check, dict(config), "config", where="config/config.yaml")
# Run tables whose names begin with table_ are targets of their own, whatever `runs` says: `snakemake table_NAME`.
TABLES = sorted(path.stem for path in Path("config/runs").glob("table_*.tsv"))
RUNS = {name: checked(layout.read_runs, f"config/runs/{name}.tsv") for name in dict.fromkeys([config["runs"], *TABLES])}
ALL_RUNS = [run for runs in RUNS.values() for run in runs]
PACKS = {name: settings_of("packs", name) for name in {run.pack for run in ALL_RUNS}}
SYSTEMS = {name: settings_of("systems", name) for name in {run.system for run in ALL_RUNS}}
NETS = {name: settings_of("nets", name) for name in {run.net for run in ALL_RUNS}}


def before(net):
    """The network that one starts from, or None."""
    return net.net if net.source == "finetune" else net.get("init_from")


# A network brings the one it starts from, which may have such a one itself; a fine-tuned one its system, too.
while missing := {before(net) for net in NETS.values()} - {None} - set(NETS):
    NETS |= {name: settings_of("nets", name) for name in missing}
for name, net in NETS.items():
    if before(net) and NETS[before(net)].source == "noisy_truth":
        where, found = f"config/nets/{name}.yaml", f"'{before(net)}' to start from"
        raise WorkflowError(str(SettingsError(where, found, "a network that has weights", "name another")))
    if net.source == "finetune" and net.system not in SYSTEMS:
        SYSTEMS[net.system] = settings_of("systems", net.system)
# "NET/SYSTEM" of every network that is fine-tuned: both come out of one training.
PAIRS = [f"{name}/{net.system}" for name, net in NETS.items() if net.source == "finetune"]


def either(names):
    """A wildcard pattern that matches these names and nothing else."""
    return "|".join(map(re.escape, names)) or "(?!)"


wildcard_constraints:
    pack=either(PACKS),
    net=either(NETS),
    system=either(SYSTEMS),
    pair=either(PAIRS),
    shard=r"\d+",
    runs=either(RUNS),


def network_of(net):
    """The settings of the network that `net` is, or was fine-tuned from."""
    return network_of(NETS[net].net) if NETS[net].source == "finetune" else NETS[net].network


def network_source(net):
    """The module behind a network."""
    if NETS[net].source == "noisy_truth":
        return "pipeline.algorithms.noisy_truth"
    return f"pipeline.nets.{network_of(net).architecture}"


def system_source(system):
    """The module behind a system."""
    return f"pipeline.systems.{SYSTEMS[system].system}"


def net_of(pair):
    """The fine-tuned network of a pair NET/SYSTEM."""
    return pair.partition("/")[0]


def starting_weights(pack, net):
    """The weight file a network's training starts from, as a list: empty if it starts from nothing."""
    if "init_from" in NETS[net]:
        return [weights_of(pack, NETS[net].init_from)]
    return file_of(NETS[net], "weights")


def file_of(chosen, key):
    """The weight file that the settings of a network or a system name, as a list: empty if they name none."""
    weights = chosen.get(key, "none")
    return [] if weights == "none" else [weights]


def weights_of(pack, net):
    """The file that holds the weights of a network on a pack, or an empty list if it has none."""
    if NETS[net].source == "noisy_truth":
        return []
    if NETS[net].source == "given":
        return NETS[net].weights
    if NETS[net].source == "finetune":
        return f"results/finetune/{pack}/{net}/{NETS[net].system}.safetensors"
    return f"results/train/{pack}/{net}.safetensors"


def trainings_of(pack, net):
    """Weights and history of a network and of all it starts from; what was not trained here has none."""
    if net is None or NETS[net].source in ("given", "noisy_truth"):
        return []
    weights = weights_of(pack, net)
    return [weights, weights.removesuffix(".safetensors") + ".jsonl", *trainings_of(pack, before(NETS[net]))]


def unary_shards(wildcards):
    """All shards of a network's unaries."""
    return shards_in(f"results/cache/{wildcards.pack}/{wildcards.net}")


def search_parts(wildcards):
    """The parts of what a system's search begins with: none if all is done by `fit`."""
    if config["shards"] == 1 or "search" not in SYSTEMS[wildcards.system]:
        return []
    folder = f"results/fit/{wildcards.pack}/{wildcards.net}/{wildcards.system}.search"
    return [f"{folder}/{shard}.counted" for shard in range(config["shards"])]


def untracked_workers(wildcards, input):
    """The processes that prepare images or count. They change no result: Snakemake tracks no function of the inputs."""
    return config["workers"]


def fitting_cores(wildcards):
    """The cores that a fit keeps busy: those of its own threads, or of the processes that count for its search."""
    return max(config["system_threads"], config["workers"] if "search" in SYSTEMS[wildcards.system] else 0)


def label_shards(wildcards):
    """All shards of the labels of one run."""
    return shards_in(f"results/refine/{wildcards.pack}/{wildcards.net}/{wildcards.system}")


def shards_in(folder):
    """The stores of all shards."""
    return [f"{folder}/{shard}.zarr" for shard in range(config["shards"])]


def shard_of(wildcards):
    """A shard as stages name it: K-of-N, K from 1 on."""
    return f"{int(wildcards.shard) + 1}-of-{config['shards']}"


def environment(backend):
    """The conda environment of a backend."""
    return "../../envs/gpu.yaml" if backend == "cuda" else "../../envs/cpu.yaml"


def launcher(processes):
    """What starts a module: Python, or torchrun, which starts several that work together."""
    # Without the dashes torchrun would take --log for an option of its own.
    return "python -m" if processes == 1 else f"torchrun --standalone --nproc-per-node {processes} -m --"


def growing(amount):
    """MiB or minutes that a job asks for: twice as much at every further attempt."""
    return lambda wildcards, attempt: amount * 2 ** (attempt - 1)


GPUS = 1 if config["backend"] == "cuda" else 0


# Stages end when the Snakemake that started them does; see pipeline/core/stage.py.
shell.prefix("export PIPELINE_PARENT=$PPID; ")
