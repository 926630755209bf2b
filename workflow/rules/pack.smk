rule pack:
    """Pack a raw data set into one HDF5 file."""
    input:
        settings="config/packs/{pack}.yaml",
    output:
        pack="results/pack/{pack}.h5",
    log:
        "logs/pack/{pack}.log",
    benchmark:
        "results/pack/{pack}.time.tsv"
    conda:
        environment("cpu")
    threads: config["threads"]
    resources:
        mem_mb=growing(2000),
        runtime=growing(120),
    params:
        seed=config["seed"],
        code=lambda w: source_hash("pipeline.pack", f"pipeline.datasets.{PACKS[w.pack].reader}"),
    shell:
        r"""
        python -m pipeline.pack --settings {input.settings:q} --seed {params.seed} --threads {threads} \
            --output {output.pack:q} --log {log:q}
        """
