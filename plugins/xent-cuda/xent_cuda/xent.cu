// The fused kernels of xent-cuda: the fold over classes, its gradient and its statistics, for one row after the other.
//
// CUDA C++ without a single #include, so that NVRTC needs no headers and a C++17 compiler builds the same text for a
// processor (tests/twin/cuda.hpp). A row is read once, in granules of 16 bytes, and stays on the chip for three passes:
//
//   1  the largest logit m                                      any order: a maximum has none
//   2  sums of exp(x_j - m) over all classes but one at m        leaf by leaf: classes [i V, i V + V), V = 16 / sizeof(T)
//   3  the gradient                                             class by class
//
// A row's bits may depend on nothing but the row. So a leaf is a run of classes, not of addresses, however the row lies
// in memory; the few terms of a leaf are added as a tree, and leaves in doubles that keep their rounding errors: to some
// 100 bits, of which no order of adding shows in the 24 or 53 that are returned. That is what lets one thread, a warp, a
// block, a cluster of blocks or several launches fold the same row to the same numbers.
//
// exp(x_j - m) of 16-bit logits, which are read twice as fast, is 2^(x_j L - shift) with L = log2(e) and shift near m L:
// one fused multiply-add, one exponential. The difference of shift and m L is a factor of the row (Top::correction).

typedef long long i64;
typedef unsigned int u32;
typedef unsigned short u16;

struct f16 { u16 bits; };
struct bf16 { u16 bits; };

#ifdef XENT_HOST
DEV float widen(f16 x) { return widened_half(x); }
DEV f16 narrow(float x, f16) { return narrowed_to_half<f16>(x); }
DEV bf16 narrow(float x, bf16) { return narrowed_to_bfloat<bf16>(x); }
#else
typedef unsigned long long u64;
#define DEV __device__ __forceinline__
#define SHARED_MEMORY(name) extern __shared__ uint4 name[]
#define CLUSTER(K) __cluster_dims__(K, 1, 1)
#define LAUNCH_BOUNDS(BLOCK) __launch_bounds__(BLOCK, BLOCK > 768 ? 1 : 768 / BLOCK)  // registers for 768 threads at once
DEV float as_float(u32 bits) { return __int_as_float((int)bits); }
DEV float widen(f16 x) { float wide; asm("cvt.f32.f16 %0, %1;" : "=f"(wide) : "h"(x.bits)); return wide; }
DEV f16 narrow(float x, f16) { f16 y; asm("cvt.rn.f16.f32 %0, %1;" : "=h"(y.bits) : "f"(x)); return y; }
DEV bf16 narrow(float x, bf16) { bf16 y; asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(y.bits) : "f"(x)); return y; }
DEV float exp2_approximate(float x) { float y; asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x)); return y; }
DEV float exponential(float x) { return expf(x); }
DEV float approximate_reciprocal(float x) { float y; asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x)); return y; }
DEV u32 larger_pair(u32 a, u32 b, f16) { u32 c; asm("max.f16x2 %0, %1, %2;" : "=r"(c) : "r"(a), "r"(b)); return c; }
DEV u32 larger_pair(u32 a, u32 b, bf16) { u32 c; asm("max.bf16x2 %0, %1, %2;" : "=r"(c) : "r"(a), "r"(b)); return c; }
DEV uint4 load16(const void* from) { return __ldcg((const uint4*)from); }
DEV void store16(void* to, uint4 value) { __stcs((uint4*)to, value); }
DEV u32 cluster_rank() { u32 rank; asm volatile("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank)); return rank; }
template <class P> DEV P* in_peer(P* mine, u32 rank) {
  u64 address;
  asm volatile("mapa.u64 %0, %1, %2;" : "=l"(address) : "l"((u64)mine), "r"(rank));
  return (P*)address;
}
DEV void cluster_sync() {
#if __CUDA_ARCH__ >= 900
  asm volatile("barrier.cluster.arrive.aligned;\nbarrier.cluster.wait.aligned;" ::: "memory");
#endif
}
#endif

DEV float widen(float x) { return x; }
DEV double widen(double x) { return x; }
DEV float widen(bf16 x) { return as_float((u32)x.bits << 16); }
DEV float narrow(float x, float) { return x; }
DEV double narrow(double x, double) { return x; }
DEV double exponential(double x) { return exp(x); }
DEV float reciprocal(float x) { float y = approximate_reciprocal(x); return fmaf(y, fmaf(-x, y, 1.0f), y); }  // no call, as / has
DEV double reciprocal(double x) { return 1.0 / x; }
DEV float larger(float a, float b) { return fmaxf(a, b); }  // of a NaN and a number the number
DEV double larger(double a, double b) { return fmax(a, b); }
DEV float log1p_of(float x) { return log1pf(x); }
DEV double log1p_of(double x) { return log1p(x); }

template <class T> struct Wide { typedef float type; };  // what is computed in
template <> struct Wide<double> { typedef double type; };
template <class A> DEV A infinity() { return (A)as_float(0x7f800000u); }
template <class A> DEV A nan() { return (A)as_float(0x7fc00000u); }

const double SHRINK = 1.0 / 4294967296.0;  // of gaps whose sum may be infinite where none of them is; it keeps every digit
enum Kind { LABEL = 0, SMOOTHED = 1, SOFT = 2 };  // the targets: 1 at the label; on at the label plus off everywhere; any
enum Mode {
  GRADIENT = 1,      // the gradient is written
  STATISTICS = 2,    // rank, squares and spread are written
  FROM_PARTIAL = 4,  // the fold's numbers are read: the third pass alone
  MAXIMA = 8,        // the first of three launches over rows in parts: the first pass alone
  SUMS = 16,         // the second of three: the second pass alone
  MERGE = 32         // the third of three: the parts are added up, then the third pass
};

// ---- a call ---------------------------------------------------------------------------------------------------------

struct Sum {  // a sum that does not depend on the order of adding
  double high, low;
  DEV void clear() { high = low = 0.0; }
  DEV void add(double x) {  // Knuth's two-sum: the rounding error goes to low
    double sum = high + x, back = sum - high;
    low += (high - (sum - back)) + (x - back);
    high = sum;
  }
  DEV void add(const Sum& other) { add(other.high); low += other.low; }
  DEV double value() const { return low == low ? high + low : high; }  // subtle: the error of an infinite sum is NaN
};

template <int N> struct Accumulator {  // the sums and counts of the second pass, over some of the classes of a row
  Sum sum[N];          // of exponentials; then of m - x_j, or t_j (m - x_j) and t_j, or squares and (m - x_j) exponentials
  int at_top, before;  // classes at m; classes that rank before the label
  DEV void clear() {
#pragma unroll
    for (int i = 0; i < N; ++i) sum[i].clear();
    at_top = before = 0;
  }
  DEV void add(const Accumulator& other) {
#pragma unroll
    for (int i = 0; i < N; ++i) sum[i].add(other.sum[i]);
    at_top += other.at_top;
    before += other.before;
  }
};

template <int KIND, int MODE> struct AccumulatorOf {
  typedef Accumulator<(MODE & STATISTICS) || KIND == SOFT ? 3 : KIND == SMOOTHED ? 2 : 1> type;
};

template <class T> struct Task {  // xent_cuda/task.py has the same fields in the same order
  typedef typename Wide<T>::type A;
  T* logits;                   // (rows, classes), classes contiguous; only read, unless gradient is the same memory
  T* gradient;                 // of that shape
  const i64* labels;           // (rows,)
  const A* targets;            // (rows, classes), if they are soft
  const A* scale;              // (rows,), of the gradient
  A *max, *rest, *gap, *mass;  // (rows,) the fold's numbers: written, or read with FROM_PARTIAL
  A* loss;                     // (rows,); every pointer that a call does not need is null
  const A* label_logit;        // (rows,)
  i64* rank;
  A *squares, *spread;
  A* maxima;                   // (rows, parts): passed from one launch to the next
  void* accumulators;          // (rows, parts)
  i64 logits_stride, gradient_stride, labels_stride, targets_stride, scale_stride;  // in elements
  i64 rows, classes, parts, cached;  // cached: granules of a row, or of a part of one, that stay in shared memory
  double on, off;
};

// ---- rows in memory ---------------------------------------------------------------------------------------------------

template <class T> struct Pack {  // 16 bytes of a row
  static const int V = 16 / sizeof(T);
  union { uint4 all; u32 word[4]; u64 half[2]; T each[V]; };
  DEV Pack() {}
};

template <class T> union Bits { T value; u64 bits; DEV Bits() : bits(0) {} };

template <class T> struct RunningMax {  // the largest element of some packs; NaN is passed over
  typename Wide<T>::type largest;
  DEV RunningMax() : largest(-infinity<typename Wide<T>::type>()) {}
  DEV void update(const Pack<T>& pack) {
#pragma unroll
    for (int k = 0; k < Pack<T>::V; ++k) largest = larger(largest, widen(pack.each[k]));
  }
  DEV typename Wide<T>::type value() const { return largest; }
};

template <class H> struct RunningMaxOfPairs {  // of 16-bit logits, two at a time
  Pack<H> largest;
  DEV RunningMaxOfPairs() {
#pragma unroll
    for (int k = 0; k < 2; ++k) largest.each[k] = narrow(-infinity<float>(), H());
  }
  DEV void update(const Pack<H>& pack) {
#pragma unroll
    for (int i = 0; i < 4; ++i) largest.word[0] = larger_pair(largest.word[0], pack.word[i], H());
  }
  DEV float value() const { return larger(widen(largest.each[0]), widen(largest.each[1])); }
};
template <> struct RunningMax<f16> : RunningMaxOfPairs<f16> {};
template <> struct RunningMax<bf16> : RunningMaxOfPairs<bf16> {};

// 16 bytes of a followed by b, from the element of that index on.
template <class T> DEV Pack<T> spliced(const Pack<T>& a, const Pack<T>& b, int elements) {
  int bytes = elements * (int)sizeof(T);
  u32 word[8];
#pragma unroll
  for (int i = 0; i < 4; ++i) word[i] = a.word[i], word[4 + i] = b.word[i];
#pragma unroll
  for (int i = 0; i < 6; ++i) word[i] = bytes & 8 ? word[i + 2] : word[i];
#pragma unroll
  for (int i = 0; i < 5; ++i) word[i] = bytes & 4 ? word[i + 1] : word[i];
  Pack<T> out;
#pragma unroll
  for (int i = 0; i < 4; ++i) out.word[i] = bytes & 2 ? word[i] >> 16 | word[i + 1] << 16 : word[i];
  return out;
}

// Contiguous classes as granules of aligned 16 bytes; a run may begin and end inside a granule.
template <class T> struct Run {
  static const int V = Pack<T>::V;
  T* at;
  int classes, skip, granules, whole;  // skip: elements of the first granule that are before the run
  DEV Run(T* at, int classes) : at(at), classes(classes) {
    skip = (int)((u64)at & 15u) / (int)sizeof(T);
    granules = (skip + classes + V - 1) / V;
    whole = (skip + classes) / V;
  }
  DEV bool has(int first, int k) const { return first + k >= 0 && first + k < classes; }
  DEV bool has_all(int first) const { return first >= 0 && first + V <= classes; }
  DEV Pack<T> load(int granule) const {  // -inf if a class does not exist
    int first = granule * V - skip;
    Pack<T> pack;
    if (has_all(first)) {
      pack.all = load16(at + first);
      return pack;
    }
    pack.half[0] = pack.half[1] = 0;
#pragma unroll 1  // rare, and unrolled it would be copied into every caller
    for (int k = 0; k < V; ++k) {
      Bits<T> element;
      element.value = has(first, k) ? at[first + k] : narrow(-infinity<typename Wide<T>::type>(), T());
      const int bit = k * 8 * (int)sizeof(T);
      if (bit < 64) pack.half[0] |= element.bits << bit; else pack.half[1] |= element.bits << (bit - 64);
    }
    return pack;
  }
  DEV void store(int granule, const Pack<T>& pack) const {
    int first = granule * V - skip;
    if (has_all(first)) {
      store16(at + first, pack.all);
      return;
    }
#pragma unroll 1
    for (int k = 0; k < V; ++k) {
      Bits<T> element;
      const int bit = k * 8 * (int)sizeof(T);
      element.bits = bit < 64 ? pack.half[0] >> bit : pack.half[1] >> (bit - 64);
      if (has(first, k)) at[first + k] = element.value;
    }
  }
};

template <class T> struct CachedRun {  // a run whose first granules are in shared memory
  static const int V = Pack<T>::V;
  Run<T> run;
  uint4* cache;
  int cached;
  DEV bool is_cached_aligned() const {  // then a granule of the cache is a leaf
    return run.skip == 0 && cached == run.granules && cached > 0;
  }
  DEV Pack<T> granule(int index) const {
    Pack<T> pack;
    if (index >= 0 && index < cached)
      pack.all = cache[index];
    else
      pack = run.load(index);
    return pack;
  }
  DEV Pack<T> classes_from(int first) const {  // V of them, wherever in their granules they begin
    int at = first + run.skip, offset = at & (V - 1), index = (at - offset) / V;
    return offset ? spliced(granule(index), granule(index + 1), offset) : granule(index);
  }
};

template <class A, int V> DEV void load_targets(const A* row, int first, int classes, A (&t)[V]) {  // 0 beyond the classes
  if (first >= 0 && first + V <= classes && ((u64)(row + first) & 15u) == 0) {
#pragma unroll
    for (int i = 0; i < V; i += Pack<A>::V) {
      Pack<A> pack;
      pack.all = load16(row + first + i);
#pragma unroll
      for (int k = 0; k < Pack<A>::V; ++k) t[i + k] = pack.each[k];
    }
  } else {
#pragma unroll
    for (int k = 0; k < V; ++k) t[k] = first + k >= 0 && first + k < classes ? row[first + k] : A(0);
  }
}

// ---- the second pass --------------------------------------------------------------------------------------------------

template <class T> struct Top {  // the largest logit m, and exponentials over it
  typedef typename Wide<T>::type A;
  A max;
  DEV explicit Top(A max) : max(max) {}
  DEV A over(A x) const { return exponential(x - max); }
  DEV double correction() const { return 1.0; }  // exp(x - m) / over(x)
};

struct QuickTop {
  static constexpr float LOG2E = 1.44269504f;
  float max, shift;
  DEV explicit QuickTop(float max) : max(max), shift(larger(max * LOG2E, -3e38f)) {}
  DEV float over(float x) const { return exp2_approximate(fmaf(x, LOG2E, -shift)); }
  DEV double correction() const {
    double off = fma((double)max, (double)LOG2E, -(double)shift);
    return exp2(fmax(fmin(-off, 64.0), -64.0));  // subtle: where it is more, over(x) is 0
  }
};
template <> struct Top<f16> : QuickTop { using QuickTop::QuickTop; };
template <> struct Top<bf16> : QuickTop { using QuickTop::QuickTop; };

template <class A, int V> DEV double tree_sum(A (&term)[V]) {
#pragma unroll
  for (int half = V / 2; half > 0; half /= 2)
#pragma unroll
    for (int k = 0; k < half; ++k) term[k] += term[k + half];
  return (double)term[0];
}

template <class A> struct RankedLabel {  // a row's label, for its rank: counted from a part's first class, and its logit
  int label;
  A label_logit;
};

// A label as an int: -1 if it is before the classes, their number if it is after them.
DEV int clamp_label(i64 label, int classes) { return label < 0 ? -1 : label < classes ? (int)label : classes; }

// Adds a leaf: x and targets t of V classes from first on, of which the first `valid` exist. HOLDS: one may be at m.
template <int KIND, int MODE, bool HOLDS, class Accumulator, class Top, class A, int V>
DEV void add_leaf(Accumulator& acc, const Top& top, const RankedLabel<A>& ranked, const A (&x)[V], const A (&t)[V], int first, int valid) {
  A e[V], second[V], third[V];
#pragma unroll
  for (int k = 0; k < V; ++k) {
    bool is_top = HOLDS && x[k] == top.max;
    A gap = is_top ? A(0) : top.max - x[k];
    const A exp_value = top.over(x[k]);  // computed before it is selected: a branch around it would cost more
    e[k] = is_top ? A(0) : exp_value;
    if (HOLDS) acc.at_top += is_top && k < valid;
    if (MODE & STATISTICS) {
      second[k] = e[k] * e[k];
      third[k] = e[k] == A(0) ? A(0) : gap * e[k];
      acc.before += k < valid && (x[k] > ranked.label_logit || (x[k] == ranked.label_logit && first + k < ranked.label));
    } else if (KIND == SMOOTHED) {
      second[k] = k < valid ? gap * A(SHRINK) : A(0);
    } else if (KIND == SOFT) {
      second[k] = t[k] == A(0) ? A(0) : t[k] * gap;  // subtle: selected, for 0 times infinity is NaN
      third[k] = t[k];
    }
  }
  const int N = sizeof(acc.sum) / sizeof(Sum);
  acc.sum[0].add(tree_sum(e));
  if (N > 1) acc.sum[N > 1 ? 1 : 0].add(tree_sum(second));
  if (N > 2) acc.sum[N > 2 ? 2 : 0].add(tree_sum(third));
}

// ---- a row's numbers --------------------------------------------------------------------------------------------------

template <class A> struct Numbers {
  A max, rest, gap, mass, squares, spread;
  bool is_outside;  // the label is none of the classes
  DEV A loss() const { return is_outside || rest < A(0) ? nan<A>() : gap + mass * log1p_of(rest); }
};

template <int KIND, int MODE, class T, class Accumulator, class A>
DEV Numbers<A> finish(const Task<T>& task, const Accumulator& acc, const Top<T>& top, i64 label, A label_logit) {
  const int N = sizeof(acc.sum) / sizeof(Sum), SECOND = N > 1 ? 1 : 0, THIRD = N > 2 ? 2 : 0;
  double correction = top.correction(), others = acc.sum[0].value() * correction;
  bool has_nan = !(others == others), is_empty = top.max == -infinity<A>() && !has_nan, is_inside = label >= 0 && label < task.classes;
  Numbers<A> numbers;
  numbers.max = has_nan ? nan<A>() : top.max + A(0);  // subtle: -0 becomes 0, or the order of equal zeros would show
  numbers.rest = has_nan || (top.max == infinity<A>() && acc.at_top > 1) ? nan<A>() : (A)(others + (double)(acc.at_top - 1));
  if (is_empty) numbers.rest = A(-1);
  A gap = has_nan ? nan<A>() : label_logit == top.max && !is_empty ? A(0) : top.max - label_logit;
  numbers.is_outside = KIND != SOFT && !is_inside;
  if (KIND == SOFT) {
    numbers.gap = (A)acc.sum[SECOND].value();
    numbers.mass = (A)acc.sum[THIRD].value();
  } else {
    A on = KIND == LABEL ? A(1) : (A)task.on, off = KIND == LABEL ? A(0) : (A)task.off;
    numbers.gap = is_inside && on != A(0) ? on * gap : A(0);  // subtle: at on = 0 the label's term is dropped
    numbers.mass = is_inside ? on : A(0);
    if (KIND == SMOOTHED) {
      numbers.gap += off / A(SHRINK) * (A)acc.sum[SECOND].value();
      numbers.mass += off * (A)task.classes;
    }
  }
  if (is_empty) numbers.gap = numbers.mass > A(0) ? infinity<A>() : A(0);
  if (MODE & STATISTICS) {
    numbers.squares = (A)(acc.sum[SECOND].value() * correction * correction + (double)acc.at_top);
    numbers.spread = (A)(acc.sum[THIRD].value() * correction);
  }
  return numbers;
}

template <class T, class A> DEV Numbers<A> load_numbers(const Task<T>& task, i64 row) {
  Numbers<A> numbers;
  numbers.max = task.max[row], numbers.rest = task.rest[row], numbers.mass = task.mass[row];
  numbers.is_outside = false;
  return numbers;
}

template <int MODE, class T, class Accumulator, class A>
DEV void store_numbers(const Task<T>& task, i64 row, const Numbers<A>& numbers, const Accumulator& acc) {
  if (task.loss) task.loss[row] = numbers.loss();
  if (task.max) task.max[row] = numbers.max, task.rest[row] = numbers.rest, task.gap[row] = numbers.gap, task.mass[row] = numbers.mass;
  if (MODE & STATISTICS) task.rank[row] = acc.before, task.squares[row] = numbers.squares, task.spread[row] = numbers.spread;
}

// ---- the third pass ---------------------------------------------------------------------------------------------------

template <int KIND, class T> struct Gradient {
  typedef typename Wide<T>::type A;
  Top<T> top;
  A rest, mass, inverse, softmax_scale, scale;
  DEV Gradient(const Numbers<A>& numbers, A scale) : top(numbers.max), rest(numbers.rest), mass(numbers.mass), scale(scale) {
    inverse = numbers.is_outside || numbers.max == -infinity<A>() ? nan<A>() : reciprocal(A(1) + rest);
    softmax_scale = mass * inverse * (A)top.correction();
  }
  DEV A entry(A x, A t) const {  // at the maximum without the difference of two numbers that may be equal
    const A elsewhere = softmax_scale * top.over(x) - t;
    return (x == top.max ? ((mass - t) - t * rest) * inverse : elsewhere) * scale;
  }
  template <int V> DEV void entries(const A (&x)[V], const A (&t)[V], int first, int label, A on, A off, A (&out)[V]) const {
    if (scale == A(0)) {
#pragma unroll
      for (int k = 0; k < V; ++k) out[k] = A(0);
      return;
    }
    const A peak = mass * inverse * scale, factor = softmax_scale * scale;
#pragma unroll
    for (int k = 0; k < V; ++k) {
      const A elsewhere = factor * top.over(x[k]);
      out[k] = KIND != LABEL ? entry(x[k], KIND == SOFT ? t[k] : off) : x[k] == top.max ? peak : elsewhere;
    }
    if (KIND != SOFT && (u32)(label - first) < (u32)V) {
#pragma unroll
      for (int k = 0; k < V; ++k)
        if (first + k == label) out[k] = entry(x[k], on + off);
    }
  }
};

// ---- threads that share a row -----------------------------------------------------------------------------------------

template <int LANES, class A> DEV A warp_max(A x) {
#pragma unroll
  for (int lane = LANES / 2; lane > 0; lane /= 2) x = larger(x, __shfl_xor_sync(0xffffffffu, x, lane));
  return x;
}

template <int LANES, int MODE, int N> DEV void warp_add(Accumulator<N>& acc) {
#pragma unroll
  for (int lane = LANES / 2; lane > 0; lane /= 2) {
    Accumulator<N> other;
#pragma unroll
    for (int i = 0; i < N; ++i) {
      other.sum[i].high = __shfl_xor_sync(0xffffffffu, acc.sum[i].high, lane);
      other.sum[i].low = __shfl_xor_sync(0xffffffffu, acc.sum[i].low, lane);
    }
    other.at_top = __shfl_xor_sync(0xffffffffu, acc.at_top, lane);
    other.before = MODE & STATISTICS ? __shfl_xor_sync(0xffffffffu, acc.before, lane) : 0;
    acc.add(other);
  }
}

const int MAX_CLUSTER = 8, MAX_WARPS = 32;

template <class A, class Accumulator> struct Scratch {  // shared memory through which warps, and blocks of a cluster, exchange results
  A max[MAX_WARPS], peer_max[MAX_CLUSTER];
  Accumulator acc[MAX_WARPS], peer_acc[MAX_CLUSTER];
};

// ROW threads share a row: some lanes of a warp, a warp, or a block; K blocks of a cluster a part of it each.
template <int ROW, int K, int MODE, class A, class Accumulator> struct Team {
  static const int LANES = ROW < 32 ? ROW : 32, WARPS = ROW / 32;  // powers of two, both
  Scratch<A, Accumulator>* scratch;
  DEV void sync() const {
    if (ROW > 32) __syncthreads(); else __syncwarp();
  }
  DEV A max(A mine) const {
    int lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
    mine = warp_max<LANES>(mine);
    if (ROW > 32) {
      if (lane == 0) scratch->max[warp] = mine;
      __syncthreads();
      mine = warp_max<WARPS>(scratch->max[lane % WARPS]);
    } else {
      __syncwarp();
    }
    if (K > 1) {
      if (threadIdx.x < K) *in_peer(&scratch->peer_max[cluster_rank()], threadIdx.x) = mine;
      cluster_sync();
#pragma unroll
      for (int k = 0; k < K; ++k) mine = larger(mine, scratch->peer_max[k]);
    }
    return mine;
  }
  DEV void add(Accumulator& mine) const {
    int lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
    warp_add<LANES, MODE>(mine);
    if (ROW > 32) {
      if (lane == 0) scratch->acc[warp] = mine;
      __syncthreads();
      mine = scratch->acc[lane % WARPS];
      warp_add<WARPS, MODE>(mine);
    }
    if (K > 1) {
      if (threadIdx.x < K) *in_peer(&scratch->peer_acc[cluster_rank()], threadIdx.x) = mine;
      cluster_sync();
      mine.clear();
#pragma unroll
      for (int k = 0; k < K; ++k) mine.add(scratch->peer_acc[k]);
    }
  }
};

// ---- rows of many classes: some lanes, a warp, a block or a cluster for each ------------------------------------------

const int SCRATCH_BYTES = 3072, IN_FLIGHT = 4;  // IN_FLIGHT: granules that a thread loads at once

template <class T, int KIND, int MODE, int ROW, int BLOCK, int K> DEV void fold_rows(const Task<T>& task) {
  typedef typename Wide<T>::type A;
  typedef typename AccumulatorOf<KIND, MODE>::type Accumulator;
  const int V = Pack<T>::V, TEAMS = BLOCK / ROW;
  SHARED_MEMORY(shared);
  static_assert(sizeof(Scratch<A, Accumulator>) <= SCRATCH_BYTES, "SCRATCH_BYTES is too small");
  Team<ROW, K, MODE, A, Accumulator> team = {(Scratch<A, Accumulator>*)shared};
  const int lane = threadIdx.x % ROW, team_index = threadIdx.x / ROW, parts = (int)task.parts;
  uint4* cache = shared + (ROW > 32 ? SCRATCH_BYTES / 16 : team_index * (int)task.cached);
  const int part = blockIdx.x % parts, part_classes = (int)((task.classes + parts - 1) / parts + V - 1) / V * V;
  const int start = part * (i64)part_classes < task.classes ? part * part_classes : (int)task.classes;
  const int classes = task.classes - start < part_classes ? (int)(task.classes - start) : part_classes;
  const A on = KIND == LABEL ? A(1) : (A)task.on, off = KIND == LABEL ? A(0) : (A)task.off;

  if (K > 1) cluster_sync();  // a block's scratch may be written to once it has begun; nobody writes after the last sums
  for (i64 base = (i64)(blockIdx.x / parts) * TEAMS; base < task.rows; base += (i64)(gridDim.x / parts) * TEAMS) {
    const bool has_row = base + team_index < task.rows;  // subtle: teams without a row take part, for shuffles need all lanes
    const i64 row = has_row ? base + team_index : task.rows - 1;
    T* x = task.logits + row * task.logits_stride;
    const A* targets = KIND == SOFT ? task.targets + row * task.targets_stride + start : 0;
    const i64 label = KIND == SOFT ? -1 : task.labels[row * task.labels_stride];
    const A label_logit = KIND != SOFT && !(MODE & FROM_PARTIAL) && label >= 0 && label < task.classes ? A(widen(x[label])) : A(0);
    const int part_label = clamp_label(label - start, classes);
    CachedRun<T> logits = {Run<T>(x + start, classes), cache, 0};
    Numbers<A> numbers;
    if (MODE & FROM_PARTIAL) {
      numbers = load_numbers<T, A>(task, row);
    } else {
      Accumulator acc;
      acc.clear();
      A mine = -infinity<A>(), highest = mine;
      if (MODE & (SUMS | MERGE)) {
        for (int other = 0; other < parts; ++other) highest = larger(highest, task.maxima[row * parts + other]);
        mine = highest;
      } else {
        logits.cached = logits.run.granules < task.cached ? logits.run.granules : (int)task.cached;
        RunningMax<T> running_max;
        int g = lane;
        if (logits.is_cached_aligned())
          for (; g + (IN_FLIGHT - 1) * ROW < logits.run.whole; g += IN_FLIGHT * ROW) {
            Pack<T> pack[IN_FLIGHT];
#pragma unroll
            for (int u = 0; u < IN_FLIGHT; ++u) pack[u].all = load16(logits.run.at + (g + u * ROW) * V);
#pragma unroll
            for (int u = 0; u < IN_FLIGHT; ++u) cache[g + u * ROW] = pack[u].all, running_max.update(pack[u]);
          }
        for (; g < logits.run.granules; g += IN_FLIGHT * ROW) {
          Pack<T> pack[IN_FLIGHT];
#pragma unroll
          for (int u = 0; u < IN_FLIGHT; ++u) pack[u] = logits.run.load(g + u * ROW);
#pragma unroll
          for (int u = 0; u < IN_FLIGHT; ++u) {
            if (g + u * ROW < logits.cached) cache[g + u * ROW] = pack[u].all;
            running_max.update(pack[u]);
          }
        }
        mine = running_max.value();
        highest = team.max(mine);
        if (MODE & MAXIMA) {
          if (lane == 0 && has_row) task.maxima[row * parts + part] = highest;
          team.sync();
          continue;
        }
      }
      const Top<T> top(highest);
      if (MODE & MERGE) {
        for (int other = 0; other < parts; ++other) acc.add(((const Accumulator*)task.accumulators)[row * parts + other]);
      } else {
        const RankedLabel<A> ranked = {part_label, MODE & STATISTICS ? task.label_logit[row] : A(0)};
        const bool holds = mine == highest || logits.run.skip;  // subtle: if aligned, a thread's leaves are those it loaded
        int first = lane * V;
        if (logits.is_cached_aligned() && !holds)
#pragma unroll 2
          for (; first + V <= classes; first += ROW * V) {
            Pack<T> pack;
            pack.all = cache[first / V];
            A leaf[V], t[V];
#pragma unroll
            for (int k = 0; k < V; ++k) leaf[k] = widen(pack.each[k]);
            if (KIND == SOFT) load_targets(targets, first, classes, t);
            add_leaf<KIND, MODE, false>(acc, top, ranked, leaf, t, first, V);
          }
        for (; first < classes; first += ROW * V) {
          const Pack<T> pack = logits.classes_from(first);
          A leaf[V], t[V];
#pragma unroll
          for (int k = 0; k < V; ++k) leaf[k] = widen(pack.each[k]);
          if (KIND == SOFT) load_targets(targets, first, classes, t);
          if (holds)
            add_leaf<KIND, MODE, true>(acc, top, ranked, leaf, t, first, classes - first);
          else
            add_leaf<KIND, MODE, false>(acc, top, ranked, leaf, t, first, classes - first);
        }
        team.add(acc);
        if (MODE & SUMS) {
          if (lane == 0 && has_row) ((Accumulator*)task.accumulators)[row * parts + part] = acc;
          team.sync();
          continue;
        }
      }
      if ((MODE & GRADIENT) || lane == 0) numbers = finish<KIND, MODE>(task, acc, top, label, label_logit);
      if (lane == 0 && part == 0 && has_row) store_numbers<MODE>(task, row, numbers, acc);
    }
    if ((MODE & GRADIENT) && has_row) {
      const Gradient<KIND, T> gradient(numbers, task.scale[row * task.scale_stride]);
      const Run<T> out(task.gradient + row * task.gradient_stride + start, classes);
      auto gradients = [&](const Pack<T>& pack, int first) {
        A leaf[V], t[V], value[V];
#pragma unroll
        for (int k = 0; k < V; ++k) leaf[k] = widen(pack.each[k]);
        if (KIND == SOFT) load_targets(targets, first, classes, t);
        gradient.entries(leaf, t, first, part_label, on, off, value);
        Pack<T> result;
#pragma unroll
        for (int k = 0; k < V; ++k) result.each[k] = narrow(value[k], T());
        return result;
      };
      int g = lane;
      if (logits.is_cached_aligned() && out.skip == 0)
        for (; g < out.whole; g += ROW) {
          Pack<T> pack;
          pack.all = cache[g];
          store16(out.at + g * V, gradients(pack, g * V).all);
        }
      for (; g < out.granules; g += ROW) out.store(g, gradients(logits.classes_from(g * V - out.skip), g * V - out.skip));
    }
    team.sync();  // before the cache is filled again
  }
}

template <class T, int KIND, int MODE, int ROW, int BLOCK> __global__ void LAUNCH_BOUNDS(BLOCK) fold(Task<T> task) {
  fold_rows<T, KIND, MODE, ROW, BLOCK, 1>(task);
}

#if defined(XENT_HOST) || __CUDA_ARCH__ >= 900
template <class T, int KIND, int MODE, int BLOCK, int K>
__global__ void CLUSTER(K) LAUNCH_BOUNDS(BLOCK) fold_in_cluster(Task<T> task) {
  fold_rows<T, KIND, MODE, BLOCK, BLOCK, K>(task);
}
#endif

// ---- rows of few classes, side by side: a thread for each, through a tile in shared memory ----------------------------

template <class T, int KIND, int MODE, int BLOCK> __global__ void LAUNCH_BOUNDS(BLOCK) tile(Task<T> task) {
  typedef typename Wide<T>::type A;
  typedef typename AccumulatorOf<KIND, MODE>::type Accumulator;
  const int V = Pack<T>::V, classes = (int)task.classes;
  SHARED_MEMORY(shared);
  const A on = KIND == LABEL ? A(1) : (A)task.on, off = KIND == LABEL ? A(0) : (A)task.off;
  for (i64 base = (i64)blockIdx.x * BLOCK; base < task.rows; base += (i64)gridDim.x * BLOCK) {
    const int rows = task.rows - base < BLOCK ? (int)(task.rows - base) : BLOCK;
    const Run<T> in(task.logits + base * classes, rows * classes);
#pragma unroll 4
    for (int g = threadIdx.x; g < in.granules; g += BLOCK) shared[g] = in.load(g).all;
    __syncthreads();
    T* tile = (T*)shared + in.skip;
    if ((int)threadIdx.x < rows) {
      T* x = tile + threadIdx.x * classes;
      const i64 row = base + threadIdx.x, label = task.labels[row * task.labels_stride];
      const A label_logit = !(MODE & FROM_PARTIAL) && label >= 0 && label < classes ? A(widen(x[label])) : A(0);
      Numbers<A> numbers;
      if (MODE & FROM_PARTIAL) {
        numbers = load_numbers<T, A>(task, row);
      } else {
        A highest = -infinity<A>();
#pragma unroll 4
        for (int c = 0; c < classes; ++c) highest = larger(highest, A(widen(x[c])));
        const Top<T> top(highest);
        const RankedLabel<A> ranked = {clamp_label(label, classes), MODE & STATISTICS ? task.label_logit[row] : A(0)};
        Accumulator acc;
        acc.clear();
        int first = 0;
        for (; first + V <= classes; first += V) {
          A leaf[V];
#pragma unroll
          for (int k = 0; k < V; ++k) leaf[k] = widen(x[first + k]);
          add_leaf<KIND, MODE, true>(acc, top, ranked, leaf, leaf, first, V);
        }
        if (first < classes) {
          A leaf[V];
#pragma unroll
          for (int k = 0; k < V; ++k) leaf[k] = first + k < classes ? A(widen(x[first + k])) : -infinity<A>();
          add_leaf<KIND, MODE, true>(acc, top, ranked, leaf, leaf, first, classes - first);
        }
        numbers = finish<KIND, MODE>(task, acc, top, label, label_logit);
        store_numbers<MODE>(task, row, numbers, acc);
      }
      if (MODE & GRADIENT) {
        const Gradient<KIND, T> gradient(numbers, task.scale[row * task.scale_stride]);
        for (int c = 0; c < classes; ++c) {
          const A leaf[1] = {A(widen(x[c]))};
          A value[1];
          gradient.entries(leaf, leaf, c, clamp_label(label, classes), on, off, value);
          x[c] = narrow(value[0], T());
        }
      }
    }
    __syncthreads();
    if (MODE & GRADIENT) {
      const Run<T> out(task.gradient + base * classes, rows * classes);
      const CachedRun<T> values = {Run<T>(tile, rows * classes), shared, in.granules};
#pragma unroll 2
      for (int g = threadIdx.x; g < out.granules; g += BLOCK) out.store(g, values.classes_from(g * V - out.skip));
      __syncthreads();
    }
  }
}
