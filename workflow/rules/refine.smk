rule refine:
    """Sharpen the unaries of one network with one fitted system, one shard of the images."""
    input:
        pack="results/pack/{pack}.h5",
        unaries=unary_shards,
        system="results/fit/{pack}/{net}/{system}.npz",
    output:
        labels=directory("results/refine/{pack}/{net}/{system}/{shard}.zarr"),
    log:
        "logs/refine/{pack}/{net}/{system}/{shard}.log",
    benchmark:
        "results/refine/{pack}/{net}/{system}/{shard}.time.tsv"
    conda:
        environment(config["backend"])
    threads: config["system_threads"]
    resources:
        gpu=GPUS,
        mem_mb=growing(4000),
        runtime=growing(720),
    params:
        backend=config["backend"],
        threads=config["system_threads"],
        shard=shard_of,
        tile=config["tile"],
        halo=config["halo"] if config["tile"] else 0,
        code=lambda w: source_hash("pipeline.refine", system_source(w.system)),
    shell:
        r"""
        python -m pipeline.refine --pack {input.pack:q} --unaries {input.unaries:q} --system {input.system:q} \
            --split val --shard {params.shard} --backend {params.backend} --threads {params.threads} \
            --tile {params.tile} --halo {params.halo} --output {output.labels:q} --log {log:q}
        """
