"""What a jump between classes costs at each pixel, in the systems that have such costs on a grid of neighbours."""

import torch

from pipeline.algorithms import potts_grid
from pipeline.figures import pairwise
from pipeline.figures.page import element, text


def show(subject):
    """Return the costs of each such system on the image it gains most on, as HTML; "" if there is none."""
    shown = []
    for run, system in subject.fitted_with("edges"):
        sample = subject.pack.sample(subject.names[subject.best(run.system)])
        with torch.inference_mode():
            edges = system.module.edges(torch.from_numpy(sample.image).permute(2, 0, 1)[None].float())
        labels = (subject.labels[name].labels(sample.name, sample.truth) for name in ("unary", run.system))
        title = text(sample.name) + element("span", text(f" by {run.system}"))
        shown.append(pairwise.scene(sample, *labels, potts_grid.costs(edges)[0].numpy(), title))
    return "".join(shown)
