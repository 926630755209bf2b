rule refine:
    """Sharpen the unaries of one network with one fitted system."""
    input:
        pack="results/pack/{pack}.h5",
        unaries=unary_shards,
        system="results/fit/{pack}/{net}/{system}.npz",
    output:
        labels=directory("results/refine/{pack}/{net}/{system}.zarr"),
    log:
        "logs/refine/{pack}/{net}/{system}.log",
    benchmark:
        "results/refine/{pack}/{net}/{system}.time.tsv"
    conda:
        environment(config["backend"])
    threads: config["threads"]
    resources:
        gpu=GPUS,
        mem_mb=4000,
        runtime=720,
    params:
        backend=config["backend"],
        code=lambda w: source_hash("pipeline.refine", system_source(w.system)),
    shell:
        r"""
        python -m pipeline.refine --pack {input.pack:q} --unaries {input.unaries:q} --system {input.system:q} \
            --split val --backend {params.backend} --threads {threads} \
            --output {output.labels:q} --log {log:q}
        """
