"""The fast CPU path, in Numba: eight neighbouring pixels of a row at a time.

Weights lie in memory as (H, K, P): for each row of pixels, for each of the K = (2 radius + 1)² offsets, the weights of
the row's pixels side by side, with P ≥ W a pitch that keeps offsets from falling on one another's place in the cache.
"""

from numba import float32, njit, prange

from pipeline.kernels.dispatch import image_by_image
from pipeline.kernels.simd import WIDTH, inside, kernel, load, load_part, spread, store, store_part
from pipeline.kernels.softmax import exp


def table(height, width, radius):
    """Return the shape of one image's weights."""
    rounded = -(-width // 16) * 16
    return height, (2 * radius + 1) ** 2, rounded + 16 if rounded % 64 == 0 else rounded


@njit(inline="always")
def _read(array, index, col, width, border):
    """Read eight pixels of a row from column `col` on; those outside the row are 0 where `border` says to look."""
    if border:
        return load_part(array, index, -col, width - col)
    return load(array, index)


@njit(inline="always")
def _write(array, index, lanes, col, width):
    if col + WIDTH > width:
        store_part(array, index, lanes, 0, width - col)
    else:
        store(array, index, lanes)


@njit(inline="always")
def _near_border(col, radius, width):
    return col < radius or col + WIDTH + radius > width


@njit(inline="always")
def _kernel(features, first, last, here, there, col, other, width, border):
    """Return k(i, j) for eight pixels i and their neighbours j; features (F, N), those of one kernel."""
    pixels = features.shape[1]
    distance = spread(float32(0))
    for feature in range(first, last):
        own = _read(features, feature * pixels + here, col, width, border)
        difference = own - _read(features, feature * pixels + there, other, width, border)
        distance += difference * difference
    return inside(exp(float32(-0.5) * distance), -other, width - other)


@njit(inline="always")
def _pull(strength, features, first, last, here, there, col, other, width, border, out):
    """Add to the gradient of eight pixels' features what draws them to their neighbours', `strength` times as far."""
    for feature in range(first, last):
        at = feature * features.shape[1]
        near = _read(features, at + here, col, width, border)
        moved = strength * (_read(features, at + there, other, width, border) - near)
        _write(out, at + here, _read(out, at + here, col, width, border) + moved, col, width)


@image_by_image
@kernel(parallel=True)
def degree(features, height, width, radius, out):
    """Sum the kernel over the window: features (F, N), out (N,)."""
    for row in prange(height):
        for col in range(0, width, WIDTH):
            border = _near_border(col, radius, width)
            here = row * width + col
            total = spread(float32(0))
            for other_row in range(max(0, row - radius), min(height, row + radius + 1)):
                for step in range(-radius, radius + 1):
                    there = other_row * width + col + step
                    total += _kernel(features, 0, features.shape[0], here, there, col, col + step, width, border)
            _write(out, here, total, col, width)


@image_by_image
@kernel(parallel=True)
def degree_backward(gradient, features, height, width, radius, out):
    """Return the gradient of `degree` to the features: gradient (N,), out (F, N)."""
    count = features.shape[0]
    for row in prange(height):
        out[:, row * width : (row + 1) * width] = 0
        for col in range(0, width, WIDTH):
            border = _near_border(col, radius, width)
            here = row * width + col
            own = _read(gradient, here, col, width, border)
            for other_row in range(max(0, row - radius), min(height, row + radius + 1)):
                for step in range(-radius, radius + 1):
                    other = col + step
                    there = other_row * width + other
                    # Each pair counts in the degree of both its pixels.
                    k = _kernel(features, 0, count, here, there, col, other, width, border)
                    both = (own + _read(gradient, there, other, width, border)) * k
                    _pull(both, features, 0, count, here, there, col, other, width, border, out)


@image_by_image
@kernel(parallel=True)
def weights(features, left, right, splits, height, width, radius, exclude_self, out):
    """Merge M kernels: features (F, N), kernel m those from splits[m] to splits[m + 1]; left and right (M, N)."""
    side, pixels, kernels = 2 * radius + 1, features.shape[1], left.shape[0]
    for row in prange(height):
        for col in range(0, width, WIDTH):
            border = _near_border(col, radius, width)
            here = row * width + col
            for offset in range(side * side):
                other_row, other = row + offset // side - radius, col + offset % side - radius
                merged = spread(float32(0))
                if 0 <= other_row < height and not (exclude_self and offset == side * side // 2):
                    there = other_row * width + other
                    for m in range(kernels):
                        scale = _read(left, m * pixels + here, col, width, border) * _read(
                            right, m * pixels + there, other, width, border
                        )
                        merged += scale * _kernel(
                            features, splits[m], splits[m + 1], here, there, col, other, width, border
                        )
                # Up to seven pixels beyond the row are written too, as 0: the pitch leaves room.
                store(out, (row * side * side + offset) * out.shape[2] + col, merged)


@image_by_image
@kernel(parallel=True)
def weights_backward(
    gradient, features, left, right, splits, height, width, radius, exclude_self, to_features, to_left, to_right
):
    """Return the gradients of `weights`: gradient (H, K, P); the others as their arguments."""
    side, pixels, kernels = 2 * radius + 1, features.shape[1], left.shape[0]
    pitch = gradient.shape[2]
    for row in prange(height):
        to_features[:, row * width : (row + 1) * width] = 0
        for col in range(0, width, WIDTH):
            border = _near_border(col, radius, width)
            here = row * width + col
            for m in range(kernels):
                at = m * pixels
                own_left = _read(left, at + here, col, width, border)
                own_right = _read(right, at + here, col, width, border)
                left_sum, right_sum = spread(float32(0)), spread(float32(0))
                for offset in range(side * side):
                    other_row, other = row + offset // side - radius, col + offset % side - radius
                    if 0 <= other_row < height and not (exclude_self and offset == side * side // 2):
                        there = other_row * width + other
                        k = _kernel(features, splits[m], splits[m + 1], here, there, col, other, width, border)
                        # As the one that receives, and as the neighbour that sends.
                        received = k * load(gradient, (row * side * side + offset) * pitch + col)
                        back = side * side - 1 - offset
                        sent_at = (other_row * side * side + back) * pitch + other
                        sent = k * _read(gradient, sent_at, other, width, border)
                        received = received * _read(right, at + there, other, width, border)
                        sent = sent * _read(left, at + there, other, width, border)
                        left_sum += received
                        right_sum += sent
                        both = received * own_left + sent * own_right
                        first, last = splits[m], splits[m + 1]
                        _pull(both, features, first, last, here, there, col, other, width, border, to_features)
                _write(to_left, at + here, left_sum, col, width)
                _write(to_right, at + here, right_sum, col, width)


@njit(inline="always")
def _sum(values, weights, row, col, height, width, radius, backward, out):
    """Write the weighted sums of eight pixels over their window: values and out (C, N).

    Weighted by the windows of these pixels, or, `backward`, by those of the neighbours, where they meet these pixels.
    """
    side, classes, pixels, pitch = 2 * radius + 1, values.shape[0], values.shape[1], weights.shape[2]
    border = _near_border(col, radius, width)
    here = row * width + col
    label = 0
    while label < classes:
        # Four classes share each weight they read; sums of four do not wait for one another.
        count = min(4, classes - label)
        plane = label * pixels
        second, third, fourth = (min(1, count - 1), min(2, count - 1), min(3, count - 1))
        a, b, c, d = spread(float32(0)), spread(float32(0)), spread(float32(0)), spread(float32(0))
        for other_row in range(max(0, row - radius), min(height, row + radius + 1)):
            if backward:
                at = (other_row * side * side + (row - other_row + radius) * side) * pitch
            else:
                at = (row * side * side + (other_row - row + radius) * side) * pitch + col
            for step in range(side):
                if backward:
                    other = col + radius - step
                    weight = _read(weights, at + step * pitch + other, other, width, border)
                else:
                    other = col + step - radius
                    weight = load(weights, at + step * pitch)
                there = plane + other_row * width + other
                a += weight * _read(values, there, other, width, border)
                b += weight * _read(values, there + second * pixels, other, width, border)
                c += weight * _read(values, there + third * pixels, other, width, border)
                d += weight * _read(values, there + fourth * pixels, other, width, border)
        _write(out, plane + here, a, col, width)
        _write(out, plane + second * pixels + here, b, col, width)
        _write(out, plane + third * pixels + here, c, col, width)
        _write(out, plane + fourth * pixels + here, d, col, width)
        label += 4


@image_by_image
@kernel(parallel=True)
def message(q, weights, height, width, radius, out):
    """Sum the neighbours' q (C, N), weighted, into out (C, N)."""
    for row in prange(height):
        for col in range(0, width, WIDTH):
            _sum(q, weights, row, col, height, width, radius, False, out)


@image_by_image
@kernel(parallel=True)
def message_backward_q(gradient, weights, height, width, radius, out):
    """Return the gradient of `message` to q: gradient and out (C, N)."""
    for row in prange(height):
        for col in range(0, width, WIDTH):
            _sum(gradient, weights, row, col, height, width, radius, True, out)


@njit(inline="always")
def _product(gradient, here, col, q, there, other, width, border):
    return _read(gradient, here, col, width, border) * _read(q, there, other, width, border)


@image_by_image
@kernel(parallel=True)
def message_backward_weights(gradient, q, height, width, radius, out):
    """Return the gradient of `message` to the weights: gradient and q (C, N), out (H, K, P)."""
    side, classes, pixels, pitch = 2 * radius + 1, q.shape[0], q.shape[1], out.shape[2]
    for row in prange(height):
        for col in range(0, width, WIDTH):
            border = _near_border(col, radius, width)
            here = row * width + col
            for offset in range(side * side):
                other_row, other = row + offset // side - radius, col + offset % side - radius
                one, two = spread(float32(0)), spread(float32(0))
                if 0 <= other_row < height:
                    there = other_row * width + other
                    for plane in range(0, (classes - 1) * pixels, 2 * pixels):
                        one += _product(gradient, plane + here, col, q, plane + there, other, width, border)
                        second = plane + pixels
                        two += _product(gradient, second + here, col, q, second + there, other, width, border)
                    if classes % 2 == 1:
                        last = (classes - 1) * pixels
                        one += _product(gradient, last + here, col, q, last + there, other, width, border)
                store(out, (row * side * side + offset) * pitch + col, one + two)
