// Gaussian kernels cut off at a window; the formulas stand in __init__.py, the launches in cuda.py.
//
// Every tensor is a batch of planes of N = height * width pixels. Weights are (B, K, N), K = SIDE * SIDE offsets: the
// lanes of a warp, neighbours in a row, read and write neighbouring numbers. Gradients gather: each number is summed by
// one thread in a fixed order, so results do not depend on how blocks are scheduled.

#ifndef RADIUS
#define RADIUS 5
#endif
#ifndef SPLITS
#define SPLITS 0, 5, 7  // first feature of each kernel, and their number
#endif
#ifndef KERNELS
#define KERNELS 2
#endif
#ifndef FEATURES
#define FEATURES 7
#endif
#ifndef EXCLUDE_SELF
#define EXCLUDE_SELF 0
#endif
#ifndef CHUNK
#define CHUNK 8  // classes that one thread sums
#endif
#ifndef PIXELS
#define PIXELS 4  // rows of pixels that one thread sums
#endif
#ifndef SPAN
#define SPAN 11  // rows and columns of the window whose tile is in shared memory
#endif
#ifndef COLS
#define COLS 32
#endif
#ifndef ROWS
#define ROWS 4
#endif

constexpr int SIDE = 2 * RADIUS + 1;
constexpr int OFFSETS = SIDE * SIDE;
constexpr int TILE_ROWS = ROWS * PIXELS + SPAN - 1;
constexpr int TILE_COLS = COLS + SPAN - 1;
typedef float Tile[TILE_ROWS][TILE_COLS];

// exp(−½ ‖own − there‖²) over the features from `first` to before `stop`; there[f * pixels] is the neighbour's feature f.
__device__ __forceinline__ float gaussian(const float* own, const float* there, long long pixels, int first, int stop) {
  float distance = 0.f;
#pragma unroll
  for (int f = first; f < stop; ++f) {
    const float difference = own[f] - there[f * pixels];
    distance += difference * difference;
  }
  return expf(-0.5f * distance);
}

extern "C" __global__ void degree(const float* __restrict__ features, float* __restrict__ out, int height, int width) {
  const int col = blockIdx.x * blockDim.x + threadIdx.x, row = blockIdx.y * blockDim.y + threadIdx.y;
  if (col >= width || row >= height) return;
  const long long pixels = (long long)height * width, here = (long long)row * width + col;
  features += blockIdx.z * FEATURES * pixels;
  float own[FEATURES];
#pragma unroll
  for (int f = 0; f < FEATURES; ++f) own[f] = features[f * pixels + here];
  float total = 0.f;
  for (int other_row = max(row - RADIUS, 0); other_row <= min(row + RADIUS, height - 1); ++other_row)
    for (int other_col = max(col - RADIUS, 0); other_col <= min(col + RADIUS, width - 1); ++other_col)
      total += gaussian(own, features + (long long)other_row * width + other_col, pixels, 0, FEATURES);
  out[blockIdx.z * pixels + here] = total;
}

extern "C" __global__ void degree_backward(const float* __restrict__ gradient, const float* __restrict__ features,
                                           float* __restrict__ out, int height, int width) {
  const int col = blockIdx.x * blockDim.x + threadIdx.x, row = blockIdx.y * blockDim.y + threadIdx.y;
  if (col >= width || row >= height) return;
  const long long pixels = (long long)height * width, here = (long long)row * width + col;
  gradient += blockIdx.z * pixels;
  features += blockIdx.z * FEATURES * pixels;
  out += blockIdx.z * FEATURES * pixels;
  float own[FEATURES], sums[FEATURES];
#pragma unroll
  for (int f = 0; f < FEATURES; ++f) {
    own[f] = features[f * pixels + here];
    sums[f] = 0.f;
  }
  for (int other_row = max(row - RADIUS, 0); other_row <= min(row + RADIUS, height - 1); ++other_row)
    for (int other_col = max(col - RADIUS, 0); other_col <= min(col + RADIUS, width - 1); ++other_col) {
      const long long there = (long long)other_row * width + other_col;
      // Each pair counts in the degree of both its pixels.
      const float pull = (gradient[here] + gradient[there]) * gaussian(own, features + there, pixels, 0, FEATURES);
#pragma unroll
      for (int f = 0; f < FEATURES; ++f) sums[f] += pull * (features[f * pixels + there] - own[f]);
    }
#pragma unroll
  for (int f = 0; f < FEATURES; ++f) out[f * pixels + here] = sums[f];
}

extern "C" __global__ void weights(const float* __restrict__ features, const float* __restrict__ left,
                                   const float* __restrict__ right, float* __restrict__ out, int height, int width) {
  constexpr int splits[] = {SPLITS};
  const int col = blockIdx.x * blockDim.x + threadIdx.x, row = blockIdx.y * blockDim.y + threadIdx.y;
  if (col >= width || row >= height) return;
  const long long pixels = (long long)height * width, here = (long long)row * width + col;
  features += blockIdx.z * FEATURES * pixels;
  left += blockIdx.z * KERNELS * pixels;
  right += blockIdx.z * KERNELS * pixels;
  out += blockIdx.z * OFFSETS * pixels + here;
  float own[FEATURES], own_left[KERNELS];
#pragma unroll
  for (int f = 0; f < FEATURES; ++f) own[f] = features[f * pixels + here];
#pragma unroll
  for (int m = 0; m < KERNELS; ++m) own_left[m] = left[m * pixels + here];
  for (int down = -RADIUS; down <= RADIUS; ++down)
    for (int across = -RADIUS; across <= RADIUS; ++across, out += pixels) {
      const int other_row = row + down, other_col = col + across;
      const bool inside = other_row >= 0 && other_row < height && other_col >= 0 && other_col < width;
      float merged = 0.f;
      if (inside && !(EXCLUDE_SELF && down == 0 && across == 0)) {
        const long long there = (long long)other_row * width + other_col;
#pragma unroll
        for (int m = 0; m < KERNELS; ++m) {
          const float near = gaussian(own, features + there, pixels, splits[m], splits[m + 1]);
          merged += own_left[m] * right[m * pixels + there] * near;
        }
      }
      *out = merged;
    }
}

extern "C" __global__ void weights_backward(const float* __restrict__ gradient, const float* __restrict__ features,
                                            const float* __restrict__ left, const float* __restrict__ right,
                                            float* __restrict__ to_features, float* __restrict__ to_left,
                                            float* __restrict__ to_right, int height, int width) {
  constexpr int splits[] = {SPLITS};
  const int col = blockIdx.x * blockDim.x + threadIdx.x, row = blockIdx.y * blockDim.y + threadIdx.y;
  if (col >= width || row >= height) return;
  const long long pixels = (long long)height * width, here = (long long)row * width + col;
  gradient += blockIdx.z * OFFSETS * pixels;
  features += blockIdx.z * FEATURES * pixels;
  left += blockIdx.z * KERNELS * pixels;
  right += blockIdx.z * KERNELS * pixels;
  float own[FEATURES], sums[FEATURES], own_left[KERNELS], own_right[KERNELS], left_sums[KERNELS], right_sums[KERNELS];
#pragma unroll
  for (int f = 0; f < FEATURES; ++f) {
    own[f] = features[f * pixels + here];
    sums[f] = 0.f;
  }
#pragma unroll
  for (int m = 0; m < KERNELS; ++m) {
    own_left[m] = left[m * pixels + here];
    own_right[m] = right[m * pixels + here];
    left_sums[m] = right_sums[m] = 0.f;
  }
  for (int other_row = max(row - RADIUS, 0); other_row <= min(row + RADIUS, height - 1); ++other_row)
    for (int other_col = max(col - RADIUS, 0); other_col <= min(col + RADIUS, width - 1); ++other_col) {
      if (EXCLUDE_SELF && other_row == row && other_col == col) continue;
      const long long there = (long long)other_row * width + other_col;
      const int offset = (other_row - row + RADIUS) * SIDE + other_col - col + RADIUS;
      // This pixel as the one that receives, and as the neighbour that sends.
      const float receiving = gradient[offset * pixels + here];
      const float sending = gradient[(OFFSETS - 1 - offset) * pixels + there];
#pragma unroll
      for (int m = 0; m < KERNELS; ++m) {
        const float near = gaussian(own, features + there, pixels, splits[m], splits[m + 1]);
        const float received = receiving * near * right[m * pixels + there];
        const float sent = sending * near * left[m * pixels + there];
        left_sums[m] += received;
        right_sums[m] += sent;
        const float pull = received * own_left[m] + sent * own_right[m];
#pragma unroll
        for (int f = splits[m]; f < splits[m + 1]; ++f) sums[f] += pull * (features[f * pixels + there] - own[f]);
      }
    }
#pragma unroll
  for (int f = 0; f < FEATURES; ++f) to_features[(blockIdx.z * FEATURES + f) * pixels + here] = sums[f];
#pragma unroll
  for (int m = 0; m < KERNELS; ++m) {
    to_left[(blockIdx.z * KERNELS + m) * pixels + here] = left_sums[m];
    to_right[(blockIdx.z * KERNELS + m) * pixels + here] = right_sums[m];
  }
}

// The message, or with TRANSPOSED its gradient to q. A thread sums PIXELS pixels below one another in CHUNK classes: a
// column of the window costs it SPAN + PIXELS − 1 reads of the tile and SPAN * PIXELS of the weights, for CHUNK * SPAN *
// PIXELS multiply-adds. The window is taken SPAN by SPAN, so that any radius fits into shared memory.
template <bool TRANSPOSED>
__device__ __forceinline__ void pass_on(Tile* tile, const float* q, const float* weights, float* out, int classes,
                                        int height, int width) {
  const int chunks = (classes + CHUNK - 1) / CHUNK, first_class = blockIdx.z % chunks * CHUNK;
  const long long pixels = (long long)height * width, image = blockIdx.z / chunks;
  const int block_row = blockIdx.y * ROWS * PIXELS, block_col = blockIdx.x * COLS;
  const int row = block_row + threadIdx.y * PIXELS, col = block_col + threadIdx.x;
  q += (image * classes + first_class) * pixels;
  out += (image * classes + first_class) * pixels;
  weights += image * OFFSETS * pixels;
  float sums[CHUNK][PIXELS];
#pragma unroll
  for (int c = 0; c < CHUNK; ++c)
#pragma unroll
    for (int p = 0; p < PIXELS; ++p) sums[c][p] = 0.f;

  for (int first_down = 0; first_down < SIDE; first_down += SPAN)
    for (int first_across = 0; first_across < SIDE; first_across += SPAN) {
      const int top = block_row - RADIUS + first_down, left = block_col - RADIUS + first_across;
      __syncthreads();  // the last tile has been read
      for (int c = 0; c < CHUNK; ++c)
        for (int r = threadIdx.y; r < TILE_ROWS; r += ROWS)
          for (int x = threadIdx.x; x < TILE_COLS; x += COLS) {
            const int from_row = top + r, from_col = left + x;
            const bool inside = first_class + c < classes && from_row >= 0 && from_row < height && from_col >= 0 &&
                                from_col < width;
            tile[c][r][x] = inside ? q[c * pixels + (long long)from_row * width + from_col] : 0.f;
          }
      __syncthreads();
      for (int across = 0; across < min(SPAN, SIDE - first_across); ++across) {
        float near[SPAN][PIXELS];
#pragma unroll
        for (int down = 0; down < SPAN; ++down)
#pragma unroll
          for (int p = 0; p < PIXELS; ++p) {
            const int offset = (first_down + down) * SIDE + first_across + across;
            // The weight stands at the pixel that received: this one, or transposed the neighbour.
            const int at_row = TRANSPOSED ? row + p + first_down + down - RADIUS : row + p;
            const int at_col = TRANSPOSED ? col + first_across + across - RADIUS : col;
            const bool inside = first_down + down < SIDE && at_row >= 0 && at_row < height && at_col >= 0 &&
                                at_col < width;
            const long long plane = TRANSPOSED ? OFFSETS - 1 - offset : offset;
            near[down][p] = inside ? weights[plane * pixels + (long long)at_row * width + at_col] : 0.f;
          }
#pragma unroll
        for (int c = 0; c < CHUNK; ++c)
#pragma unroll
          for (int r = 0; r < SPAN + PIXELS - 1; ++r) {
            const float there = tile[c][threadIdx.y * PIXELS + r][threadIdx.x + across];
#pragma unroll
            for (int p = 0; p < PIXELS; ++p)
              if (r - p >= 0 && r - p < SPAN) sums[c][p] += near[r - p][p] * there;
          }
      }
    }

  if (col < width)
    for (int c = 0; c < CHUNK; ++c)
#pragma unroll
      for (int p = 0; p < PIXELS; ++p)
        if (first_class + c < classes && row + p < height)
          out[c * pixels + (long long)(row + p) * width + col] = sums[c][p];
}

extern "C" __global__ void __launch_bounds__(COLS* ROWS)
    message(const float* __restrict__ q, const float* __restrict__ weights, float* __restrict__ out, int classes,
            int height, int width) {
  __shared__ Tile tile[CHUNK];
  pass_on<false>(tile, q, weights, out, classes, height, width);
}

extern "C" __global__ void __launch_bounds__(COLS* ROWS)
    message_backward_q(const float* __restrict__ gradient, const float* __restrict__ weights, float* __restrict__ out,
                       int classes, int height, int width) {
  __shared__ Tile tile[CHUNK];
  pass_on<true>(tile, gradient, weights, out, classes, height, width);
}

// One column of the window per block in z; a thread sums SPAN * PIXELS weights' gradients over the classes.
extern "C" __global__ void __launch_bounds__(COLS* ROWS)
    message_backward_weights(const float* __restrict__ gradient, const float* __restrict__ q, float* __restrict__ out,
                             int classes, int height, int width) {
  const long long pixels = (long long)height * width, image = blockIdx.z / SIDE;
  const int across = blockIdx.z % SIDE;
  const int row = (blockIdx.y * ROWS + threadIdx.y) * PIXELS, col = blockIdx.x * COLS + threadIdx.x;
  const int from_col = col + across - RADIUS;
  if (col >= width) return;
  gradient += image * classes * pixels;
  q += image * classes * pixels;
  out += image * OFFSETS * pixels;
  for (int first_down = 0; first_down < SIDE; first_down += SPAN) {
    float sums[SPAN][PIXELS];
#pragma unroll
    for (int down = 0; down < SPAN; ++down)
#pragma unroll
      for (int p = 0; p < PIXELS; ++p) sums[down][p] = 0.f;
    for (long long plane = 0; plane < classes * pixels; plane += pixels) {
      float own[PIXELS];
#pragma unroll
      for (int p = 0; p < PIXELS; ++p)
        own[p] = row + p < height ? gradient[plane + (long long)(row + p) * width + col] : 0.f;
#pragma unroll
      for (int r = 0; r < SPAN + PIXELS - 1; ++r) {
        const int from_row = row + first_down + r - RADIUS;
        const bool inside = from_row >= 0 && from_row < height && from_col >= 0 && from_col < width;
        const float there = inside ? q[plane + (long long)from_row * width + from_col] : 0.f;
#pragma unroll
        for (int p = 0; p < PIXELS; ++p)
          if (r - p >= 0 && r - p < SPAN) sums[r - p][p] += own[p] * there;
      }
    }
#pragma unroll
    for (int down = 0; down < SPAN; ++down)
#pragma unroll
      for (int p = 0; p < PIXELS; ++p)
        if (first_down + down < SIDE && row + p < height)
          out[((first_down + down) * SIDE + across) * pixels + (long long)(row + p) * width + col] = sums[down][p];
  }
}
