rule score:
    """Count how the labels of one run agree with the truth: everywhere, and near edges."""
    input:
        pack="results/pack/{pack}.h5",
        labels=label_shards,
    output:
        score="results/score/{pack}/{net}/{system}.h5",
    log:
        "logs/score/{pack}/{net}/{system}.log",
    benchmark:
        "results/score/{pack}/{net}/{system}.time.tsv"
    conda:
        environment("cpu")
    threads: 1
    resources:
        mem_mb=growing(1000),
        runtime=growing(120),
    params:
        widths=sorted(config["widths"]),
        code=source_hash("pipeline.score"),
    shell:
        r"""
        python -m pipeline.score --pack {input.pack:q} --labels {input.labels:q} --split val \
            --widths {params.widths} --output {output.score:q} --log {log:q}
        """
