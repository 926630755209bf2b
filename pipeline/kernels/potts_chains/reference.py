"""The recursions in plain PyTorch, all chains of an image at once, in any floating dtype."""

import torch


def hand_over(unary, rows, weight, down, labels, minimum):
    """See the contract in the package."""
    share, found = minorant(chains(unary - rows if down else rows, down), weight.mT if down else weight)
    minimum.copy_(found)
    share = chains(share, down)
    if labels is not None:
        labels.copy_(share.min(dim=1).indices)
    rows.add_(share if down else -share)


def chains(values, down):
    """Return values (B, C, H, W) with the chains along the last axis; twice gives back what was."""
    return values.mT if down else values


def minorant(cost, weight):
    """Return the shares (B, C, N, P) of chains along the last axis, and their minima (B, N), float64.

    Parameters
    ----------
    cost : Tensor of shape (B, C, N, P)
    weight : Tensor of shape (B, N, P − 1)

    Notes
    -----
    A segment is cut at its middle edge into halves that no longer hang together. Of the minimum that a label of the
    left end leads to, the left half keeps a share as large as its number of nodes; the right half gets what it can of
    the rest, and what it cannot take bounces back. Both halves then have together the minimum of the segment, and every
    label of every node is part of one of its minima: nothing is left to be given away.
    """
    cost = cost.clone()
    nodes = cost.shape[3]

    def cut(start, end):
        """Separate the nodes from `start` to before `end`; return their minimum."""
        if end - start == 1:
            return cost[..., start].min(dim=1).values.double()
        middle = (start + end - 1) // 2
        left, below = messages(range(start, middle), 1)
        right, above = messages(range(end - 1, middle + 1, -1), -1)
        left, right = cost[..., middle] + left, cost[..., middle + 1] + right
        edge = weight[:, None, :, middle]
        marginal = left + message(right, edge)
        least = below + above + (right.min(dim=1).values.double() + marginal.min(dim=1).values.double())
        to_right = message(left - (middle + 1 - start) / (end - start) * marginal, edge)
        cost[..., middle] += message(-to_right, edge)
        cost[..., middle + 1] += to_right
        cut(start, middle + 1)
        cut(middle + 1, end)
        return least

    def messages(senders, step):
        """Pass messages from node to node; return the last and the sum of what was subtracted on the way."""
        last, taken = torch.zeros_like(cost[..., 0]), torch.zeros_like(cost[:, 0, :, 0], dtype=torch.float64)
        for node in senders:
            so_far = cost[..., node] + last
            taken = taken + so_far.min(dim=1).values.double()
            last = message(so_far, weight[:, None, :, min(node, node + step)])
        return last, taken

    total = cut(0, nodes)
    return cost - cost.min(dim=1, keepdim=True).values, total


def message(so_far, weight):
    """Return what the least over the other end's labels adds, (B, C, N), less its own minimum: Potts costs."""
    return torch.minimum(so_far - so_far.min(dim=1, keepdim=True).values, weight)


def minimum(unary, rows, weight, down):
    """See the contract in the package."""
    unary, rows, weight = unary.double(), rows.double(), weight.double()
    cost = chains(unary - rows if down else rows, down)
    weight = weight.mT if down else weight
    last = total = torch.zeros_like(cost[..., 0])
    total = total[:, 0]
    for node in range(cost.shape[3]):
        so_far = cost[..., node] + last
        total = total + so_far.min(dim=1).values
        if node + 1 < cost.shape[3]:
            last = message(so_far, weight[:, None, :, node])
    return total


def relabel(unary, weight, across, down, first, labels):
    """See the contract in the package."""
    cost = chains(unary.clone(), down)
    of_chains, weight, across = (x.mT if down else x for x in (labels, weight, across))
    known = of_chains.long()[:, None]
    # A neighbour's label costs all others the edge's weight: the same, up to a constant, as a discount on itself.
    cost[:, :, 1:].scatter_add_(1, known[:, :, :-1], -across[:, None])
    cost[:, :, :-1].scatter_add_(1, known[:, :, 1:], -across[:, None])
    of_chains[:, first::2] = best(cost[:, :, first::2], weight[:, first::2]).to(labels.dtype)


def best(cost, weight):
    """Return the best labels (B, N, P) of chains: of equals the one of the next node, else the lowest."""
    nodes = cost.shape[3]
    so_far = [cost[..., 0]]
    for node in range(1, nodes):
        so_far.append(cost[..., node] + message(so_far[-1], weight[:, None, :, node - 1]))
    label = so_far[-1].argmin(dim=1)
    found = [label]
    for node in range(nodes - 2, -1, -1):
        least = so_far[node].min(dim=1)
        here = so_far[node].gather(1, label[:, None])[:, 0] - least.values
        label = torch.where(here <= weight[..., node], label, least.indices)
        found.append(label)
    return torch.stack(found[::-1], dim=2)
