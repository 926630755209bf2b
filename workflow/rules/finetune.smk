def start_of(wildcards, file):
    """The weights or the fitted system that the fine-tuning of a pair NET/SYSTEM starts from."""
    net = NETS[wildcards.pair.split("/")[0]]
    if file == "weights":
        return weights_of(wildcards.pack, net.net)
    return f"results/fit/{wildcards.pack}/{net.net}/{net.system}.npz"


rule finetune:
    """Train a network and a system together: a new network, and the system that goes with it."""
    input:
        pack="results/pack/{pack}.h5",
        net=lambda w: f"config/nets/{w.pair.split('/')[0]}.yaml",
        weights=lambda w: start_of(w, "weights"),
        system=lambda w: start_of(w, "system"),
    output:
        weights="results/finetune/{pack}/{pair}.safetensors",
        history="results/finetune/{pack}/{pair}.jsonl",
        system="results/fit/{pack}/{pair}.npz",
    log:
        "logs/finetune/{pack}/{pair}.log",
    benchmark:
        "results/finetune/{pack}/{pair}.time.tsv"
    conda:
        environment(config["backend"])
    threads: config["threads"]
    resources:
        gpu=GPUS,
        mem_mb=6000,
        runtime=2880,
    params:
        backend=config["backend"],
        workers=config["workers"],
        seed=config["seed"],
        code=lambda w: source_hash(
            "pipeline.finetune", network_source(w.pair.split("/")[0]), system_source(w.pair.split("/")[1])
        ),
    shell:
        r"""
        python -m pipeline.finetune --pack {input.pack:q} --net {input.net:q} \
            --weights {input.weights:q} --system {input.system:q} \
            --backend {params.backend} --threads {threads} --workers {params.workers} --seed {params.seed} \
            --output {output.weights:q} --output-system {output.system:q} \
            --history {output.history:q} --log {log:q}
        """
