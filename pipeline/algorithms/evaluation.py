"""How well a network labels images, on the way through a training."""

import numpy as np
import torch

from pipeline.algorithms.batches import scaled
from pipeline.core.unaries import resize


def as_input(image, scaling, device):
    """Return one photograph (H, W, 3) uint8 as the network wants it: (1, 3, H, W) float32."""
    photograph = torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1)[None].to(device)
    return scaled(photograph.float() / 255, scaling)


def logits(network, image, scaling, device):
    """Return the network's logits (1 C h w) float32 of one photograph, at its own stride, in evaluation mode."""
    network.eval()
    with torch.inference_mode():
        return network(as_input(image, scaling, device)).float()


def labels(network, image, scaling, device):
    """Return the network's own labels (H, W) uint8 of one photograph."""
    scores = resize(logits(network, image, scaling, device), *image.shape[:2])
    return scores[0].argmax(dim=0).byte().cpu().numpy()
