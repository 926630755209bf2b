rule train:
    """Train the network that gives the unaries."""
    input:
        pack="results/pack/{pack}.h5",
        net="config/nets/{net}.yaml",
        weights=lambda w: starting_weights(w.pack, w.net),
    output:
        weights="results/train/{pack}/{net}.safetensors",
        history="results/train/{pack}/{net}.jsonl",
    log:
        "logs/train/{pack}/{net}.log",
    benchmark:
        "results/train/{pack}/{net}.time.tsv"
    conda:
        environment(config["backend"])
    threads: config["threads"] * config["processes"]
    resources:
        gpu=GPUS * config["processes"],
        mem_mb=growing(6000 * config["processes"]),
        runtime=growing(2880),
    params:
        backend=config["backend"],
        workers=untracked_workers,
        seed=config["seed"],
        threads=config["threads"],
        python=launcher(config["processes"]),
        start=lambda w, input: ["--start", *input.weights] if "init_from" in NETS[w.net] else [],
        code=lambda w: source_hash("pipeline.train", network_source(w.net)),
    shell:
        r"""
        {params.python} pipeline.train --pack {input.pack:q} --net {input.net:q} {params.start:q} \
            --backend {params.backend} --threads {params.threads} --workers {params.workers} --seed {params.seed} \
            --output {output.weights:q} --history {output.history:q} --log {log:q}
        """
