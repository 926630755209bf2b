rule finetune:
    """Train a network and a system together: a new network, and the system that goes with it."""
    input:
        pack="results/pack/{pack}.h5",
        net=lambda w: f"config/nets/{net_of(w.pair)}.yaml",
        weights=lambda w: weights_of(w.pack, NETS[net_of(w.pair)].net),
        system=lambda w: f"results/fit/{w.pack}/{NETS[net_of(w.pair)].net}/{NETS[net_of(w.pair)].system}.npz",
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
        mem_mb=growing(6000),
        runtime=growing(2880),
    params:
        backend=config["backend"],
        threads=config["threads"],
        workers=untracked_workers,
        seed=config["seed"],
        code=lambda w: source_hash(
            "pipeline.finetune",
            network_source(net_of(w.pair)),
            system_source(NETS[net_of(w.pair)].system),
        ),
    shell:
        r"""
        python -m pipeline.finetune --pack {input.pack:q} --net {input.net:q} \
            --weights {input.weights:q} --system {input.system:q} \
            --backend {params.backend} --threads {params.threads} --workers {params.workers} --seed {params.seed} \
            --output {output.weights:q} --output-system {output.system:q} \
            --history {output.history:q} --log {log:q}
        """
