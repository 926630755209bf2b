"""What a network says of photographs: logits at its own stride or at their size, and labels."""

import numpy as np
import torch
from torch.nn import functional

from pipeline.algorithms.batches import scaled


def as_input(image, scaling, device):
    """Return one photograph (H, W, 3) uint8 as the network wants it: (1, 3, H, W) float32."""
    photograph = torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1)[None].to(device)
    return scaled(photograph.float() / 255, scaling)


def reached(images, network):
    """Return scaled images (B 3 H W), enlarged so that entries stand on both sides of every pixel.

    What is added, below and to the right, is 0: the mean colour.
    """
    missing = [network.grid.missing(size) for size in images.shape[-2:]]
    return functional.pad(images, (0, missing[1], 0, missing[0]))


def full_size(network, images):
    """Return a network's logits, float32, at the size of its images (B 3 H W), which are scaled."""
    scores = network(reached(images, network)).float()
    return network.grid.resize(scores, *images.shape[-2:])


def logits(network, image, scaling, device):
    """Return the network's logits (1 C h w) float32 of one photograph, at its own stride, in evaluation mode."""
    network.eval()
    with torch.inference_mode():
        return network(reached(as_input(image, scaling, device), network)).float()


def labels(network, image, scaling, device):
    """Return the network's own labels (H, W) uint8 of one photograph."""
    network.eval()
    with torch.inference_mode():
        scores = full_size(network, as_input(image, scaling, device))
    return scores[0].max(dim=0).indices.byte().cpu().numpy()
