// The permutohedral lattice: pixels are placed in it, and values splatted, blurred and sliced. No sum is made by atomics:
// entries (a pixel's share in a vertex) are sorted by vertex, and every vertex gathers its own, in their order.
//
// Where values lie by vertex or by pixel, their classes stand side by side, filled up to QUADS float4.

#ifndef DIMENSIONS
#define DIMENSIONS 5
#endif
#ifndef QUADS
#define QUADS 6
#endif

constexpr int CORNERS = DIMENSIONS + 1;
constexpr int EDGE = 32;

__device__ __forceinline__ float4 plus(float4 sum, float weight, float4 value) {
  return {sum.x + weight * value.x, sum.y + weight * value.y, sum.z + weight * value.z, sum.w + weight * value.w};
}

// Finds every pixel's simplex, the keys of its vertices and its barycentric coordinates.
// features (B, DIMENSIONS, pixels), scales (DIMENSIONS,), strides and lowest (B, CORNERS); keys and weights (B, pixels,
// CORNERS).
extern "C" __global__ void embed(const float* __restrict__ features, const float* __restrict__ scales,
                                 const long long* __restrict__ strides, const long long* __restrict__ lowest,
                                 long long* __restrict__ keys, float* __restrict__ weights, int pixels) {
  const int pixel = blockIdx.x * blockDim.x + threadIdx.x;
  if (pixel >= pixels) return;
  const long long here = (long long)blockIdx.y * pixels + pixel;
  features += (long long)blockIdx.y * DIMENSIONS * pixels + pixel;
  strides += blockIdx.y * CORNERS;
  lowest += blockIdx.y * CORNERS;
  keys += here * CORNERS;
  weights += here * CORNERS;
  // Elevated onto the plane Σ = 0.
  float elevated[CORNERS], nearest[CORNERS], above = 0.f, excess = 0.f;
#pragma unroll
  for (int axis = DIMENSIONS; axis > 0; --axis) {
    const float scaled = features[(long long)(axis - 1) * pixels] * scales[axis - 1];
    elevated[axis] = above - axis * scaled;
    above += scaled;
  }
  elevated[0] = above;
  // The nearest remainder-0 point, and the ranks of what is left.
  int rank[CORNERS];
#pragma unroll
  for (int axis = 0; axis < CORNERS; ++axis) {
    const float below = floorf(elevated[axis] / CORNERS) * CORNERS, up = ceilf(elevated[axis] / CORNERS) * CORNERS;
    nearest[axis] = up - elevated[axis] < elevated[axis] - below ? up : below;
    excess += nearest[axis];
    rank[axis] = 0;
  }
#pragma unroll
  for (int axis = 0; axis < CORNERS; ++axis)
#pragma unroll
    for (int other = axis + 1; other < CORNERS; ++other) {
      const bool less = elevated[axis] - nearest[axis] < elevated[other] - nearest[other];
      rank[axis] += less;
      rank[other] += !less;
    }
  // Where the nearest point lies off the plane, the coordinates furthest in that direction move by one step.
  const int turns = (int)rintf(excess / CORNERS);
  long long key = 0, all = 0;
#pragma unroll
  for (int axis = 0; axis < CORNERS; ++axis) {
    rank[axis] += turns;
    if (rank[axis] < 0) {
      rank[axis] += CORNERS;
      nearest[axis] += CORNERS;
    } else if (rank[axis] > DIMENSIONS) {
      rank[axis] -= CORNERS;
      nearest[axis] -= CORNERS;
    }
    key += strides[axis] * ((long long)nearest[axis] - lowest[axis]);
    all += strides[axis];
  }
  // What is left falls from rank 0 to rank d; corner r weighs what ranks d − r and d + 1 − r differ by, corner 0 what
  // remains of 1. Ranks are looked for, not indexed with: arrays stay in registers.
  float last = 0.f, first = 0.f;
#pragma unroll
  for (int corner = 0; corner < CORNERS; ++corner) {
    float part = 0.f;
    long long stride = 0;
#pragma unroll
    for (int axis = 0; axis < CORNERS; ++axis)
      if (rank[axis] == DIMENSIONS - corner) {
        part = (elevated[axis] - nearest[axis]) / CORNERS;
        stride = strides[axis];
      }
    if (corner == 0)
      first = part;
    else
      weights[corner] = part - last;
    last = part;
    keys[corner] = key;
    key += all - CORNERS * stride;
  }
  weights[0] = first + (1.f - last);
}

// Tells every entry its vertex: cells[entries[k]] = vertices[k].
extern "C" __global__ void tell(const int* __restrict__ entries, const int* __restrict__ vertices,
                                int* __restrict__ cells, int count) {
  const int k = blockIdx.x * blockDim.x + threadIdx.x;
  if (k < count) cells[entries[k]] = vertices[k];
}

// Looks up the next and the previous vertex along each axis among the sorted keys of the image; −1 where there is none.
// keys and images (vertices,), first_vertices (B + 1,), steps (B, CORNERS); out (vertices, CORNERS, 2).
extern "C" __global__ void neighbours(const long long* __restrict__ keys, const int* __restrict__ images,
                                      const int* __restrict__ first_vertices, const long long* __restrict__ steps,
                                      int* __restrict__ out, int vertices) {
  const long long k = (long long)blockIdx.x * blockDim.x + threadIdx.x;
  if (k >= (long long)vertices * CORNERS * 2) return;
  const int vertex = k / (CORNERS * 2), axis = k / 2 % CORNERS, image = images[vertex];
  const long long step = steps[image * CORNERS + axis], wanted = keys[vertex] + (k % 2 ? -step : step);
  int low = first_vertices[image], high = first_vertices[image + 1];
  while (low < high) {
    const int middle = low + (high - low) / 2;
    if (keys[middle] < wanted)
      low = middle + 1;
    else
      high = middle;
  }
  out[k] = low < first_vertices[image + 1] && keys[low] == wanted ? low : -1;
}

// Turns planes into rows by pixel, times `right`: values (B, classes, pixels), right (B, pixels), rows (B, pixels,
// 4 QUADS); classes beyond the last are 0.
extern "C" __global__ void turn(const float* __restrict__ values, const float* __restrict__ right,
                                float* __restrict__ rows, int classes, int pixels) {
  __shared__ float tile[EDGE][EDGE + 1];  // one more, so that a column lies in different banks
  const int first_pixel = blockIdx.x * EDGE, first_class = blockIdx.y * EDGE;
  const int pixel = first_pixel + threadIdx.x;
  const long long image = blockIdx.z;
  const float scale = pixel < pixels ? right[image * pixels + pixel] : 0.f;
  for (int k = threadIdx.y; k < EDGE; k += blockDim.y) {
    const int c = first_class + k;
    tile[k][threadIdx.x] = pixel < pixels && c < classes ? scale * values[(image * classes + c) * pixels + pixel] : 0.f;
  }
  __syncthreads();
  const int c = first_class + threadIdx.x;
  for (int k = threadIdx.y; k < EDGE; k += blockDim.y)
    if (first_pixel + k < pixels && c < 4 * QUADS)
      rows[(image * pixels + first_pixel + k) * (4 * QUADS) + c] = tile[threadIdx.x][k];
}

// Sums each piece of a vertex's entries, entry k being corner k % CORNERS of pixel k / CORNERS: rows (pixels, QUADS),
// weights by entry, pieces (count + 1,); out (count, QUADS). A vertex may have thousands of entries, a piece has few, so
// that no thread keeps the others waiting.
extern "C" __global__ void splat(const float4* __restrict__ rows, const float* __restrict__ weights,
                                 const int* __restrict__ entries, const int* __restrict__ pieces,
                                 float4* __restrict__ out, int count) {
  const long long k = (long long)blockIdx.x * blockDim.x + threadIdx.x;
  const int piece = k / QUADS, quad = k % QUADS;
  if (piece >= count) return;
  float4 sum = {0.f, 0.f, 0.f, 0.f};
  for (int at = pieces[piece]; at < pieces[piece + 1]; ++at) {
    const int entry = entries[at];
    sum = plus(sum, weights[entry], rows[(long long)(entry / CORNERS) * QUADS + quad]);
  }
  out[k] = sum;
}

// Sums every vertex's pieces: pieces (all, QUADS), first_pieces (vertices + 1,), out (vertices, QUADS).
extern "C" __global__ void gather(const float4* __restrict__ pieces, const int* __restrict__ first_pieces,
                                  float4* __restrict__ out, int vertices) {
  const long long k = (long long)blockIdx.x * blockDim.x + threadIdx.x;
  const int vertex = k / QUADS, quad = k % QUADS;
  if (vertex >= vertices) return;
  float4 sum = {0.f, 0.f, 0.f, 0.f};
  for (long long piece = first_pieces[vertex]; piece < first_pieces[vertex + 1]; ++piece)
    sum = plus(sum, 1.f, pieces[piece * QUADS + quad]);
  out[k] = sum;
}

// Filters along one axis by (½, 1, ½): values and out (vertices, QUADS), neighbours (vertices, CORNERS, 2).
extern "C" __global__ void blur(const float4* __restrict__ values, const int* __restrict__ neighbours,
                                float4* __restrict__ out, int vertices, int axis) {
  const long long k = (long long)blockIdx.x * blockDim.x + threadIdx.x;
  const int vertex = k / QUADS, quad = k % QUADS;
  if (vertex >= vertices) return;
  const int* both = neighbours + ((long long)vertex * CORNERS + axis) * 2;
  float4 sum = values[k];
  if (both[0] >= 0) sum = plus(sum, 0.5f, values[(long long)both[0] * QUADS + quad]);
  if (both[1] >= 0) sum = plus(sum, 0.5f, values[(long long)both[1] * QUADS + quad]);
  out[k] = sum;
}

// Reads values (vertices, QUADS) back at the pixels, times `left`: cells and weights (B, pixels, CORNERS), left (B,
// pixels), out (B, classes, pixels).
extern "C" __global__ void slice(const float4* __restrict__ values, const int* __restrict__ cells,
                                 const float* __restrict__ weights, const float* __restrict__ left,
                                 float* __restrict__ out, int classes, int pixels) {
  const int pixel = blockIdx.x * blockDim.x + threadIdx.x;
  if (pixel >= pixels) return;
  const long long here = (long long)blockIdx.y * pixels + pixel;
  const float scale = left[here] / (1.f + 1.f / (1 << DIMENSIONS));
  out += (long long)blockIdx.y * classes * pixels + pixel;
  long long from[CORNERS];
  float weight[CORNERS];
#pragma unroll
  for (int corner = 0; corner < CORNERS; ++corner) {
    from[corner] = (long long)cells[here * CORNERS + corner] * QUADS;
    weight[corner] = weights[here * CORNERS + corner];
  }
  for (int quad = 0; quad < QUADS; ++quad) {
    float4 sum = {0.f, 0.f, 0.f, 0.f};
#pragma unroll
    for (int corner = 0; corner < CORNERS; ++corner) sum = plus(sum, weight[corner], values[from[corner] + quad]);
    const float parts[] = {sum.x, sum.y, sum.z, sum.w};
#pragma unroll
    for (int k = 0; k < 4; ++k)
      if (4 * quad + k < classes) out[(long long)(4 * quad + k) * pixels] = scale * parts[k];
  }
}
