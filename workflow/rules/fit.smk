# A fine-tuned pair's system comes out of its training.
ruleorder: finetune > fit


rule fit_part:
    """Do one part of what a search begins with, into its journal, where `fit` finds it."""
    input:
        pack="results/pack/{pack}.h5",
        unaries=unary_shards,
        settings="config/systems/{system}.yaml",
    output:
        counted=touch("results/fit/{pack}/{net}/{system}.search/{shard}.counted"),
    log:
        "logs/fit/{pack}/{net}/{system}.{shard}.log",
    benchmark:
        "results/fit/{pack}/{net}/{system}.{shard}.time.tsv"
    conda:
        environment(config["backend"])
    threads: fitting_cores
    resources:
        gpu=GPUS,
        mem_mb=growing(4000),
        runtime=growing(720),
    params:
        backend=config["backend"],
        threads=config["system_threads"],
        workers=untracked_workers,
        seed=config["seed"],
        shard=shard_of,
        journal="results/fit/{pack}/{net}/{system}.search",
        code=lambda w: source_hash("pipeline.fit", system_source(w.system)),
    shell:
        r"""
        python -m pipeline.fit --pack {input.pack:q} --unaries {input.unaries:q} --settings {input.settings:q} \
            --backend {params.backend} --threads {params.threads} --workers {params.workers} --seed {params.seed} \
            --journal {params.journal:q} --part {params.shard} --log {log:q}
        """


rule fit:
    """Fit one system to one network's unaries, on the held-out images."""
    input:
        pack="results/pack/{pack}.h5",
        unaries=unary_shards,
        settings="config/systems/{system}.yaml",
        weights=lambda w: file_of(SYSTEMS[w.system], "branch_weights"),
        counted=search_parts,
    output:
        system="results/fit/{pack}/{net}/{system}.npz",
    log:
        "logs/fit/{pack}/{net}/{system}.log",
    benchmark:
        "results/fit/{pack}/{net}/{system}.time.tsv"
    conda:
        environment(config["backend"])
    threads: fitting_cores
    resources:
        gpu=GPUS,
        mem_mb=growing(4000),
        runtime=growing(720),
    params:
        backend=config["backend"],
        threads=config["system_threads"],
        workers=untracked_workers,
        seed=config["seed"],
        # Not an output: Snakemake would take a search's journal away before a new fit, which can use it.
        journal="results/fit/{pack}/{net}/{system}.search",
        code=lambda w: source_hash("pipeline.fit", system_source(w.system)),
    shell:
        r"""
        python -m pipeline.fit --pack {input.pack:q} --unaries {input.unaries:q} --settings {input.settings:q} \
            --backend {params.backend} --threads {params.threads} --workers {params.workers} --seed {params.seed} \
            --journal {params.journal:q} --output {output.system:q} --log {log:q}
        """
