// Runs CUDA kernels on a CPU, for tests: g++ compiles the .cu file after this header, every thread is a fiber.
//
// A block's fibers run one after another, each up to the next __syncthreads(), in an order that the caller chooses, and
// so do the blocks: a kernel whose result depends on the order has a race. Shared memory starts as NaN. Known: indices,
// __shared__, __syncthreads, __launch_bounds__, float4, and what kernels write in the GPU's own language, at the end;
// unknown: other parts of warps, atomics, textures, dynamic shared memory.
#pragma once
#define CUDA_CPU
#include <math.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <ucontext.h>

#include <algorithm>
#include <functional>
#include <numeric>
#include <random>
#include <string>
#include <utility>
#include <vector>

#define __global__
#define __device__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __align__(bytes) __attribute__((aligned(bytes)))
// A section of its own, whose start and end the linker tells.
#define __shared__ static __attribute__((section("block_memory")))
#define __syncthreads() cuda_cpu::wait()

struct uint3 {
  unsigned x, y, z;
};
struct float4 {
  float x, y, z, w;
};
using std::max;
using std::min;

static uint3 threadIdx, blockIdx, blockDim, gridDim;

extern "C" {
__attribute__((weak, visibility("hidden"))) extern char __start_block_memory[];
__attribute__((weak, visibility("hidden"))) extern char __stop_block_memory[];
}

namespace cuda_cpu {

struct Fiber {
  ucontext_t context;
  std::vector<char> stack = std::vector<char>(128 << 10);
  bool finished;
};

static ucontext_t scheduler;
static std::vector<Fiber> fibers;
static Fiber* current;
static std::function<void()> body;
static std::string trouble;

static void wait() { swapcontext(&current->context, &scheduler); }

static void run() {
  body();
  current->finished = true;
  wait();
}

// With -fsanitize=bounds an index outside an array of known size ends in an illegal instruction.
static void out_of_bounds(int) {
  trouble = "an index lies outside its array";
  setcontext(&scheduler);
}

static uint3 position(unsigned k, uint3 size) { return {k % size.x, k / size.x % size.y, k / size.x / size.y}; }

static void arrange(std::vector<unsigned>& numbers, int order, std::mt19937& random) {
  if (order == 1) std::reverse(numbers.begin(), numbers.end());
  if (order == 2) std::shuffle(numbers.begin(), numbers.end(), random);
}

static void run_block(int order, std::mt19937& random) {
  if (__start_block_memory) memset(__start_block_memory, 0xff, __stop_block_memory - __start_block_memory);
  const unsigned count = blockDim.x * blockDim.y * blockDim.z;
  if (fibers.size() < count) fibers = std::vector<Fiber>(count);
  for (unsigned k = 0; k < count; ++k) {
    Fiber& fiber = fibers[k];
    fiber.finished = false;
    getcontext(&fiber.context);
    fiber.context.uc_stack.ss_sp = fiber.stack.data();
    fiber.context.uc_stack.ss_size = fiber.stack.size();
    fiber.context.uc_link = nullptr;
    makecontext(&fiber.context, run, 0);
  }
  for (unsigned finished = 0; finished == 0;) {
    std::vector<unsigned> numbers(count);
    std::iota(numbers.begin(), numbers.end(), 0);
    arrange(numbers, order, random);
    for (unsigned k : numbers) {
      current = &fibers[k];
      threadIdx = position(k, blockDim);
      swapcontext(&scheduler, &current->context);
      if (!trouble.empty()) return;
      finished += current->finished;
    }
    if (finished != 0 && finished != count)
      trouble = std::to_string(count - finished) + " of " + std::to_string(count) +
                " threads wait at a barrier that the others never reach";
  }
}

// Runs a whole grid; `order` is 0 forward, 1 backward, 2 shuffled. Returns what went wrong, or "".
template <class... Arguments, size_t... Numbers>
const char* launch(void (*kernel)(Arguments...), const unsigned* grid, const unsigned* block, void** arguments,
                   int order, std::index_sequence<Numbers...>) {
  body = [=] { kernel(*static_cast<Arguments*>(arguments[Numbers])...); };
  gridDim = {grid[0], grid[1], grid[2]};
  blockDim = {block[0], block[1], block[2]};
  trouble.clear();
  struct sigaction before, action = {};
  action.sa_handler = out_of_bounds;
  action.sa_flags = SA_NODEFER;
  sigaction(SIGILL, &action, &before);
  std::mt19937 random(2018);
  std::vector<unsigned> numbers(grid[0] * grid[1] * grid[2]);
  std::iota(numbers.begin(), numbers.end(), 0);
  arrange(numbers, order, random);
  for (unsigned k : numbers) {
    blockIdx = position(k, gridDim);
    run_block(order, random);
    if (!trouble.empty()) break;
  }
  sigaction(SIGILL, &before, nullptr);
  return trouble.c_str();
}

template <class... Arguments>
const char* launch(void (*kernel)(Arguments...), const unsigned* grid, const unsigned* block, void** arguments,
                   int order) {
  return launch(kernel, grid, block, arguments, order, std::index_sequence_for<Arguments...>{});
}

// Two letters for every parameter: f, d, b, i or l for float, double, unsigned char, int or long long; then v a value, r read, w written memory.
template <class T> struct Letter;
template <> struct Letter<float> { static constexpr char value = 'f'; };
template <> struct Letter<float4> { static constexpr char value = 'f'; };
template <> struct Letter<double> { static constexpr char value = 'd'; };
template <> struct Letter<unsigned char> { static constexpr char value = 'b'; };
template <> struct Letter<int> { static constexpr char value = 'i'; };
template <> struct Letter<long long> { static constexpr char value = 'l'; };
template <class T> struct Parameter { static constexpr char code[] = {Letter<T>::value, 'v', 0}; };
template <class T> struct Parameter<T*> { static constexpr char code[] = {Letter<T>::value, 'w', 0}; };
template <class T> struct Parameter<const T*> { static constexpr char code[] = {Letter<T>::value, 'r', 0}; };

template <class... Arguments> const char* parameters(void (*)(Arguments...)) {
  static const std::string codes = (std::string() + ... + Parameter<Arguments>::code);
  return codes.c_str();
}

}  // namespace cuda_cpu

// What all_pairs/tensor_cores.cu says of these holds here too.
static float power_of_two(float x) { return x < -126.f ? 0.f : exp2f(x); }

static unsigned as_tf32(float x) {
  unsigned bits;
  memcpy(&bits, &x, sizeof bits);
  return isfinite(x) ? (bits + 0x1000u) & ~0x1fffu : bits;
}

static float of_tf32(unsigned bits) {
  bits &= ~0x1fffu;  // a tensor core does not read the rest
  float x;
  memcpy(&x, &bits, sizeof x);
  return x;
}

// Every lane lays its parts out and waits, so all of a block must get here.
static void multiply_add(float* sums, const unsigned* a, const unsigned* b) {
  static float left[32][16][8], right[32][8][8];
  const unsigned thread = threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z);
  const unsigned warp = thread / 32, group = thread % 32 / 4, place = thread % 4;
  for (unsigned at = 0; at < 4; ++at) left[warp][group + at % 2 * 8][place + at / 2 * 4] = of_tf32(a[at]);
  for (unsigned at = 0; at < 2; ++at) right[warp][place + at * 4][group] = of_tf32(b[at]);
  cuda_cpu::wait();
  for (unsigned at = 0; at < 4; ++at)
    for (unsigned k = 0; k < 8; ++k)
      sums[at] += left[warp][group + at / 2 * 8][k] * right[warp][k][2 * place + at % 2];
  cuda_cpu::wait();
}

#define CUDA_CPU_EXPORT(kernel)                                                                                  \
  extern "C" const char* launch_##kernel(const unsigned* grid, const unsigned* block, void** arguments, int order) { \
    return cuda_cpu::launch(kernel, grid, block, arguments, order);                                              \
  }                                                                                                              \
  extern "C" const char* parameters_##kernel() { return cuda_cpu::parameters(kernel); }
