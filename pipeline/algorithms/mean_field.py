"""Mean field inference in CRFs whose pairwise terms are Gaussian kernels."""

import torch
from torch.utils.checkpoint import checkpoint

from pipeline.kernels.mean_field_update import mean_field_update


def mean_field(
    unary,
    messages,
    weights,
    *,
    iterations,
    start=None,
    compatibility=None,
    normalise="softmax",
    tolerance=0.0,
    trace=None,
    recompute=False,
):
    """Iterate the mean-field update and return the last scores before they are normalised.

    Parameters
    ----------
    unary : Tensor of shape (B, C, H, W)
        U = −ψ_u, the log-probabilities of the network.
    messages : callable
        Takes q (B, C, H, W); returns what each of M kernels makes of it, a list of M such.
    weights : Tensor of shape (M, C) or (M, C, C), or a list of such
        What each kernel's message weighs in each class, or makes of each class (column) for each (row). Of a list each
        iteration takes its own, and those after the last take the last.
    iterations : int
        T; at 0 the unary is returned.
    start : Tensor of shape (B, C, H, W), optional
        What the first messages are of; without it Q of the unary.
    compatibility : Tensor of shape (C, C), or a list of such, optional
        Penalty of a class (row) beside another (column). Without it Potts, 1 − I.
    normalise : {"softmax", "relu"}
        What makes scores beliefs, see `NORMALISERS`.
    tolerance : float
        Stop when no probability changed by more than this; at 0 all iterations are run.
    trace : list, optional
        Gets one dict per iteration: iteration, change (max |ΔQ|), expected_energy and free_energy, both of the Q before
        it. The free energy is KL(Q ‖ P) − log Z, with Potts up to another constant.
    recompute : bool
        Keep only Q of every iteration for the backward pass, and work the rest out again there; where neither a
        tolerance nor a trace compares them.

    Returns
    -------
    Tensor of shape (B, C, H, W)
        Scores; normalised they are Q after the last iteration. Differentiable in all that `messages`, `weights` and
        `compatibility` rest on.

    Notes
    -----
    Source: Zheng et al., arXiv:1502.03240, Algorithm 1; Krähenbühl and Koltun, arXiv:1210.5644, Algorithm 1.
    """

    def message(q, step):
        return messages(q), step

    def scores(sent, step, result="scores"):
        return add(unary, sent, at(weights, step), at(compatibility, step), result)

    def update(sent):
        return scores(*sent, result="q") if normalise == "softmax" else NORMALISERS[normalise](scores(*sent))

    def watch(q, sent, new):
        pairwise = scores(*sent) - unary
        trace.append({"iteration": len(trace) + 1} | _energies(unary, q, pairwise) | _change(q, new))

    return iterate(
        NORMALISERS[normalise](unary) if start is None else start,
        message,
        update=update,
        finish=lambda sent: unary if sent is None else scores(*sent),
        iterations=iterations,
        tolerance=tolerance,
        watch=watch if trace is not None else None,
        recompute=recompute,
    )


def add(unary, messages, weights, compatibility=None, result="scores"):
    """Return the scores that weighted messages, of any compatibility, make of the unary; or with ``"q"`` their softmax.

    Parameters as for `mean_field`; messages, a list of M Tensors of shape (B, C, H, W), weights and compatibility are
    those of one iteration.
    """
    if compatibility is None and weights.ndim == 2:
        # −Σ (1 − I) m differs from +m by the same number for every class, and normalising takes that away.
        return mean_field_update(unary, messages, weights, result=result)
    scores = unary.flatten(2)
    for share, message in zip(shares(weights, compatibility), messages, strict=True):
        scores = torch.baddbmm(scores, share.expand(len(scores), -1, -1), message.flatten(2))
    scores = scores.view_as(unary)
    return scores if result == "scores" else beliefs(scores)


def shares(weights, compatibility=None):
    """Return what a message of each class (column) adds to the scores of each (row): (M, C, C)."""
    each = weights.diag_embed() if weights.ndim == 2 else weights
    return each if compatibility is None else -compatibility @ each


def at(values, step):
    """Return what one iteration takes: its own of a list, the last one's after its end; the same where there is one."""
    return values[min(step, len(values) - 1)] if isinstance(values, list) else values


def beliefs(scores, log=False):
    """Return Q, the softmax over the classes of scores (B, C, H, W), or its logarithm."""
    return mean_field_update(scores, [], scores.new_empty(0, scores.shape[1]), result="log_q" if log else "q")


def centred_relu(scores):
    """Return max(s − mean over the classes, 0), divided by its sum over the classes.

    Source: arXiv:1502.03240, section 6, "Normalization techniques". Scores are centred first: unlike a softmax a ReLU
    feels a number that is added to all classes. Where all scores are equal so are the beliefs.
    """
    positive = torch.relu(scores - scores.mean(dim=1, keepdim=True)) + torch.finfo(scores.dtype).tiny ** 0.5
    return positive / positive.sum(dim=1, keepdim=True)


NORMALISERS = {"softmax": beliefs, "relu": centred_relu}


def iterate(state, message, *, update, finish, iterations, tolerance=0.0, watch=None, recompute=False):
    """Alternate `message` of the state and `update` of it; return what `finish` makes of the last message.

    Parameters
    ----------
    state : Tensor
        Q, or what the messages need of it.
    message, update, finish : callable
        State and number of the iteration, from 0, to messages; messages to state; messages to result; `finish` gets
        None if there was no iteration.
    iterations : int
    tolerance : float
        Stop when no element of the state changed by more than this; at 0 never.
    watch : callable, optional
        Called with the state, its messages and the next state.
    recompute : bool
        Keep the states alone for the backward pass; only where all iterations are run and nobody watches.
    """
    sent = None
    compared = tolerance > 0 or watch is not None
    if recompute and iterations > 0 and not compared:
        for step in range(iterations - 1):
            state = checkpoint(lambda q, step=step: update(message(q, step)), state, use_reentrant=False)
        return checkpoint(lambda q: finish(message(q, iterations - 1)), state, use_reentrant=False)
    for step in range(iterations):
        sent = None  # what is not needed any more makes room for what comes
        sent = message(state, step)
        if step == iterations - 1 and watch is None:
            break
        state = state if compared else None
        new = update(sent)
        if watch is not None:
            watch(state, sent, new)
        if tolerance > 0 and _change(state, new)["change"] <= tolerance:
            break
        state = new
    return finish(sent)


def _change(q, new):
    return {"change": float((new - q).detach().abs().max())}


def _energies(unary, q, message):
    """Return the energies of Q, whose weighted message is given; each pair counts once."""
    q, unary, message = (x.detach().double() for x in (q, unary, message))
    energy = float(-(q * unary).sum() - 0.5 * (q * message).sum())
    return {"expected_energy": energy, "free_energy": energy + float(torch.xlogy(q, q).sum())}
