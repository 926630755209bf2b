// A Gaussian along the rows of every plane, written with rows and columns exchanged: run twice it is the whole filter.

#ifndef BEFORE
#define BEFORE 1  // whether the scale multiplies what is read or what is written
#endif
#ifndef PIXELS
#define PIXELS 4  // rows that one thread sums
#endif

constexpr int EDGE = 32;  // a block makes EDGE x EDGE numbers with EDGE x EDGE / PIXELS threads
constexpr int ROWS = EDGE / PIXELS;

__device__ __forceinline__ float tap(const float* taps, int distance, int reach) {
  distance = abs(distance);
  return distance <= reach ? taps[distance] : 0.f;
}

// values (planes, rows, cols), out (planes, cols, rows), taps (reach + 1,); `classes` planes share an image's scale,
// which lies as `values` do where it is read with them, and as `out` where it is not.
extern "C" __global__ void along_rows(const float* __restrict__ values, const float* __restrict__ scale,
                                      const float* __restrict__ taps, float* __restrict__ out, int classes, int rows,
                                      int cols, int reach) {
  __shared__ float tile[EDGE][EDGE + 1];  // one more, so that a column lies in different banks
  const long long pixels = (long long)rows * cols;
  const int first_col = blockIdx.y * EDGE, first_row = blockIdx.z * EDGE;
  const int col = first_col + threadIdx.x, row = first_row + threadIdx.y * PIXELS;
  values += blockIdx.x * pixels;
  out += blockIdx.x * pixels;
  scale += blockIdx.x / classes * pixels;
  // One value serves PIXELS sums, whose taps move up by one from row to row.
  float near[PIXELS], sums[PIXELS];
  const int first = max(-reach, -row), stop = min(reach + PIXELS, rows - row);
#pragma unroll
  for (int p = 0; p < PIXELS; ++p) {
    near[p] = tap(taps, first - 1 - p, reach);
    sums[p] = 0.f;
  }
  if (col < cols)
    for (int step = first; step < stop; ++step) {
#pragma unroll
      for (int p = PIXELS - 1; p > 0; --p) near[p] = near[p - 1];
      near[0] = tap(taps, step, reach);
      const long long there = (long long)(row + step) * cols + col;
      const float value = BEFORE ? scale[there] * values[there] : values[there];
#pragma unroll
      for (int p = 0; p < PIXELS; ++p) sums[p] += near[p] * value;
    }
#pragma unroll
  for (int p = 0; p < PIXELS; ++p) tile[threadIdx.x][threadIdx.y * PIXELS + p] = sums[p];
  __syncthreads();
  for (int k = threadIdx.y; k < EDGE; k += ROWS) {
    const long long there = (long long)(first_col + k) * rows + first_row + threadIdx.x;
    if (first_col + k < cols && first_row + threadIdx.x < rows)
      out[there] = BEFORE ? tile[k][threadIdx.x] : scale[there] * tile[k][threadIdx.x];
  }
}
