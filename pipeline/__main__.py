"""List the stages in the order of the flow: `python -m pipeline`."""

import ast
from pathlib import Path

STAGES = ("pack", "train", "cache", "fit", "refine", "finetune", "score", "aggregate", "report")


def main():
    """Print each stage's name with the first line of its docstring, which is read, not imported."""
    print("Stages, each `python -m pipeline.STAGE --help`; `snakemake --cores 2` runs them all:")
    for stage in STAGES:
        source = (Path(__file__).parent / f"{stage}.py").read_text(encoding="utf-8")
        print(f"  {stage:10} {ast.get_docstring(ast.parse(source)).splitlines()[0]}")
    print("`python -m pipeline.tools.inspect PATH` shows any file they leave.")


if __name__ == "__main__":
    main()
