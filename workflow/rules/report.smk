rule report:
    """Show it: table, curves and pictures on one page that needs nothing else."""
    input:
        runs="config/runs/{runs}.tsv",
        table="results/aggregate/{runs}.tsv",
        packs=lambda w: sorted({str(run.pack_file("results")) for run in RUNS[w.runs]}),
        unaries=lambda w: [shard for run in RUNS[w.runs] for shard in unary_shards(run)],
        labels=lambda w: [shard for run in RUNS[w.runs] for shard in label_shards(run)],
        scores=lambda w: [run.score("results") for run in RUNS[w.runs]],
        systems=lambda w: [run.fitted("results") for run in RUNS[w.runs]],
        trainings=lambda w: sorted({path for run in RUNS[w.runs] for path in trainings_of(run.pack, run.net)}),
    output:
        page=report("results/report/{runs}/index.html", caption="../report/page.rst", category="Report"),
        figures=report(
            directory("results/report/{runs}/figures"),
            patterns=["{figure}.svg"],
            caption="../report/figure.rst",
            category="Figures",
        ),
    log:
        "logs/report/{runs}.log",
    benchmark:
        "results/report/{runs}.time.tsv"
    conda:
        environment("cpu")
    threads: 1
    resources:
        mem_mb=growing(2000),
        runtime=growing(60),
    params:
        images=config["gallery"],
        shards=config["shards"],
        code=lambda w: source_hash(
            "pipeline.report",
            *{system_source(run.system) for run in RUNS[w.runs]},
            *{network_source(run.net) for run in RUNS[w.runs]},
        ),
    shell:
        r"""
        python -m pipeline.report --runs {input.runs:q} --table {input.table:q} --results results \
            --shards {params.shards} --images {params.images} --output $(dirname {output.page:q}) --log {log:q}
        """
