"""What the iterations of mean field do to the class that gains most in one image."""

import numpy as np

from pipeline.algorithms import iterations
from pipeline.figures import stepwise
from pipeline.figures.page import element, text
from pipeline.metrics import overlap


def show(subject):
    """Return it for the first system that runs mean field, as HTML; "" if none does."""
    found = next(((run, system) for run, system in subject.fitted if iterations.are_in(system)), None)
    if found is None:
        return ""
    run, system = found
    index = subject.best(subject.chief)
    sample = subject.pack.sample(subject.names[index])
    label = most_gained(*(_counts(subject.scores[name], index) for name in ("unary", run.system)))
    numbers, steps = stepwise.shown(system.settings.iterations), []
    after_each = iterations.scores_after(system, sample.image, subject.unaries(sample), numbers)
    for number, after in zip(numbers, after_each, strict=True):
        counts = overlap.confusion(sample.truth, after.max(dim=0).indices.byte().numpy(), subject.pack.classes)
        belief = after.softmax(dim=0)[label]
        steps.append((number, after[label].numpy(), belief.numpy(), 100 * overlap.iou(counts)[label]))
    title = text(sample.name) + element("span", text(f" {subject.pack.class_names[label]}, by {run.system}"))
    return stepwise.scene(sample, label, steps, title)


def most_gained(before, after):
    """Return the class of the truth whose IoU grows most from one table of counts (C, C) to the other."""
    grown = overlap.iou(after) - overlap.iou(before)
    return int(np.where(before.sum(axis=1) > 0, grown, -np.inf).argmax())


def _counts(score, index):
    """Return the counts of one image, (C, C)."""
    return np.concatenate(list(score.parts("all")))[index]
