// All pairs of pixels, exactly: the kernel matrix is made where it is used and never stored.
//
// A block holds its pixels' features and sums in registers and takes the senders tile by tile through shared memory.
// Every lane reads the same sender, one broadcast for the whole warp. tensor_cores.cu has the same in fewer bits.

#ifndef FEATURES
#define FEATURES 5
#endif
#ifndef CHUNK
#define CHUNK 21  // classes of one block
#endif
#ifndef TILE
#define TILE 128  // senders in shared memory
#endif
#ifndef PIXELS
#define PIXELS 2  // receiving pixels of one thread
#endif
#ifndef THREADS
#define THREADS 128
#endif
#ifndef PART
#define PART 16  // senders summed by themselves first, since rounding grows with the longest sum
#endif

// Features and classes are filled up to whole float4, so that shared memory is read sixteen bytes at a time.
constexpr int FEATURE_ROOM = (FEATURES + 3) / 4 * 4;
constexpr int CLASS_ROOM = (CHUNK + 3) / 4 * 4;

#ifndef CUDA_CPU  // where this file runs as a CPU's code these are the stand-in's
// 2^x by the GPU's own instruction, within two units in the last place; what is below 2^−126 is 0.
__device__ __forceinline__ float power_of_two(float x) {
  float power;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(power) : "f"(x));
  return power;
}
#endif

// exp(−½ ‖own − there‖²).
__device__ __forceinline__ float gaussian(const float* own, const float* there) {
  float distance = 0.f;
#pragma unroll
  for (int f = 0; f < FEATURES; ++f) {
    const float difference = own[f] - there[f];
    distance += difference * difference;
  }
  return power_of_two(-0.72134752f * distance);  // ½ log₂ e
}

// values and out (B, classes, pixels), features (B, FEATURES, pixels).
extern "C" __global__ void __launch_bounds__(THREADS)
    all_pairs(const float* __restrict__ values, const float* __restrict__ features, float* __restrict__ out,
              int classes, int pixels) {
  __shared__ __align__(16) float tile[TILE][FEATURE_ROOM + CLASS_ROOM];
  const int first_class = blockIdx.y * CHUNK, held = min(CHUNK, classes - first_class);
  features += (long long)blockIdx.z * FEATURES * pixels;
  values += ((long long)blockIdx.z * classes + first_class) * pixels;
  out += ((long long)blockIdx.z * classes + first_class) * pixels;
  // A thread's pixels lie THREADS apart: a warp reads and writes neighbours.
  const int first_pixel = blockIdx.x * THREADS * PIXELS + threadIdx.x;
  float own[PIXELS][FEATURES], sums[PIXELS][CHUNK];
#pragma unroll
  for (int p = 0; p < PIXELS; ++p) {
    const int pixel = min(first_pixel + p * THREADS, pixels - 1);
#pragma unroll
    for (int f = 0; f < FEATURES; ++f) own[p][f] = features[(long long)f * pixels + pixel];
#pragma unroll
    for (int c = 0; c < CHUNK; ++c) sums[p][c] = 0.f;
  }
  for (int first = 0; first < pixels; first += TILE) {
    const int count = min(TILE, pixels - first);
    __syncthreads();  // the last tile has been read
    for (int j = threadIdx.x; j < count; j += THREADS) {
#pragma unroll
      for (int f = 0; f < FEATURES; ++f) tile[j][f] = features[(long long)f * pixels + first + j];
#pragma unroll
      for (int c = 0; c < CHUNK; ++c)
        tile[j][FEATURE_ROOM + c] = c < held ? values[(long long)c * pixels + first + j] : 0.f;
    }
    __syncthreads();
    for (int start = 0; start < count; start += PART) {
      float some[PIXELS][CHUNK];
#pragma unroll
      for (int p = 0; p < PIXELS; ++p)
#pragma unroll
        for (int c = 0; c < CHUNK; ++c) some[p][c] = 0.f;
      for (int j = start; j < min(start + PART, count); ++j) {
        float near[PIXELS];
#pragma unroll
        for (int p = 0; p < PIXELS; ++p) near[p] = gaussian(own[p], tile[j]);
#pragma unroll
        for (int c = 0; c < CHUNK; ++c)
#pragma unroll
          for (int p = 0; p < PIXELS; ++p) some[p][c] += near[p] * tile[j][FEATURE_ROOM + c];
      }
#pragma unroll
      for (int p = 0; p < PIXELS; ++p)
#pragma unroll
        for (int c = 0; c < CHUNK; ++c) sums[p][c] += some[p][c];
    }
  }
#pragma unroll
  for (int p = 0; p < PIXELS; ++p) {
    const int pixel = first_pixel + p * THREADS;
#pragma unroll
    for (int c = 0; c < CHUNK; ++c)
      if (pixel < pixels && c < held) out[(long long)c * pixels + pixel] = sums[p][c];
  }
}

// The gradient of `all_pairs` to the features, what each chunk of classes adds to it by itself: gradient and values
// (B, classes, pixels), features (B, FEATURES, pixels), out (chunks, B, FEATURES, pixels). One pixel per thread.
extern "C" __global__ void __launch_bounds__(THREADS)
    to_features(const float* __restrict__ gradient, const float* __restrict__ values,
                const float* __restrict__ features, float* __restrict__ out, int classes, int pixels) {
  __shared__ __align__(16) float tile[TILE][FEATURE_ROOM + 2 * CLASS_ROOM];
  const int first_class = blockIdx.y * CHUNK, held = min(CHUNK, classes - first_class);
  features += (long long)blockIdx.z * FEATURES * pixels;
  values += ((long long)blockIdx.z * classes + first_class) * pixels;
  gradient += ((long long)blockIdx.z * classes + first_class) * pixels;
  out += ((long long)blockIdx.y * gridDim.z + blockIdx.z) * FEATURES * pixels;
  const int pixel = blockIdx.x * THREADS + threadIdx.x, here = min(pixel, pixels - 1);
  float own[FEATURES], own_gradient[CHUNK], own_value[CHUNK], sums[FEATURES];
#pragma unroll
  for (int f = 0; f < FEATURES; ++f) {
    own[f] = features[(long long)f * pixels + here];
    sums[f] = 0.f;
  }
#pragma unroll
  for (int c = 0; c < CHUNK; ++c) {
    own_gradient[c] = c < held ? gradient[(long long)c * pixels + here] : 0.f;
    own_value[c] = c < held ? values[(long long)c * pixels + here] : 0.f;
  }
  for (int first = 0; first < pixels; first += TILE) {
    const int count = min(TILE, pixels - first);
    __syncthreads();  // the last tile has been read
    for (int j = threadIdx.x; j < count; j += THREADS) {
#pragma unroll
      for (int f = 0; f < FEATURES; ++f) tile[j][f] = features[(long long)f * pixels + first + j];
#pragma unroll
      for (int c = 0; c < CHUNK; ++c) {
        const long long there = (long long)c * pixels + first + j;
        tile[j][FEATURE_ROOM + c] = c < held ? values[there] : 0.f;
        tile[j][FEATURE_ROOM + CLASS_ROOM + c] = c < held ? gradient[there] : 0.f;
      }
    }
    __syncthreads();
    for (int start = 0; start < count; start += PART) {
      float some[FEATURES];
#pragma unroll
      for (int f = 0; f < FEATURES; ++f) some[f] = 0.f;
      for (int j = start; j < min(start + PART, count); ++j) {
        float received = 0.f, sent = 0.f;
#pragma unroll
        for (int c = 0; c < CHUNK; ++c) {
          received += tile[j][FEATURE_ROOM + c] * own_gradient[c];
          sent += tile[j][FEATURE_ROOM + CLASS_ROOM + c] * own_value[c];
        }
        const float pull = (received + sent) * gaussian(own, tile[j]);
#pragma unroll
        for (int f = 0; f < FEATURES; ++f) some[f] += pull * (tile[j][f] - own[f]);
      }
#pragma unroll
      for (int f = 0; f < FEATURES; ++f) sums[f] += some[f];
    }
  }
#pragma unroll
  for (int f = 0; f < FEATURES; ++f)
    if (pixel < pixels) out[(long long)f * pixels + pixel] = sums[f];
}
