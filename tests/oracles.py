"""Slow and sure: what the fast code computes, once more, pixel by pixel in float64, straight from the formulas."""

import itertools

import numpy as np


def kernel_matrix(features, radius=None):
    """Return K, (H·W, H·W): exp(−½ ‖f_i − f_j‖²) where j lies in the window of i, else 0; features (F, H, W)."""
    _, height, width = features.shape
    pixels = list(itertools.product(range(height), range(width)))
    matrix = np.zeros((len(pixels), len(pixels)))
    for i, (row, col) in enumerate(pixels):
        for j, (other_row, other_col) in enumerate(pixels):
            if radius is None or max(abs(row - other_row), abs(col - other_col)) <= radius:
                difference = features[:, row, col] - features[:, other_row, other_col]
                matrix[i, j] = np.exp(-0.5 * (difference**2).sum())
    return matrix


def positions(height, width):
    """Return row and col of every pixel, (2, H, W)."""
    return np.stack(np.meshgrid(np.arange(height), np.arange(width), indexing="ij")).astype(np.float64)


def apply(matrix, values):
    """Return the sums over pixels: matrix (H·W, H·W), values (C, H, W)."""
    return (values.reshape(len(values), -1) @ matrix.T).reshape(values.shape)


def transition_matrix(features, affinity="product"):
    """Return P, (H·W, H·W): row i has exp(⟨ψ_i, ψ_j⟩) or exp(−½ ‖ψ_i − ψ_j‖²) over its sum; features (K, H, W)."""
    positions = features.reshape(len(features), -1).T
    matrix = np.zeros((len(positions), len(positions)))
    for i, own in enumerate(positions):
        for j, other in enumerate(positions):
            product, distance = (own * other).sum(), ((own - other) ** 2).sum()
            matrix[i, j] = np.exp(product if affinity == "product" else -distance / 2)
        matrix[i] /= matrix[i].sum()
    return matrix


def normalised(matrix, mode, exclude_self=False):
    """Return a kernel matrix in one of its normalisations, with or without the pixel itself."""
    matrix = matrix - np.eye(len(matrix)) * exclude_self
    total = matrix.sum(axis=1)
    return {
        "none": matrix,
        "symmetric": matrix / np.sqrt(np.abs(total[:, None] * total[None, :])),
        "after": matrix / total[:, None],
        "before": matrix / total[None, :],
    }[mode]


def lattice_matrix(features):
    """Return slice · blur · splat on the permutohedral lattice as a matrix over pixels; features (F, H, W).

    Adams, Baek and Davis 2010: a pixel is lifted to the plane Σ = 0 in d + 1 dimensions and shares its value among the
    corners of the simplex around it by barycentric coordinates; the blur (½, 1, ½) runs along each axis in turn over
    the corners that any pixel touches. The nearest point of remainder 0 is searched, the coordinates are solved for.
    """
    lifted = _lift(features.reshape(len(features), -1).T)
    corners = lifted.shape[1]
    number, shares = {}, []
    for point in lifted:
        simplex = _simplex(point)
        weights = np.linalg.lstsq(np.vstack([simplex.T, np.ones(corners)]), np.append(point, 1), rcond=None)[0]
        assert weights.min() > -1e-9  # or it is not the simplex around the point
        vertices = [number.setdefault(tuple(map(int, corner)), len(number)) for corner in simplex]
        shares.append(list(zip(vertices, weights, strict=True)))
    splat = np.zeros((len(number), len(lifted)))
    for pixel, share in enumerate(shares):
        for vertex, weight in share:
            splat[vertex, pixel] += weight
    at_vertices = splat
    for axis in range(corners):
        step = 1 - corners * (np.arange(corners) == axis)
        blurred = at_vertices.copy()
        for key, vertex in number.items():
            for near in (tuple(np.array(key) + step), tuple(np.array(key) - step)):
                if near in number:
                    blurred[vertex] += 0.5 * at_vertices[number[near]]
        at_vertices = blurred
    return splat.T @ at_vertices / (1 + 2.0 ** (1 - corners))


def _lift(points):
    """Scale points (N, d) to the lattice's spacing and lift them to the plane Σ = 0 in d + 1 dimensions."""
    dimensions = points.shape[1]
    basis = np.zeros((dimensions + 1, dimensions))
    for axis in range(dimensions):
        basis[: axis + 1, axis] = 1
        basis[axis + 1, axis] = -(axis + 1)
        basis[:, axis] /= np.linalg.norm(basis[:, axis])
    return (dimensions + 1) * np.sqrt(2 / 3) * points @ basis.T


def _simplex(point):
    """Return the corners of the simplex around a point, (d + 1, d + 1): that of remainder r is row r."""
    corners = len(point)
    sides = [(np.floor(x / corners) * corners, np.ceil(x / corners) * corners) for x in point]
    on_plane = [np.array(candidate) for candidate in itertools.product(*sides) if sum(candidate) == 0]
    nearest = min(on_plane, key=lambda candidate: ((point - candidate) ** 2).sum())
    order = np.argsort(np.argsort(nearest - point))  # 0 where the point lies furthest above
    canonical = [np.where(order < corners - r, r, r - corners) for r in range(corners)]
    return nearest + np.array(canonical)


def cells(size, factor):
    """Return which cell of the coarse grid, centred over the image, each of `size` pixels lies in, and their number."""
    count = -(-size // factor)
    first = -(-(count * factor - size) // 2)
    return [(pixel + first) // factor for pixel in range(size)], first, count


def averaging(size, factor):
    """Return the means over the cells of one axis as a matrix (cells, pixels)."""
    own, _, count = cells(size, factor)
    matrix = np.array([[float(cell == number) for cell in own] for number in range(count)])
    return matrix / matrix.sum(axis=1, keepdims=True)


def interpolating(size, factor):
    """Return linear interpolation between the cells' centres, held at the outer ones, as a matrix (pixels, cells)."""
    _, first, count = cells(size, factor)
    matrix = np.zeros((size, count))
    for pixel in range(size):
        place = min(max((pixel + first + 0.5) / factor - 0.5, 0), count - 1)
        for cell in range(count):
            matrix[pixel, cell] = max(0, 1 - abs(place - cell))
    return matrix


def mean_field(unary, matrix, penalty, iterations):
    """Return Q (C, H, W) after some iterations of mean field, by its definition.

    Q_i(x) ∝ exp(U_i(x) − Σ_j Σ_y penalty[x, y] K_ij(y) Q_j(y)); it starts at softmax(U). The matrix is (N, N), or
    (C, N, N) if the kernels weigh differently in each class y.
    """
    classes = unary.shape[0]
    scores = unary.reshape(classes, -1)
    matrix = np.broadcast_to(matrix, (classes, *matrix.shape[-2:]))
    q = softmax(scores)
    for _ in range(iterations):
        energy = np.zeros_like(scores)
        for i, j in itertools.product(range(scores.shape[1]), repeat=2):
            for label, other in itertools.product(range(classes), repeat=2):
                energy[label, i] += penalty[label, other] * matrix[other, i, j] * q[other, j]
        q = softmax(scores - energy)
    return q.reshape(unary.shape)


def energies(q, unary, matrix):
    """Return the Potts energy Σ −U + Σ_{i<j} [x_i ≠ x_j] K_ij expected under Q, and KL(Q ‖ P) − log Z.

    Both over all labelings one by one; q and unary (C, N), matrix (N, N).
    """
    classes, pixels = q.shape
    expected = divergence = 0.0
    for labels in itertools.product(range(classes), repeat=pixels):
        energy = -sum(unary[label, i] for i, label in enumerate(labels))
        for i, j in itertools.combinations(range(pixels), 2):
            energy += matrix[i, j] * (labels[i] != labels[j])
        probability = np.prod([q[label, i] for i, label in enumerate(labels)])
        expected += probability * energy
        divergence += probability * (np.log(probability) + energy)
    return expected, divergence


def softmax(scores):
    """Softmax over the first axis."""
    powers = np.exp(scores - scores.max(axis=0))
    return powers / powers.sum(axis=0)
