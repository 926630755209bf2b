// All pairs of pixels, exactly, with products of ten bits of mantissa: kernel and values are rounded to TF32, and tensor
// cores multiply them. The sums are float32's. For devices of compute capability 8.0 on.
//
// A warp has 32 receivers. Each thread makes the kernel of four of them and of the two senders that its lane has in a
// product, in the registers where the product wants it, so that the kernel goes through no memory at all.

#ifndef FEATURES
#define FEATURES 5
#endif
#ifndef COLUMNS
#define COLUMNS 3  // eights of classes of one block
#endif
#ifndef TILE
#define TILE 128  // senders in shared memory
#endif
#ifndef THREADS
#define THREADS 128
#endif

constexpr int FEATURE_ROOM = (FEATURES + 3) / 4 * 4;  // shared memory is read sixteen bytes at a time
constexpr int CLASSES = 8 * COLUMNS;
constexpr int ROOM = TILE + 4;  // of a class's row in shared memory, so that a warp's reads lie in different banks
constexpr int RECEIVERS = 32;   // of a warp: two times the sixteen that one product has

#if defined(CUDA_CPU) || __CUDA_ARCH__ >= 800

#ifndef CUDA_CPU  // where this file runs as a CPU's code these are the stand-in's
// 2^x by the GPU's own instruction, within two units in the last place; what is below 2^−126 is 0.
__device__ __forceinline__ float power_of_two(float x) {
  float power;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(power) : "f"(x));
  return power;
}

// The nearest number with a mantissa of ten bits.
__device__ __forceinline__ unsigned as_tf32(float x) {
  unsigned bits;
  asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(bits) : "f"(x));
  return bits;
}

// sums += a b, of a whole warp: a (16, 8), b (8, 8), sums (16, 8). With g = lane / 4 and t = lane % 4 a lane holds
// a[g][t], a[g + 8][t], a[g][t + 4], a[g + 8][t + 4]; b[t][g], b[t + 4][g]; sums [g][2t], [g][2t + 1] and those of g + 8.
__device__ __forceinline__ void multiply_add(float* sums, const unsigned* a, const unsigned* b) {
  asm volatile("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
      "{%0, %1, %2, %3};"
      : "+f"(sums[0]), "+f"(sums[1]), "+f"(sums[2]), "+f"(sums[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}
#endif

// values and out (B, classes, pixels), features (B, FEATURES, pixels). Tensor cores cut off what their sums have no bits
// for, always downwards; hence each tile is summed by itself first.
extern "C" __global__ void __launch_bounds__(THREADS)
    all_pairs_tf32(const float* __restrict__ values, const float* __restrict__ features, float* __restrict__ out,
                   int classes, int pixels) {
  __shared__ __align__(16) float senders[TILE][FEATURE_ROOM];
  __shared__ unsigned sent[CLASSES][ROOM];
  const int first_class = blockIdx.y * CLASSES, held = min(CLASSES, classes - first_class);
  features += (long long)blockIdx.z * FEATURES * pixels;
  values += ((long long)blockIdx.z * classes + first_class) * pixels;
  out += ((long long)blockIdx.z * classes + first_class) * pixels;
  const int group = threadIdx.x % 32 / 4, place = threadIdx.x % 4;
  const int first_pixel = blockIdx.x * THREADS + threadIdx.x / 32 * RECEIVERS + group;  // and those 8, 16, 24 later
  float own[4][FEATURES], sums[2][COLUMNS][4];
#pragma unroll
  for (int p = 0; p < 4; ++p)
#pragma unroll
    for (int f = 0; f < FEATURES; ++f)
      own[p][f] = features[(long long)f * pixels + min(first_pixel + 8 * p, pixels - 1)];
#pragma unroll
  for (int half = 0; half < 2; ++half)
#pragma unroll
    for (int k = 0; k < COLUMNS; ++k)
#pragma unroll
      for (int at = 0; at < 4; ++at) sums[half][k][at] = 0.f;

  for (int first = 0; first < pixels; first += TILE) {
    __syncthreads();  // the last tile has been read
    for (int j = threadIdx.x; j < TILE; j += THREADS) {
      const int sender = min(first + j, pixels - 1);  // one beyond the last sends nothing
#pragma unroll
      for (int f = 0; f < FEATURES; ++f) senders[j][f] = features[(long long)f * pixels + sender];
      for (int c = 0; c < CLASSES; ++c)
        sent[c][j] = c < held && first + j < pixels ? as_tf32(values[(long long)c * pixels + sender]) : 0u;
    }
    __syncthreads();
    float some[2][COLUMNS][4];
#pragma unroll
    for (int half = 0; half < 2; ++half)
#pragma unroll
      for (int k = 0; k < COLUMNS; ++k)
#pragma unroll
        for (int at = 0; at < 4; ++at) some[half][k][at] = 0.f;
#pragma unroll 2
    for (int start = 0; start < TILE; start += 8) {
      unsigned near[2][4];
#pragma unroll
      for (int half = 0; half < 2; ++half)
#pragma unroll
        for (int at = 0; at < 4; ++at) {
          float distance = 0.f;
#pragma unroll
          for (int f = 0; f < FEATURES; ++f) {
            const float difference = own[2 * half + at % 2][f] - senders[start + place + at / 2 * 4][f];
            distance += difference * difference;
          }
          near[half][at] = as_tf32(power_of_two(-0.72134752f * distance));  // ½ log₂ e
        }
#pragma unroll
      for (int k = 0; k < COLUMNS; ++k) {
        const unsigned both[] = {sent[8 * k + group][start + place], sent[8 * k + group][start + place + 4]};
#pragma unroll
        for (int half = 0; half < 2; ++half) multiply_add(some[half][k], near[half], both);
      }
    }
#pragma unroll
    for (int half = 0; half < 2; ++half)
#pragma unroll
      for (int k = 0; k < COLUMNS; ++k)
#pragma unroll
        for (int at = 0; at < 4; ++at) sums[half][k][at] += some[half][k][at];
  }
#pragma unroll
  for (int half = 0; half < 2; ++half)
#pragma unroll
    for (int k = 0; k < COLUMNS; ++k)
#pragma unroll
      for (int at = 0; at < 4; ++at) {
        const int pixel = first_pixel + 16 * half + at / 2 * 8, c = 8 * k + 2 * place + at % 2;
        if (pixel < pixels && c < held) out[(long long)c * pixels + pixel] = sums[half][k][at];
      }
}

#endif
