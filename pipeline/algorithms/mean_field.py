"""Mean field inference in CRFs whose pairwise terms are Gaussian kernels."""

import torch

from pipeline.kernels.mean_field_update import mean_field_update


def mean_field(unary, messages, weights, *, iterations, start=None, compatibility=None, tolerance=0.0, trace=None):
    """Iterate the mean-field update and return the last scores before their softmax.

    Parameters
    ----------
    unary : Tensor of shape (B, C, H, W)
        U = −ψ_u, the log-probabilities of the network.
    messages : callable
        Takes q (B, C, H, W); returns what each of M kernels makes of it, a list of M such.
    weights : Tensor of shape (M, C)
        What each kernel's message weighs in each class.
    iterations : int
        T; at 0 the unary is returned.
    start : Tensor of shape (B, C, H, W), optional
        What the first messages are of; without it Q of the unary.
    compatibility : Tensor of shape (C, C), optional
        Penalty of a class (row) beside another (column). Without it Potts, 1 − I.
    tolerance : float
        Stop when no probability changed by more than this; at 0 all iterations are run.
    trace : list, optional
        Gets one dict per iteration: iteration, change (max |ΔQ|), expected_energy and free_energy, both of the Q before
        it. The free energy is KL(Q ‖ P) − log Z, with Potts up to another constant.

    Returns
    -------
    Tensor of shape (B, C, H, W)
        Scores; their softmax is Q after the last iteration. Differentiable in all that `messages` and `weights` rest
        on.

    Notes
    -----
    Source: Zheng et al., arXiv:1502.03240, Algorithm 1; Krähenbühl and Koltun, arXiv:1210.5644, Algorithm 1.
    """

    def message(q):
        sent = messages(q)
        if compatibility is None:
            # −Σ (1 − I) m differs from +m by the same number for every class, and the softmax takes that away.
            return sent, weights
        total = _weighted(sent, weights)
        return [-torch.einsum("ij,bjhw->bihw", compatibility, total)], torch.ones_like(weights[:1])

    def watch(q, sent, new):
        trace.append({"iteration": len(trace) + 1} | _energies(unary, q, _weighted(*sent)) | _change(q, new))

    return iterate(
        beliefs(unary) if start is None else start,
        message,
        update=lambda sent: mean_field_update(unary, *sent),
        finish=lambda sent: unary if sent is None else mean_field_update(unary, *sent, result="scores"),
        iterations=iterations,
        tolerance=tolerance,
        watch=watch if trace is not None else None,
    )


def beliefs(scores, log=False):
    """Return Q, the softmax over the classes of scores (B, C, H, W), or its logarithm."""
    return mean_field_update(scores, [], scores.new_empty(0, scores.shape[1]), result="log_q" if log else "q")


def iterate(state, message, *, update, finish, iterations, tolerance=0.0, watch=None):
    """Alternate `message` of the state and `update` of it; return what `finish` makes of the last message.

    Parameters
    ----------
    state : Tensor
        Q, or what the messages need of it.
    message, update, finish : callable
        State to messages, messages to state, messages to result; `finish` gets None if there was no iteration.
    iterations : int
    tolerance : float
        Stop when no element of the state changed by more than this; at 0 never.
    watch : callable, optional
        Called with the state, its messages and the next state.
    """
    sent = None
    compared = tolerance > 0 or watch is not None
    for step in range(1, iterations + 1):
        sent = None  # what is not needed any more makes room for what comes
        sent = message(state)
        if step == iterations and watch is None:
            break
        state = state if compared else None
        new = update(sent)
        if watch is not None:
            watch(state, sent, new)
        if tolerance > 0 and _change(state, new)["change"] <= tolerance:
            break
        state = new
    return finish(sent)


def _weighted(sent, weights):
    return sum(weight.view(1, -1, 1, 1) * message for message, weight in zip(sent, weights, strict=True))


def _change(q, new):
    return {"change": float((new - q).detach().abs().max())}


def _energies(unary, q, message):
    """Return the energies of Q, whose weighted message is given; each pair counts once."""
    q, unary, message = (x.detach().double() for x in (q, unary, message))
    energy = float(-(q * unary).sum() - 0.5 * (q * message).sum())
    return {"expected_energy": energy, "free_energy": energy + float(torch.xlogy(q, q).sum())}
