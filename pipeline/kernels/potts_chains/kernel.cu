// Chains of Potts costs: a thread walks along a segment of one chain, eight chains lie side by side in scratch memory.
//
// Nothing passes between threads but through memory and barriers. Segments of a chain are cut level by level; the
// longest walk is half a chain, the next a quarter. Scratch is (blocks, nodes, CLASSES, LANES), so that the lanes of a
// class are one sector of 32 bytes.
//
// A walk waits for memory more than for anything else. So what the next node needs is asked for before this node's
// messages are worked out, and what is read together is read before anything is written: the compiler may not read
// ahead of a write that could be to the same place.

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
constexpr int CHUNK = CLASSES <= 32 ? CLASSES : 16;  // classes that are read together
constexpr int BITS = 32, WORDS = (CLASSES + BITS - 1) / BITS;  // a bit for every class
constexpr int GROUP = 8;  // nodes that are read together on the way back

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
  float message[CLASSES], ahead[CLASSES];
  double total = 0;
  const float* cost = chain.at(chain.cost, first);
#pragma unroll UNROLLED
  for (int k = 0; k < CLASSES; ++k) {
    ahead[k] = cost[k * LANES];
    message[k] = 0.f;
  }
  float* out = chain.at(chain.messages, first);
#pragma unroll UNROLLED
  for (int k = 0; k < CLASSES; ++k) out[k * LANES] = 0.f;
  // The edge after a node has its number; a walk ends before the chain does, so that there always is another.
  const int beside = step > 0 ? 0 : -1;
  float next = chain.edge(first + beside);
  for (int node = first; node != first + count * step; node += step) {
    const float weight = next;
    next = chain.edge(node + step + beside);
    cost = chain.at(chain.cost, node + step);
    // Four minima that do not wait for one another.
    float lows[] = {MOST, MOST, MOST, MOST};
#pragma unroll UNROLLED
    for (int k = 0; k < CLASSES; ++k) {
      message[k] += ahead[k];
      ahead[k] = cost[k * LANES];
      lows[k % 4] = fminf(lows[k % 4], message[k]);
    }
    const float low = fminf(fminf(lows[0], lows[1]), fminf(lows[2], lows[3]));
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
    // One call for both, here and below: a warp that is in two places at once goes through them one after the other.
    const bool back = walker == 1;
    sums[walker][threadIdx.x] =
        walk(chain, back ? nodes - 1 : 0, back ? nodes - 2 - middle : middle, back ? -1 : 1);
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
      const bool back = !(segment & 1);
      walk(chain, back ? end - 1 : start, back ? end - 2 - half : half - start, back ? -1 : 1);
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
    for (int first = 0; first < CLASSES; first += CHUNK) {
      float own[CHUNK], whole[CHUNK];
#pragma unroll
      for (int k = 0; k < CHUNK; ++k) {
        const long long there = here + min(first + k, CLASSES - 1) * plane;
        own[k] = rows[there];
        whole[k] = DOWN ? unary[there] : 0.f;
      }
#pragma unroll
      for (int k = 0; k < CHUNK; ++k)
        if (first + k < CLASSES) values[(first + k) * LANES] = DOWN ? whole[k] - own[k] : own[k];
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
#pragma unroll UNROLLED
    for (int k = 1; k < CLASSES; ++k)
      if (values[k * LANES] < low) low = values[k * LANES], best = k;
    for (int first = 0; first < CLASSES; first += CHUNK) {
      float own[CHUNK];
#pragma unroll
      for (int k = 0; k < CHUNK; ++k) {
        const int label = min(first + k, CLASSES - 1);
        const float share = values[label * LANES] - low;
        own[k] = rows[image + here + label * plane] + (DOWN ? share : -share);
      }
#pragma unroll
      for (int k = 0; k < CHUNK; ++k)
        if (first + k < CLASSES) out[image + here + (first + k) * plane] = own[k];
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
  float own[CLASSES], whole[CLASSES], edge;
  const auto ask = [&](int node) {
    const long long here = image + pixel(number, node, width);
#pragma unroll UNROLLED
    for (int k = 0; k < CLASSES; ++k) {
      own[k] = rows[here + k * plane];
      whole[k] = DOWN ? unary[here + k * plane] : 0.f;
    }
    if (node + 1 < nodes)
      edge = weight[edges + (DOWN ? pixel(number, node, width) : (long long)number * (width - 1) + node)];
  };
  ask(0);
#pragma unroll UNROLLED
  for (int k = 0; k < CLASSES; ++k) message[k] = 0;
  for (int node = 0; node < nodes; ++node) {
    double lows[] = {MOST, MOST, MOST, MOST};
#pragma unroll UNROLLED
    for (int k = 0; k < CLASSES; ++k) {
      message[k] += DOWN ? (double)whole[k] - own[k] : own[k];
      lows[k % 4] = fmin(lows[k % 4], message[k]);
    }
    const double low = fmin(fmin(lows[0], lows[1]), fmin(lows[2], lows[3]));
    total += low;
    if (node + 1 == nodes) break;
    const double jump = edge;
    ask(node + 1);
#pragma unroll UNROLLED
    for (int k = 0; k < CLASSES; ++k) message[k] = fmin(message[k] - low, jump);
  }
  minima[(long long)blockIdx.y * chains + number] = total;
}

// Finds the best labels of every second chain, from `first` on; a thread for each. Labels (B, height, width), out those of
// these chains alone, (B, height, half) or (B, half, width); along (B, edges of the chains), across (B, others). bests (B,
// nodes, half) and kept (B, nodes, WORDS, half) are scratch: the best label up to a node, and which labels of the next
// node it is best to have here too.
extern "C" __global__ void relabel(const float* unary, const float* along, const float* across,
                                   const unsigned char* labels, int* bests, int* kept, unsigned char* out, int height,
                                   int width, int first) {
  const int nodes = DOWN ? height : width, chains = DOWN ? width : height;
  const int mine = blockIdx.x * blockDim.x + threadIdx.x, number = 2 * mine + first, half = (chains - first + 1) / 2;
  if (number >= chains) return;
  const long long plane = (long long)height * width, image = (long long)blockIdx.y * CLASSES * plane;
  const unsigned char* known = labels + blockIdx.y * plane;
  unsigned char* found = out + (long long)blockIdx.y * nodes * half;
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
  bests += (long long)blockIdx.y * nodes * half + mine;
  kept += (long long)blockIdx.y * nodes * WORDS * half + mine;
  // What a node costs: its own, and its neighbours' labels with the edges to them. -1 is no neighbour.
  float own[CLASSES], one, other, weight;
  int before, after;
  const auto ask = [&](int node) {
    const long long here = image + pixel(number, node, width);
#pragma unroll UNROLLED
    for (int k = 0; k < CLASSES; ++k) own[k] = unary[here + k * plane];
    before = number > 0 ? known[pixel(number - 1, node, width)] : -1;
    after = number + 1 < chains ? known[pixel(number + 1, node, width)] : -1;
    one = number > 0 ? beside(number - 1, node) : 0.f;
    other = number + 1 < chains ? beside(number, node) : 0.f;
    weight = node + 1 < nodes ? edge(node) : 0.f;
  };
  float message[CLASSES];
#pragma unroll UNROLLED
  for (int k = 0; k < CLASSES; ++k) message[k] = 0.f;
  ask(0);
  for (int node = 0; node < nodes; ++node) {
    const float jump = weight;
    float low = MOST;
    int best = 0;
#pragma unroll UNROLLED
    for (int k = 0; k < CLASSES; ++k) {
      // A neighbour's label costs all others the edge's weight: the same, up to a constant, as a discount on itself.
      message[k] += own[k] - (k == before ? one : 0.f) - (k == after ? other : 0.f);
      if (message[k] < low) low = message[k], best = k;
    }
    if (node + 1 < nodes) ask(node + 1);
    bests[(long long)node * half] = best;
    // Of equals the label of the next node, so that borders are not longer than they need be.
    int bits = 0;
#pragma unroll UNROLLED
    for (int k = 0; k < CLASSES; ++k) {
      message[k] -= low;
      bits |= (message[k] <= jump) << k % BITS;
      message[k] = fminf(message[k], jump);
      if ((k + 1) % BITS == 0 || k + 1 == CLASSES) {
        kept[((long long)node * WORDS + k / BITS) * half] = bits;
        bits = 0;
      }
    }
  }
  int label = bests[(long long)(nodes - 1) * half];
  for (int last = nodes - 1; last >= 0; last -= GROUP) {
    int best[GROUP], bits[GROUP][WORDS];
#pragma unroll
    for (int k = 0; k < GROUP; ++k) {
      const long long node = max(last - k, 0);
      best[k] = bests[node * half];
#pragma unroll
      for (int word = 0; word < WORDS; ++word) bits[k][word] = kept[(node * WORDS + word) * half];
    }
#pragma unroll
    for (int k = 0; k < GROUP; ++k) {
      if (last - k < 0) break;
      bool keeps = false;
#pragma unroll
      for (int word = 0; word < WORDS; ++word)
        if (label / BITS == word) keeps = bits[k][word] >> label % BITS & 1;
      if (last - k + 1 < nodes && !keeps) label = best[k];
      found[DOWN ? (long long)(last - k) * half + mine : (long long)mine * nodes + last - k] = label;
    }
  }
}
