// The mean-field update: one thread per pixel, its scores in registers, one pass over memory.

#ifndef CLASSES
#define CLASSES 21
#endif
#ifndef MESSAGES
#define MESSAGES 2
#endif
#ifndef RESULT
#define RESULT 0  // what is written: 0 q, 1 log q, 2 the scores
#endif

// An array over few classes stays in registers; for that all loops over it are unrolled.
constexpr int UNROLLED = CLASSES <= 32 ? CLASSES : 4;

// unary, messages and out (B, CLASSES, pixels), weights (MESSAGES, CLASSES); pointers beyond MESSAGES are not read.
extern "C" __global__ void mean_field_update(const float* __restrict__ unary, const float* __restrict__ first,
                                             const float* __restrict__ second, const float* __restrict__ third,
                                             const float* __restrict__ fourth, const float* __restrict__ weights,
                                             float* __restrict__ out, int pixels) {
  const int pixel = blockIdx.x * blockDim.x + threadIdx.x;
  if (pixel >= pixels) return;
  const float* messages[] = {first, second, third, fourth};
  const long long here = (long long)blockIdx.y * CLASSES * pixels + pixel;
  float scores[CLASSES];
#pragma unroll UNROLLED
  for (int c = 0; c < CLASSES; ++c) scores[c] = unary[here + (long long)c * pixels];
#pragma unroll
  for (int m = 0; m < MESSAGES; ++m)
#pragma unroll UNROLLED
    for (int c = 0; c < CLASSES; ++c)
      scores[c] += weights[m * CLASSES + c] * messages[m][here + (long long)c * pixels];
  if (RESULT == 2) {
#pragma unroll UNROLLED
    for (int c = 0; c < CLASSES; ++c) out[here + (long long)c * pixels] = scores[c];
    return;
  }
  float most = scores[0], total = 0.f;
#pragma unroll UNROLLED
  for (int c = 1; c < CLASSES; ++c) most = fmaxf(most, scores[c]);
#pragma unroll UNROLLED
  for (int c = 0; c < CLASSES; ++c) {
    scores[c] -= most;
    const float power = expf(scores[c]);
    total += power;
    if (RESULT == 0) scores[c] = power;
  }
  const float share = 1.f / total, level = logf(total);
#pragma unroll UNROLLED
  for (int c = 0; c < CLASSES; ++c)
    out[here + (long long)c * pixels] = RESULT == 0 ? share * scores[c] : scores[c] - level;
}
