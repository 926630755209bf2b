"""The house rule: a fast path may be twice as far from float64 as plain float32 is, and an eps of the largest, no more.

A kernel comes as one of `calls.KERNELS`, its tensors and options by name.
"""

import torch

EPS = torch.finfo(torch.float32).eps
LAYOUTS = {
    "contiguous": lambda x: x,
    "channels last": lambda x: x.contiguous(memory_format=torch.channels_last),
    "columns first": lambda x: x.mT.contiguous().mT,
    "every second": lambda x: torch.stack([x, x], dim=-1).flatten(3)[..., ::2],
}


def device_of(backend):
    """Return where a backend's tensors lie; the reference runs on the CPU here."""
    return torch.device("cuda" if backend == "cuda" else "cpu")


def house_rule(fast, plain, exact, what):
    """Compare a fast result with float64, and with how far plain float32 is from it."""
    _judge([(*_distances(fast, plain, exact, what), what)])


def check(kernel, backend, cases):
    """Hold outputs and gradients of one of `calls.KERNELS` to the house rule; cases are (tensors, options, layout).

    Plain float32 may be exact by luck where a result is a few numbers. So the cases are judged together, output by
    output and gradient by gradient, each in units of its own largest number.
    """
    found = {}
    for tensors, options, layout in cases:
        fast, plain, exact = (
            run(kernel, name, tensors, options, dtype=dtype, layout=layout)
            for name, dtype in ((backend, torch.float32), ("reference", torch.float32), ("reference", torch.float64))
        )
        for part in exact:
            sizes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
            what = f"{part} of {kernel.call.__name__} by {backend}: {sizes}, {options}, {layout}"
            found.setdefault(part, []).append((*_distances(fast[part], plain[part], exact[part], what), what))
    for distances in found.values():
        _judge(distances)


def _distances(fast, plain, exact, what):
    """Return how far both are from float64, in units of its largest number."""
    assert fast.shape == exact.shape, what
    assert torch.isfinite(exact).all(), what
    unit = exact.abs().max().clamp_min(torch.finfo(torch.float32).tiny)
    return [float((x.cpu().double() - exact).abs().max() / unit) for x in (fast, plain)]


def _judge(distances):
    fast, what = max((distance, what) for distance, _, what in distances)
    plain = max(distance for _, distance, _ in distances)
    # Not the other way round: NaN is not below anything.
    assert fast <= 2 * plain + EPS, f"{what}: {fast:.2g} from float64, plain float32 {plain:.2g}"


def run(kernel, backend, tensors, options, *, dtype, layout="contiguous"):
    """Return the output and the gradients of its product with fixed random numbers, dict of str to Tensor."""
    leaves = {name: tensor.to(device_of(backend), dtype).detach().clone() for name, tensor in tensors.items()}
    moved = {name: leaf.requires_grad_() for name, leaf in leaves.items() if name not in kernel.still}
    laid = {name: LAYOUTS[layout](leaf) if leaf.ndim == 4 else leaf for name, leaf in leaves.items()}
    out = kernel.call(backend, **laid, **options)
    assert out.dtype == dtype
    found = {"output": out.detach()}
    if moved:
        # The same whole numbers in every dtype; none negative, so that the sums do not cancel.
        received = torch.randint(10, out.shape, generator=torch.Generator().manual_seed(1)).to(out)
        gradients = torch.autograd.grad(out, list(moved.values()), received)
        found |= {f"gradient to {name}": gradient for name, gradient in zip(moved, gradients, strict=True)}
    return found


def gradcheck(kernel, tensors, options):
    """Hold the reference's gradients in float64 to differences of its output."""
    doubles = {name: tensor.double().requires_grad_(name not in kernel.still) for name, tensor in tensors.items()}

    def function(*values):
        return kernel.call("reference", **dict(zip(doubles, values, strict=True)), **options)

    assert torch.autograd.gradcheck(function, tuple(doubles.values()))


def matrix_of(linear, height, width, dtype=torch.float64):
    """Return a linear filter of (1, C, H, W) as a matrix over pixels: column j is what it makes of the j-th unit."""
    pixels = height * width
    units = torch.eye(pixels, dtype=dtype).view(1, pixels, height, width)
    return linear(units)[0].detach().flatten(1).T.double().cpu().numpy()


def rounding(terms, largest):
    """Bound the rounding of a float64 sum of as many terms, each of which has a few roundings of its own."""
    return (terms + 8) * torch.finfo(torch.float64).eps * terms * largest


def exact(kernel, tensors, options):
    """Return the reference's output in float64 as an array."""
    return run(kernel, "reference", tensors, options, dtype=torch.float64)["output"].numpy()
