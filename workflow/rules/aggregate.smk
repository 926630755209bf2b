rule aggregate:
    """Make one table of all runs, with the gain of each and how sure it is."""
    input:
        runs="config/runs/{runs}.tsv",
        scores=lambda w: [run.score("results") for run in RUNS[w.runs]],
        systems=lambda w: [run.fitted("results") for run in RUNS[w.runs]],
    output:
        table=report("results/aggregate/{runs}.tsv", caption="../report/table.rst", category="Table"),
    log:
        "logs/aggregate/{runs}.log",
    benchmark:
        "results/aggregate/{runs}.time.tsv"
    conda:
        environment("cpu")
    threads: 1
    resources:
        mem_mb=growing(1000),
        runtime=growing(60),
    params:
        resamples=config["resamples"],
        seed=config["seed"],
        code=source_hash("pipeline.aggregate"),
    shell:
        r"""
        python -m pipeline.aggregate --runs {input.runs:q} --results results --resamples {params.resamples} \
            --seed {params.seed} --output {output.table:q} --log {log:q}
        """
