"""What random walks do to one image: those of the network itself, and those of the systems after it."""

import torch

from pipeline import nets
from pipeline.algorithms import prediction
from pipeline.algorithms.refiners import as_batch
from pipeline.core.settings import Settings
from pipeline.figures import walks
from pipeline.figures.page import element, text
from pipeline.formats import weights


@torch.inference_mode()
def show(subject):
    """Return it on the image that the chief system gains most on, as HTML; "" if nothing walks."""
    sample = subject.pack.sample(subject.names[subject.best(subject.chief)])
    shown, run = "", subject.runs[0]
    for path in run.histories(subject.results)[:1]:
        file = path.with_suffix(".safetensors")
        chosen = Settings(weights.read_stamp(file)["settings"])
        if chosen.get("network", {}).get("walks"):
            network = nets.build(chosen.network, subject.pack.classes).eval()
            network.load_state_dict(weights.read(file)[0])
            images = prediction.as_input(sample.image, chosen.scaling, torch.device("cpu"))
            found = network.walked(images)
            shown += _scene(sample, found, network.grid.resize, chosen.network.walks, run.net)
    for run, system in subject.fitted_with("walked"):
        found = system.module.walked(*as_batch(sample.image, subject.unaries(sample), system.device))
        shown += _scene(sample, found, system.module.enlarged, system.settings.walks, run.system)
    return shown


def _scene(sample, found, enlarged, levels, name):
    """Return one image's diffusion; `enlarged` brings scores to a height and a width."""
    size = sample.truth.shape
    before, _, *after = (each.byte().numpy() for each in found.labels(lambda scores: enlarged(scores, *size)))
    pixels = walks.places(sample.truth, before, after[-1])
    rows = found.rows(torch.tensor([found.position(pixel, size) for pixel in pixels]))
    each = zip(levels, zip(*(share.tolist() for share in found.mixing), strict=True), after, rows, strict=True)
    steps = [
        (f"walk {number}, {level}", mixing, labels, row[0].numpy())
        for number, (level, mixing, labels, row) in enumerate(each, start=1)
    ]
    maps = before, found.influence()[0].numpy(), found.importance[0, 0].numpy()
    return walks.scene(sample, pixels, maps, steps, text(sample.name) + element("span", text(f" by {name}")))
