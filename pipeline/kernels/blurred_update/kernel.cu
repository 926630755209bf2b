// Mean field on a grid of cells of FACTOR x FACTOR pixels; what is fine-grained stays in registers.
//
// unary (B, CLASSES, height, width), message (B, CLASSES, rows, cols); the coarse grid reaches `top` and `left` pixels
// over the image.

#ifndef CLASSES
#define CLASSES 21
#endif
#ifndef FACTOR
#define FACTOR 4
#endif
#ifndef LANES
#define LANES 4  // threads side by side in one cell
#endif
#ifndef CELLS
#define CELLS 32  // cells of one block
#endif
#ifndef CHUNK
#define CHUNK 16  // classes summed over a cell's lanes at once
#endif

// Arrays over few classes stay in registers; for that all loops over them are unrolled.
constexpr int UNROLLED = CLASSES <= 32 ? CLASSES : 4;
constexpr int CHUNKS_UNROLLED = CLASSES <= 32 ? (CLASSES + CHUNK - 1) / CHUNK : 1;

// The two cells that a fine position, counted from the coarse grid's edge, lies between, and its way to the second.
struct Between {
  int one, other;
  float along;
};

__device__ __forceinline__ Between between(int fine, int cells) {
  const float place = fmaxf((fine + 0.5f) / FACTOR - 0.5f, 0.f);
  const int one = (int)place;
  return {one, min(one + 1, cells - 1), place - one};
}

// The message at a fine pixel; `message` points to the image's plane of one class.
__device__ __forceinline__ float unblurred(const float* message, Between down, Between across, int cols) {
  const float* above = message + (long long)down.one * cols;
  const float* below = message + (long long)down.other * cols;
  const float near = above[across.one] + down.along * (below[across.one] - above[across.one]);
  const float far = above[across.other] + down.along * (below[across.other] - above[across.other]);
  return near + across.along * (far - near);
}

// q of one fine pixel: softmax of its unary and the unblurred message; the pointers are the image's.
__device__ __forceinline__ void softmax(const float* unary, const float* message, long long here, long long pixels,
                                        Between down, Between across, int rows, int cols, float* q) {
  float most = -3e38f, total = 0.f;
#pragma unroll UNROLLED
  for (int c = 0; c < CLASSES; ++c) {
    q[c] = unary[c * pixels + here] + unblurred(message + (long long)c * rows * cols, down, across, cols);
    most = fmaxf(most, q[c]);
  }
#pragma unroll UNROLLED
  for (int c = 0; c < CLASSES; ++c) {
    q[c] = expf(q[c] - most);
    total += q[c];
  }
  const float share = 1.f / total;
#pragma unroll UNROLLED
  for (int c = 0; c < CLASSES; ++c) q[c] *= share;
}

// out = unary + unblurred message, one thread per pixel and class.
extern "C" __global__ void add_unblurred(const float* __restrict__ unary, const float* __restrict__ message,
                                         float* __restrict__ out, int height, int width, int rows, int cols, int top,
                                         int left) {
  const int col = blockIdx.y * blockDim.x + threadIdx.x, row = blockIdx.z * blockDim.y + threadIdx.y;
  if (col >= width || row >= height) return;
  const long long here = ((long long)blockIdx.x * height + row) * width + col;
  const float* plane = message + (long long)blockIdx.x * rows * cols;
  out[here] = unary[here] + unblurred(plane, between(row + top, rows), between(col + left, cols), cols);
}

// out (B, CLASSES, rows, cols): the mean of q over each cell. LANES threads share a cell, each with sums of its own.
extern "C" __global__ void __launch_bounds__(LANES* CELLS)
    blurred_update(const float* __restrict__ unary, const float* __restrict__ message, float* __restrict__ out,
                   int height, int width, int rows, int cols, int top, int left) {
  __shared__ float parts[CHUNK][CELLS * LANES];
  const long long pixels = (long long)height * width;
  const int cell_row = blockIdx.y, first_cell = blockIdx.x * CELLS;
  const int cell = first_cell + threadIdx.x / LANES;
  unary += blockIdx.z * CLASSES * pixels;
  message += (long long)blockIdx.z * CLASSES * rows * cols;
  out += (long long)blockIdx.z * CLASSES * rows * cols;
  const int first_row = max(cell_row * FACTOR - top, 0), stop_row = min((cell_row + 1) * FACTOR - top, height);
  float sums[CLASSES], q[CLASSES];
#pragma unroll UNROLLED
  for (int c = 0; c < CLASSES; ++c) sums[c] = 0.f;
  if (cell < cols)
    for (int row = first_row; row < stop_row; ++row) {
      const Between down = between(row + top, rows);
      for (int x = threadIdx.x % LANES; x < FACTOR; x += LANES) {
        const int col = cell * FACTOR - left + x;
        if (col < 0 || col >= width) continue;
        const long long here = (long long)row * width + col;
        softmax(unary, message, here, pixels, down, between(col + left, cols), rows, cols, q);
#pragma unroll UNROLLED
        for (int c = 0; c < CLASSES; ++c) sums[c] += q[c];
      }
    }
#pragma unroll CHUNKS_UNROLLED
  for (int first_class = 0; first_class < CLASSES; first_class += CHUNK) {
    __syncthreads();  // the last classes have been summed
#pragma unroll
    for (int c = 0; c < CHUNK; ++c)
      if (first_class + c < CLASSES) parts[c][threadIdx.x] = sums[first_class + c];
    __syncthreads();
    for (int k = threadIdx.x; k < CHUNK * CELLS; k += CELLS * LANES) {
      const int c = k / CELLS, own = k % CELLS, own_cell = first_cell + own;
      if (first_class + c >= CLASSES || own_cell >= cols) continue;
      float total = 0.f;
      for (int lane = 0; lane < LANES; ++lane) total += parts[c][own * LANES + lane];
      const int wide = min((own_cell + 1) * FACTOR - left, width) - max(own_cell * FACTOR - left, 0);
      out[((long long)(first_class + c) * rows + cell_row) * cols + own_cell] = total / ((stop_row - first_row) * wide);
    }
  }
}

// The gradient of `blurred_update` to the unary, which is that to the unblurred message too; one thread per pixel.
extern "C" __global__ void backward(const float* __restrict__ gradient, const float* __restrict__ unary,
                                    const float* __restrict__ message, float* __restrict__ to_unary, int height,
                                    int width, int rows, int cols, int top, int left) {
  const int col = blockIdx.x * blockDim.x + threadIdx.x, row = blockIdx.y * blockDim.y + threadIdx.y;
  if (col >= width || row >= height) return;
  const long long pixels = (long long)height * width, here = (long long)row * width + col;
  const long long cells = (long long)rows * cols;
  gradient += blockIdx.z * CLASSES * cells;
  message += blockIdx.z * CLASSES * cells;
  unary += blockIdx.z * CLASSES * pixels;
  to_unary += blockIdx.z * CLASSES * pixels;
  float q[CLASSES];
  softmax(unary, message, here, pixels, between(row + top, rows), between(col + left, cols), rows, cols, q);
  const int cell_row = (row + top) / FACTOR, cell = (col + left) / FACTOR;
  const int high = min((cell_row + 1) * FACTOR - top, height) - max(cell_row * FACTOR - top, 0);
  const int wide = min((cell + 1) * FACTOR - left, width) - max(cell * FACTOR - left, 0);
  const float each = 1.f / (high * wide);
  gradient += (long long)cell_row * cols + cell;
  float mean = 0.f;
#pragma unroll UNROLLED
  for (int c = 0; c < CLASSES; ++c) mean += q[c] * (each * gradient[c * cells]);
#pragma unroll UNROLLED
  for (int c = 0; c < CLASSES; ++c) to_unary[c * pixels + here] = q[c] * (each * gradient[c * cells] - mean);
}

__device__ __forceinline__ float share(int fine, int cells, int cell) {
  const Between place = between(fine, cells);
  return (place.one == cell ? 1.f - place.along : 0.f) + (place.other == cell ? place.along : 0.f);
}

// The gradient of the unblurred message to the message: each cell gathers from the pixels of it and of its neighbours.
extern "C" __global__ void unblur_backward(const float* __restrict__ gradient, float* __restrict__ out, int height,
                                           int width, int rows, int cols, int top, int left) {
  const int cell = blockIdx.y * blockDim.x + threadIdx.x, cell_row = blockIdx.z * blockDim.y + threadIdx.y;
  if (cell >= cols || cell_row >= rows) return;
  gradient += (long long)blockIdx.x * height * width;
  const int first_row = max((cell_row - 1) * FACTOR - top, 0), stop_row = min((cell_row + 2) * FACTOR - top, height);
  const int first_col = max((cell - 1) * FACTOR - left, 0), stop_col = min((cell + 2) * FACTOR - left, width);
  float total = 0.f;
  for (int row = first_row; row < stop_row; ++row) {
    float part = 0.f;
    for (int col = first_col; col < stop_col; ++col)
      part += share(col + left, cols, cell) * gradient[(long long)row * width + col];
    total += share(row + top, rows, cell_row) * part;
  }
  out[((long long)blockIdx.x * rows + cell_row) * cols + cell] = total;
}
