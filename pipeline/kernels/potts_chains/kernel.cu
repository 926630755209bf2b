// Chains of Potts costs: a thread walks along a segment of one chain, eight chains lie side by side in scratch memory.
//
// Nothing passes between threads but through memory and barriers. Segments of a chain are cut level by level; the
// longest walk is half a chain, the next a quarter. Scratch is (blocks, nodes, CLASSES, LANES), so that the lanes of a
// class are one sector of 32 bytes.

#ifndef CLASSES
#define CLASSES 21
#endif
#ifndef DOWN
#define DOWN 1  // whether chains are columns
#endif
#ifndef WALKERS
#define WALKERS 32  // threads that share a chain's segments
#endif

constexpr int LANES = 8;
constexpr float MOST = 3.4e38f;  // no cost is more
// An array over few classes stays in registers; for that all loops over it are unrolled.
constexpr int UNROLLED = CLASSES <= 32 ? CLASSES : 4;

struct Chain {
  float* cost;      // of this lane, at its first node
  float* messages;  // the same
  const float* weight;
  int stride;  // from edge to edge in weight

  __device__ float* at(float* values, int node) const { return values + (long long)node * CLASSES * LANES; }
  __device__ float edge(int node) const { return weight[(long long)node * stride]; }
};

// Where a pixel stands in an image, by its chain and its place there.
__device__ __forceinline__ long long pixel(int chain, int node, int width) {
  return DOWN ? (long long)node * width + chain : (long long)chain * width + node;
}

// Sends messages from node to node, from the first on, that many; the first gets none. Returns the sum of the minima.
__device__ double walk(const Chain& chain, int first, int count, int step) {
  float message[CLASSES];
  double total = 0;
  float* out = chain.at(chain.messages, first);
#pragma unroll UNROLLED
  for (int k = 0; k < CLASSES; ++k) out[k * LANES] = message[k] = 0.f;
  for (int node = first; node != first + count * step; node += step) {
    const float* cost = chain.at(chain.cost, node);
    const float weight = chain.edge(step > 0 ? node : node - 1);
    float low = MOST;
#pragma unroll UNROLLED
    for (int k = 0; k < CLASSES; ++k) {
      message[k] += cost[k * LANES];
      low = fminf(low, message[k]);
    }
    total += low;
    out = chain.at(chain.messages, node + step);
#pragma unroll UNROLLED
    for (int k = 0; k < CLASSES; ++k) out[k * LANES] = message[k] = fminf(message[k] - low, weight);
  }
  return total;
}

// Replaces the edge after a node by what each end is to pay; `share` of the minimum stays on the left. Returns the
// minimum of what is right of the edge and of the whole seen from it.
__device__ double handshake(const Chain& chain, int node, float share) {
  float *left = chain.at(chain.cost, node), *right = chain.at(chain.cost, node + 1);
  const float *from_left = chain.at(chain.messages, node), *from_right = chain.at(chain.messages, node + 1);
  const float weight = chain.edge(node);
  float to_right[CLASSES];
  float low = MOST, whole = MOST, rest = MOST, most = 0.f;
#pragma unroll UNROLLED
  for (int k = 0; k < CLASSES; ++k) low = fminf(low, right[k * LANES] + from_right[k * LANES]);
#pragma unroll UNROLLED
  for (int k = 0; k < CLASSES; ++k) {
    const float mine = left[k * LANES] + from_left[k * LANES];
    const float marginal = mine + fminf(right[k * LANES] + from_right[k * LANES] - low, weight);
    whole = fminf(whole, marginal);
    to_right[k] = mine - share * marginal;
    rest = fminf(rest, to_right[k]);
  }
#pragma unroll UNROLLED
  for (int k = 0; k < CLASSES; ++k) {
    to_right[k] = fminf(to_right[k] - rest, weight);
    most = fmaxf(most, to_right[k]);
  }
#pragma unroll UNROLLED
  for (int k = 0; k < CLASSES; ++k) {
    right[k * LANES] += to_right[k];
    left[k * LANES] += most - to_right[k];
  }
  return (double)low + whole;
}

// Turns cost into shares; only thread 0 of the walkers knows the minimum it returns.
__device__ double divide(const Chain& chain, int nodes, bool inside) {
  __shared__ double sums[2][LANES];
  const int walker = threadIdx.y;
  const int middle = (nodes - 1) / 2;
  double total = 0;
  if (walker < 2 && inside) {
    const bool back = walker == 1;
    sums[walker][threadIdx.x] = back ? walk(chain, nodes - 1, nodes - 2 - middle, -1) : walk(chain, 0, middle, 1);
  }
  __syncthreads();
  if (walker == 0 && inside) {
    total = sums[0][threadIdx.x] + sums[1][threadIdx.x];
    total += handshake(chain, middle, (float)(middle + 1) / nodes);
  }
  for (int level = 1; (nodes - 1) >> level; ++level) {
    __syncthreads();
    for (int segment = walker; inside && segment >> level == 0; segment += WALKERS) {
      int start = 0, end = nodes;
      for (int bit = level - 1; bit >= 0 && start < end; --bit) {
        const int cut = (start + end + 1) / 2;
        if (end - start == 1)
          start = end;  // one node has no halves
        else
          (segment >> bit & 1 ? start : end) = cut;
      }
      if (end - start < 2) continue;
      const int half = (start + end - 1) / 2;
      // Messages from the outer end are still right; those from the cut, an upper half's start, begin anew.
      if (segment & 1)
        walk(chain, start, half - start, 1);
      else
        walk(chain, end - 1, end - 2 - half, -1);
      handshake(chain, half, (float)(half + 1 - start) / (end - start));
    }
  }
  __syncthreads();
  return total;
}

// unary, rows and out (B, CLASSES, height, width), weight (B, height, width - 1) or (B, height - 1, width), labels
// (B, height, width) if labelled, minima (B, chains); out may be rows. Grid: blocks of LANES chains, B.
extern "C" __global__ void __launch_bounds__(LANES* WALKERS)
    hand_over(const float* unary, const float* rows, const float* weight, float* cost, float* messages, float* out,
              unsigned char* labels, double* minima, int height, int width, int labelled) {
  const int nodes = DOWN ? height : width, chains = DOWN ? width : height;
  const int number = blockIdx.x * LANES + threadIdx.x;
  const bool inside = number < chains;
  const long long plane = (long long)height * width, image = (long long)blockIdx.y * CLASSES * plane;
  const long long block = (long long)blockIdx.y * gridDim.x + blockIdx.x;
  const long long scratch = block * nodes * CLASSES * LANES + threadIdx.x;
  const long long edges = (long long)blockIdx.y * (DOWN ? (height - 1) * width : height * (width - 1));
  const Chain chain = {cost + scratch, messages + scratch,
                       weight + edges + (DOWN ? number : (long long)number * (width - 1)), DOWN ? width : 1};
  for (int node = threadIdx.y; inside && node < nodes; node += WALKERS) {
    float* values = chain.at(chain.cost, node);
    const long long here = image + pixel(number, node, width);
    for (int k = 0; k < CLASSES; ++k) {
      const float owned = rows[here + k * plane];
      values[k * LANES] = DOWN ? unary[here + k * plane] - owned : owned;
    }
  }
  __syncthreads();
  double total = 0;
  if (nodes > 1) total = divide(chain, nodes, inside);
  for (int node = threadIdx.y; inside && node < nodes; node += WALKERS) {
    const float* values = chain.at(chain.cost, node);
    const long long here = pixel(number, node, width);
    float low = values[0];
    int best = 0;
    for (int k = 1; k < CLASSES; ++k)
      if (values[k * LANES] < low) low = values[k * LANES], best = k;
    for (int k = 0; k < CLASSES; ++k) {
      const float share = values[k * LANES] - low;
      out[image + here + k * plane] = rows[image + here + k * plane] + (DOWN ? share : -share);
    }
    if (labelled) labels[blockIdx.y * plane + here] = best;
    if (nodes == 1) total = low;
  }
  if (inside && threadIdx.y == 0) minima[(long long)blockIdx.y * chains + number] = total;
}

// The minima of chains in float64; a thread for each. Arrays as above. Grid: blocks of chains, B.
extern "C" __global__ void minimum(const float* unary, const float* rows, const float* weight, double* minima,
                                   int height, int width) {
  const int nodes = DOWN ? height : width, chains = DOWN ? width : height;
  const int number = blockIdx.x * blockDim.x + threadIdx.x;
  if (number >= chains) return;
  const long long plane = (long long)height * width, image = (long long)blockIdx.y * CLASSES * plane;
  const long long edges = (long long)blockIdx.y * (DOWN ? (height - 1) * width : height * (width - 1));
  double message[CLASSES], total = 0;
#pragma unroll UNROLLED
  for (int k = 0; k < CLASSES; ++k) message[k] = 0;
  for (int node = 0; node < nodes; ++node) {
    const long long here = image + pixel(number, node, width);
    double low = MOST;
#pragma unroll UNROLLED
    for (int k = 0; k < CLASSES; ++k) {
      const double owned = rows[here + k * plane];
      message[k] += DOWN ? unary[here + k * plane] - owned : owned;
      low = fmin(low, message[k]);
    }
    total += low;
    if (node + 1 == nodes) break;
    const double edge = weight[edges + (DOWN ? pixel(number, node, width) : (long long)number * (width - 1) + node)];
#pragma unroll UNROLLED
    for (int k = 0; k < CLASSES; ++k) message[k] = fmin(message[k] - low, edge);
  }
  minima[(long long)blockIdx.y * chains + number] = total;
}

// Gives every second chain its best labels; a thread for each chain, of which the others copy theirs. Costs (B, nodes,
// CLASSES, chains), lows and bests (B, nodes, chains) are scratch, along (B, edges of the chains), across (B, others).
extern "C" __global__ void relabel(const float* unary, const float* along, const float* across,
                                   const unsigned char* labels, float* costs, float* lows, int* bests,
                                   unsigned char* out, int height, int width, int first) {
  const int nodes = DOWN ? height : width, chains = DOWN ? width : height;
  const int number = blockIdx.x * blockDim.x + threadIdx.x;
  if (number >= chains) return;
  const long long plane = (long long)height * width, image = (long long)blockIdx.y * CLASSES * plane;
  const unsigned char* known = labels + blockIdx.y * plane;
  unsigned char* found = out + blockIdx.y * plane;
  if (number % 2 != first) {
    for (int node = 0; node < nodes; ++node) found[pixel(number, node, width)] = known[pixel(number, node, width)];
    return;
  }
  const int to_right = height * (width - 1), below = (height - 1) * width;
  along += (long long)blockIdx.y * (DOWN ? below : to_right);
  across += (long long)blockIdx.y * (DOWN ? to_right : below);
  // The edge from a chain to the next at a node, and along the chain from a node to the next.
  const auto beside = [=](int chain, int node) {
    return DOWN ? across[(long long)node * (width - 1) + chain] : across[(long long)chain * width + node];
  };
  const auto edge = [=](int node) {
    return DOWN ? along[(long long)node * width + number] : along[(long long)number * (width - 1) + node];
  };
  const long long scratch = (long long)blockIdx.y * nodes * chains + number;
  float message[CLASSES];
#pragma unroll UNROLLED
  for (int k = 0; k < CLASSES; ++k) message[k] = 0.f;
  for (int node = 0; node < nodes; ++node) {
    const long long here = image + pixel(number, node, width), place = scratch + (long long)node * chains;
    // A neighbour's label costs all others the edge's weight: the same, up to a constant, as a discount on itself.
    const int before = number > 0 ? known[pixel(number - 1, node, width)] : -1;
    const int after = number + 1 < chains ? known[pixel(number + 1, node, width)] : -1;
    const float one = number > 0 ? beside(number - 1, node) : 0.f;
    const float other = number + 1 < chains ? beside(number, node) : 0.f;
    float low = MOST;
    int best = 0;
#pragma unroll UNROLLED
    for (int k = 0; k < CLASSES; ++k) {
      float own = unary[here + k * plane];
      if (k == before) own -= one;
      if (k == after) own -= other;
      message[k] += own;
      if (message[k] < low) low = message[k], best = k;
      costs[((long long)blockIdx.y * nodes + node) * CLASSES * chains + (long long)k * chains + number] = message[k];
    }
    lows[place] = low;
    bests[place] = best;
    const float weight = node + 1 < nodes ? edge(node) : 0.f;
#pragma unroll UNROLLED
    for (int k = 0; k < CLASSES; ++k) message[k] = fminf(message[k] - low, weight);
  }
  int label = bests[scratch + (long long)(nodes - 1) * chains];
  for (int node = nodes - 1; node >= 0; --node) {
    const long long place = scratch + (long long)node * chains;
    const float own = costs[((long long)blockIdx.y * nodes + node) * CLASSES * chains + (long long)label * chains + number];
    // Of equals the label of the node before, so that borders are not longer than they need be.
    if (node + 1 < nodes && !(own - lows[place] <= edge(node))) label = bests[place];
    found[pixel(number, node, width)] = label;
  }
}
