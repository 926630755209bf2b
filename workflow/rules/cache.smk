rule cache:
    """Cache a network's scores for the images that systems are fitted and tried on, one shard of them."""
    input:
        pack="results/pack/{pack}.h5",
        net="config/nets/{net}.yaml",
        weights=lambda w: weights_of(w.pack, w.net),
    output:
        unaries=directory("results/cache/{pack}/{net}/{shard}.zarr"),
    log:
        "logs/cache/{pack}/{net}/{shard}.log",
    benchmark:
        "results/cache/{pack}/{net}/{shard}.time.tsv"
    conda:
        environment(config["backend"])
    threads: config["threads"]
    resources:
        gpu=GPUS,
        mem_mb=growing(4000),
        runtime=growing(720),
    params:
        backend=config["backend"],
        threads=config["threads"],
        # The truth with noise has no weights, and networks draw nothing.
        origin=lambda w, input: ["--weights", input.weights] if input.weights else ["--seed", config["seed"]],
        shard=shard_of,
        code=lambda w: source_hash("pipeline.cache", network_source(w.net)),
    shell:
        r"""
        python -m pipeline.cache --pack {input.pack:q} --net {input.net:q} {params.origin:q} \
            --shard {params.shard} --backend {params.backend} --threads {params.threads} \
            --output {output.unaries:q} --log {log:q}
        """
