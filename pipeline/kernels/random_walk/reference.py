"""The formula in plain PyTorch: P is stored."""


def random_walk(features, values, affinity):
    """See the contract in the package."""
    return (values.flatten(2) @ transition(features, slice(None), affinity).mT).view_as(values)


def transition(features, rows, affinity):
    """Return rows of P: (B, R, H·W)."""
    walkers = features.flatten(2)
    likeness = walkers[:, :, rows].mT @ walkers
    if affinity == "distance":
        likeness = likeness - walkers.square().sum(dim=1, keepdim=True) / 2
    return likeness.softmax(dim=2)
