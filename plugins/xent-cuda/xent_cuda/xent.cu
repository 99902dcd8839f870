// The fused kernels of xent-cuda: the fold over classes, its gradient and its statistics, for one row after the other.
//
// CUDA C++ without a single #include, so that NVRTC needs no headers and a C++17 compiler runs the same text on a
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
// exp(x_j - m) of 16-bit logits, which come twice as fast, is 2^(x_j L - shift) with L = log2(e) and shift near m L: one
// fused multiply-add, one exponential. What shift is off m L is a factor of the row, put right once (Top::correction).

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
#define LAUNCHED_BY(BLOCK) __launch_bounds__(BLOCK, BLOCK > 768 ? 1 : 768 / BLOCK)  // registers for 768 threads at once
DEV float as_float(u32 bits) { return __int_as_float((int)bits); }
DEV float widen(f16 x) { float wide; asm("cvt.f32.f16 %0, %1;" : "=f"(wide) : "h"(x.bits)); return wide; }
DEV f16 narrow(float x, f16) { f16 one; asm("cvt.rn.f16.f32 %0, %1;" : "=h"(one.bits) : "f"(x)); return one; }
DEV bf16 narrow(float x, bf16) { bf16 one; asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(one.bits) : "f"(x)); return one; }
DEV float power(float x) { float y; asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x)); return y; }
DEV float exponential(float x) { return expf(x); }
DEV float roughly_one_over(float x) { float y; asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x)); return y; }
DEV u32 larger_two(u32 a, u32 b, f16) { u32 c; asm("max.f16x2 %0, %1, %2;" : "=r"(c) : "r"(a), "r"(b)); return c; }
DEV u32 larger_two(u32 a, u32 b, bf16) { u32 c; asm("max.bf16x2 %0, %1, %2;" : "=r"(c) : "r"(a), "r"(b)); return c; }
DEV uint4 load16(const void* from) { return __ldcg((const uint4*)from); }
DEV void store16(void* to, uint4 value) { __stcs((uint4*)to, value); }
DEV u32 cluster_rank() { u32 rank; asm volatile("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank)); return rank; }
template <class P> DEV P* in_peer(P* mine, u32 rank) {
  u64 there;
  asm volatile("mapa.u64 %0, %1, %2;" : "=l"(there) : "l"((u64)mine), "r"(rank));
  return (P*)there;
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
DEV float one_over(float x) { float y = roughly_one_over(x); return fmaf(y, fmaf(-x, y, 1.0f), y); }  // no call, as / has
DEV double one_over(double x) { return 1.0 / x; }
DEV float larger(float a, float b) { return fmaxf(a, b); }  // of a NaN and a number the number
DEV double larger(double a, double b) { return fmax(a, b); }
DEV float log_of_one_and(float x) { return log1pf(x); }
DEV double log_of_one_and(double x) { return log1p(x); }

template <class T> struct Wide { typedef float type; };  // what is computed in
template <> struct Wide<double> { typedef double type; };
template <class A> DEV A infinity() { return (A)as_float(0x7f800000u); }
template <class A> DEV A nan() { return (A)as_float(0x7fc00000u); }

enum Kind { LABEL = 0, SMOOTHED = 1, SOFT = 2 };  // the targets: 1 at the label; on at it, off besides; any
enum Mode {
  SLOPE = 1,       // the gradient is written
  STATISTICS = 2,  // and what an evaluation asks for is counted
  GIVEN = 4,       // the fold's numbers are read: the third pass alone
  TOPS = 8,        // the first of three launches over rows in parts: the first pass alone
  SUMS = 16,       // the second of three: the second pass alone
  JOIN = 32        // the third of three: the parts are added up, then the third pass
};

// ---- a call ---------------------------------------------------------------------------------------------------------

struct Sum {  // a sum that no order of adding shows in
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

template <int N> struct Tally {  // what the second pass counts, over some of the classes of a row
  Sum sum[N];          // of exponentials; then of m - x_j, or t_j (m - x_j) and t_j, or squares and (m - x_j) exponentials
  int at_top, before;  // classes at m; classes that come before the label
  DEV void clear() {
#pragma unroll
    for (int i = 0; i < N; ++i) sum[i].clear();
    at_top = before = 0;
  }
  DEV void add(const Tally& other) {
#pragma unroll
    for (int i = 0; i < N; ++i) sum[i].add(other.sum[i]);
    at_top += other.at_top;
    before += other.before;
  }
};

template <int KIND, int MODE> struct TallyOf {
  typedef Tally<(MODE & STATISTICS) || KIND == SOFT ? 3 : KIND == SMOOTHED ? 2 : 1> type;
};

template <class T> struct Task {  // xent_cuda/task.py has the same fields in the same order
  typedef typename Wide<T>::type A;
  T* logits;                   // (rows, classes), classes side by side; only read, unless slope is the same memory
  T* slope;                    // the gradient, of that shape
  const i64* labels;           // (rows,)
  const A* targets;            // (rows, classes), where they are soft
  const A* scale;              // (rows,), of the gradient
  A *max, *rest, *gap, *mass;  // (rows,) the fold's numbers: written, or read where they are given
  A* loss;                     // (rows,); this and what is above and below is null where it is not asked for
  const A* label_logit;        // (rows,)
  i64* rank;
  A *squares, *spread;
  A* tops;                     // (rows, parts): what one launch leaves to the next
  void* tallies;               // (rows, parts)
  i64 logits_stride, slope_stride, labels_stride, targets_stride, scale_stride;  // in elements
  i64 rows, classes, parts, kept;  // kept: granules of a row, or of a part of one, that stay in shared memory
  double on, off;
};

// ---- rows in memory ---------------------------------------------------------------------------------------------------

template <class T> struct Pack {  // 16 bytes of a row
  static const int V = 16 / sizeof(T);
  union { uint4 all; u32 word[4]; u64 half[2]; T each[V]; };
  DEV Pack() {}
};

template <class T> union Bits { T value; u64 bits; DEV Bits() : bits(0) {} };

template <class T> struct Highest {  // the largest of the packs it has seen; NaN is passed over
  typename Wide<T>::type so_far;
  DEV Highest() : so_far(-infinity<typename Wide<T>::type>()) {}
  DEV void see(const Pack<T>& pack) {
#pragma unroll
    for (int k = 0; k < Pack<T>::V; ++k) so_far = larger(so_far, widen(pack.each[k]));
  }
  DEV typename Wide<T>::type value() const { return so_far; }
};

template <class H> struct HighestOfTwos {  // of 16-bit logits, two at a time
  Pack<H> so_far;
  DEV HighestOfTwos() {
#pragma unroll
    for (int k = 0; k < 2; ++k) so_far.each[k] = narrow(-infinity<float>(), H());
  }
  DEV void see(const Pack<H>& pack) {
#pragma unroll
    for (int i = 0; i < 4; ++i) so_far.word[0] = larger_two(so_far.word[0], pack.word[i], H());
  }
  DEV float value() const { return larger(widen(so_far.each[0]), widen(so_far.each[1])); }
};
template <> struct Highest<f16> : HighestOfTwos<f16> {};
template <> struct Highest<bf16> : HighestOfTwos<bf16> {};

// 16 bytes of a and b, side by side, from so many elements on.
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

// Classes side by side, as granules: aligned 16 bytes, of which the run may begin and end amid one.
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
  DEV Pack<T> load(int granule) const {  // -inf where there is no class
    int first = granule * V - skip;
    Pack<T> pack;
    if (has_all(first)) {
      pack.all = load16(at + first);
      return pack;
    }
    pack.half[0] = pack.half[1] = 0;
#pragma unroll 1  // rare, and it would be a copy of this for every place that loads
    for (int k = 0; k < V; ++k) {
      Bits<T> one;
      one.value = has(first, k) ? at[first + k] : narrow(-infinity<typename Wide<T>::type>(), T());
      const int place = k * 8 * (int)sizeof(T);
      if (place < 64) pack.half[0] |= one.bits << place; else pack.half[1] |= one.bits << (place - 64);
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
      Bits<T> one;
      const int place = k * 8 * (int)sizeof(T);
      one.bits = place < 64 ? pack.half[0] >> place : pack.half[1] >> (place - 64);
      if (has(first, k)) at[first + k] = one.value;
    }
  }
};

template <class T> struct Held {  // a run of which the first granules are in shared memory
  static const int V = Pack<T>::V;
  Run<T> run;
  uint4* stash;
  int kept;
  DEV bool is_easy() const { return run.skip == 0 && kept == run.granules && kept > 0; }  // all is there, leaf by leaf
  DEV Pack<T> granule(int index) const {
    Pack<T> pack;
    if (index >= 0 && index < kept)
      pack.all = stash[index];
    else
      pack = run.load(index);
    return pack;
  }
  DEV Pack<T> classes_from(int first) const {  // V of them, wherever in their granules they begin
    int place = first + run.skip, out = place & (V - 1), index = (place - out) / V;
    return out ? spliced(granule(index), granule(index + 1), out) : granule(index);
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
  DEV float over(float x) const { return power(fmaf(x, LOG2E, -shift)); }
  DEV double correction() const {
    double off = fma((double)max, (double)LOG2E, -(double)shift);
    return exp2(fmax(fmin(-off, 64.0), -64.0));  // subtle: where it is more, over(x) is 0
  }
};
template <> struct Top<f16> : QuickTop { using QuickTop::QuickTop; };
template <> struct Top<bf16> : QuickTop { using QuickTop::QuickTop; };

template <class A, int V> DEV double tree(A (&term)[V]) {
#pragma unroll
  for (int half = V / 2; half > 0; half /= 2)
#pragma unroll
    for (int k = 0; k < half; ++k) term[k] += term[k + half];
  return (double)term[0];
}

template <class A> struct Asked {  // what statistics ask of a row besides its logits
  int label;
  A label_logit;
};

// Where a label is among so many classes: -1 if it comes before them, their number if it comes after.
DEV int place_of(i64 label, int classes) { return label < 0 ? -1 : label < classes ? (int)label : classes; }

// A leaf: x and targets t of V classes from first on, of which some are of the run. HOLDS: one may be at the maximum.
template <int KIND, int MODE, bool HOLDS, class Tally, class Top, class A, int V>
DEV void count(Tally& tally, const Top& top, const Asked<A>& asked, const A (&x)[V], const A (&t)[V], int first, int some) {
  A e[V], more[V], most[V];
#pragma unroll
  for (int k = 0; k < V; ++k) {
    bool is_top = HOLDS && x[k] == top.max;
    A below = is_top ? A(0) : top.max - x[k];
    const A power = top.over(x[k]);  // taken before it is selected: a branch around it would cost more
    e[k] = is_top ? A(0) : power;
    if (HOLDS) tally.at_top += is_top && k < some;
    if (MODE & STATISTICS) {
      more[k] = e[k] * e[k];
      most[k] = e[k] == A(0) ? A(0) : below * e[k];
      tally.before += k < some && (x[k] > asked.label_logit || (x[k] == asked.label_logit && first + k < asked.label));
    } else if (KIND == SMOOTHED) {
      more[k] = k < some ? below : A(0);
    } else if (KIND == SOFT) {
      more[k] = t[k] == A(0) ? A(0) : t[k] * below;  // subtle: selected, for 0 times infinity is NaN
      most[k] = t[k];
    }
  }
  const int N = sizeof(tally.sum) / sizeof(Sum);
  tally.sum[0].add(tree(e));
  if (N > 1) tally.sum[N > 1 ? 1 : 0].add(tree(more));
  if (N > 2) tally.sum[N > 2 ? 2 : 0].add(tree(most));
}

// ---- a row's numbers --------------------------------------------------------------------------------------------------

template <class A> struct Numbers {
  A max, rest, gap, mass, squares, spread;
  bool is_strange;  // the label is none of the classes
  DEV A loss() const { return is_strange || rest < A(0) ? nan<A>() : gap + mass * log_of_one_and(rest); }
};

template <int KIND, int MODE, class T, class Tally, class A>
DEV Numbers<A> numbers(const Task<T>& task, const Tally& tally, const Top<T>& top, i64 label, A at_label) {
  const int N = sizeof(tally.sum) / sizeof(Sum), SECOND = N > 1 ? 1 : 0, THIRD = N > 2 ? 2 : 0;
  double correction = top.correction(), others = tally.sum[0].value() * correction;
  bool has_nan = !(others == others), is_empty = top.max == -infinity<A>() && !has_nan, is_inside = label >= 0 && label < task.classes;
  Numbers<A> of;
  of.max = has_nan ? nan<A>() : top.max + A(0);  // subtle: -0 becomes 0, or the order of equal zeros would show
  of.rest = has_nan || (top.max == infinity<A>() && tally.at_top > 1) ? nan<A>() : (A)(others + (double)(tally.at_top - 1));
  if (is_empty) of.rest = A(-1);
  A below = has_nan ? nan<A>() : at_label == top.max && !is_empty ? A(0) : top.max - at_label;
  of.is_strange = KIND != SOFT && !is_inside;
  if (KIND == SOFT) {
    of.gap = (A)tally.sum[SECOND].value();
    of.mass = (A)tally.sum[THIRD].value();
  } else {
    A on = KIND == LABEL ? A(1) : (A)task.on, off = KIND == LABEL ? A(0) : (A)task.off;
    of.gap = is_inside && on != A(0) ? on * below : A(0);  // subtle: at on = 0 the label's term is dropped
    of.mass = is_inside ? on : A(0);
    if (KIND == SMOOTHED) {
      of.gap += off * (A)tally.sum[SECOND].value();
      of.mass += off * (A)task.classes;
    }
  }
  if (is_empty) of.gap = of.mass > A(0) ? infinity<A>() : A(0);
  if (MODE & STATISTICS) {
    of.squares = (A)(tally.sum[SECOND].value() * correction * correction + (double)tally.at_top);
    of.spread = (A)(tally.sum[THIRD].value() * correction);
  }
  return of;
}

template <class T, class A> DEV Numbers<A> given(const Task<T>& task, i64 row) {
  Numbers<A> of;
  of.max = task.max[row], of.rest = task.rest[row], of.mass = task.mass[row];
  of.is_strange = false;
  return of;
}

template <int MODE, class T, class Tally, class A> DEV void record(const Task<T>& task, i64 row, const Numbers<A>& of, const Tally& tally) {
  if (task.loss) task.loss[row] = of.loss();
  if (task.max) task.max[row] = of.max, task.rest[row] = of.rest, task.gap[row] = of.gap, task.mass[row] = of.mass;
  if (MODE & STATISTICS) task.rank[row] = tally.before, task.squares[row] = of.squares, task.spread[row] = of.spread;
}

// ---- the third pass ---------------------------------------------------------------------------------------------------

template <int KIND, class T> struct Slope {
  typedef typename Wide<T>::type A;
  Top<T> top;
  A rest, mass, inverse, usual, scale;
  DEV Slope(const Numbers<A>& of, A scale) : top(of.max), rest(of.rest), mass(of.mass), scale(scale) {
    inverse = of.is_strange || of.max == -infinity<A>() ? nan<A>() : one_over(A(1) + rest);
    usual = mass * inverse * (A)top.correction();
  }
  DEV A general(A x, A t) const {  // at the maximum without the difference of two numbers that may be equal
    const A elsewhere = usual * top.over(x) - t;
    return (x == top.max ? ((mass - t) - t * rest) * inverse : elsewhere) * scale;
  }
  template <int V> DEV void of(const A (&x)[V], const A (&t)[V], int first, int label, A on, A off, A (&out)[V]) const {
    if (scale == A(0)) {
#pragma unroll
      for (int k = 0; k < V; ++k) out[k] = A(0);
      return;
    }
    const A peak = mass * inverse * scale, share = usual * scale;
#pragma unroll
    for (int k = 0; k < V; ++k) {
      const A elsewhere = share * top.over(x[k]);
      out[k] = KIND != LABEL ? general(x[k], KIND == SOFT ? t[k] : off) : x[k] == top.max ? peak : elsewhere;
    }
    if (KIND != SOFT && (u32)(label - first) < (u32)V) {
#pragma unroll
      for (int k = 0; k < V; ++k)
        if (first + k == label) out[k] = general(x[k], on + off);
    }
  }
};

// ---- threads that share a row -----------------------------------------------------------------------------------------

template <int LANES, class A> DEV A warp_max(A x) {
#pragma unroll
  for (int lane = LANES / 2; lane > 0; lane /= 2) x = larger(x, __shfl_xor_sync(0xffffffffu, x, lane));
  return x;
}

template <int LANES, int MODE, int N> DEV void warp_add(Tally<N>& tally) {
#pragma unroll
  for (int lane = LANES / 2; lane > 0; lane /= 2) {
    Tally<N> other;
#pragma unroll
    for (int i = 0; i < N; ++i) {
      other.sum[i].high = __shfl_xor_sync(0xffffffffu, tally.sum[i].high, lane);
      other.sum[i].low = __shfl_xor_sync(0xffffffffu, tally.sum[i].low, lane);
    }
    other.at_top = __shfl_xor_sync(0xffffffffu, tally.at_top, lane);
    other.before = MODE & STATISTICS ? __shfl_xor_sync(0xffffffffu, tally.before, lane) : 0;
    tally.add(other);
  }
}

const int CLUSTER_AT_MOST = 8, WARPS_AT_MOST = 32;

template <class A, class Tally> struct Desk {  // what warps leave for each other, and blocks of a cluster
  A top[WARPS_AT_MOST], peer_top[CLUSTER_AT_MOST];
  Tally tally[WARPS_AT_MOST], peer_tally[CLUSTER_AT_MOST];
};

// ROW threads share a row: some lanes of a warp, a warp, or a block; K blocks of a cluster a part of it each.
template <int ROW, int K, int MODE, class A, class Tally> struct Team {
  static const int LANES = ROW < 32 ? ROW : 32, WARPS = ROW / 32;  // powers of two, both
  Desk<A, Tally>* desk;
  DEV void sync() const {
    if (ROW > 32) __syncthreads(); else __syncwarp();
  }
  DEV A max(A mine) const {
    int lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
    mine = warp_max<LANES>(mine);
    if (ROW > 32) {
      if (lane == 0) desk->top[warp] = mine;
      __syncthreads();
      mine = warp_max<WARPS>(desk->top[lane % WARPS]);
    } else {
      __syncwarp();
    }
    if (K > 1) {
      if (threadIdx.x < K) *in_peer(&desk->peer_top[cluster_rank()], threadIdx.x) = mine;
      cluster_sync();
#pragma unroll
      for (int k = 0; k < K; ++k) mine = larger(mine, desk->peer_top[k]);
    }
    return mine;
  }
  DEV void add(Tally& mine) const {
    int lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
    warp_add<LANES, MODE>(mine);
    if (ROW > 32) {
      if (lane == 0) desk->tally[warp] = mine;
      __syncthreads();
      mine = desk->tally[lane % WARPS];
      warp_add<WARPS, MODE>(mine);
    }
    if (K > 1) {
      if (threadIdx.x < K) *in_peer(&desk->peer_tally[cluster_rank()], threadIdx.x) = mine;
      cluster_sync();
      mine.clear();
#pragma unroll
      for (int k = 0; k < K; ++k) mine.add(desk->peer_tally[k]);
    }
  }
};

// ---- rows of many classes: some lanes, a warp, a block or a cluster for each ------------------------------------------

const int DESK_BYTES = 3072, AHEAD = 4;  // AHEAD: granules of a thread that are on their way at once

template <class T, int KIND, int MODE, int ROW, int BLOCK, int K> DEV void fold_rows(const Task<T>& task) {
  typedef typename Wide<T>::type A;
  typedef typename TallyOf<KIND, MODE>::type Tally;
  const int V = Pack<T>::V, TEAMS = BLOCK / ROW;
  SHARED_MEMORY(shared);
  static_assert(sizeof(Desk<A, Tally>) <= DESK_BYTES, "the desk has outgrown its place");
  Team<ROW, K, MODE, A, Tally> team = {(Desk<A, Tally>*)shared};
  const int lane = threadIdx.x % ROW, place = threadIdx.x / ROW, parts = (int)task.parts;
  uint4* stash = shared + (ROW > 32 ? DESK_BYTES / 16 : place * (int)task.kept);
  const int part = blockIdx.x % parts, share = (int)((task.classes + parts - 1) / parts + V - 1) / V * V;
  const int start = part * (i64)share < task.classes ? part * share : (int)task.classes;
  const int classes = task.classes - start < share ? (int)(task.classes - start) : share;
  const A on = KIND == LABEL ? A(1) : (A)task.on, off = KIND == LABEL ? A(0) : (A)task.off;

  if (K > 1) cluster_sync();  // a desk may be written to only when its block has begun; none is after the last sums
  for (i64 base = (i64)(blockIdx.x / parts) * TEAMS; base < task.rows; base += (i64)(gridDim.x / parts) * TEAMS) {
    const bool is_there = base + place < task.rows;  // subtle: those without a row go along, for shuffles need all lanes
    const i64 row = is_there ? base + place : task.rows - 1;
    T* x = task.logits + row * task.logits_stride;
    const A* targets = KIND == SOFT ? task.targets + row * task.targets_stride + start : 0;
    const i64 label = KIND == SOFT ? -1 : task.labels[row * task.labels_stride];
    const A at_label = KIND != SOFT && !(MODE & GIVEN) && label >= 0 && label < task.classes ? A(widen(x[label])) : A(0);
    const int here = place_of(label - start, classes);
    Held<T> held = {Run<T>(x + start, classes), stash, 0};
    Numbers<A> of;
    if (MODE & GIVEN) {
      of = given<T, A>(task, row);
    } else {
      Tally tally;
      tally.clear();
      A mine = -infinity<A>(), highest = mine;
      if (MODE & (SUMS | JOIN)) {
        for (int other = 0; other < parts; ++other) highest = larger(highest, task.tops[row * parts + other]);
        mine = highest;
      } else {
        held.kept = held.run.granules < task.kept ? held.run.granules : (int)task.kept;
        Highest<T> seen;
        int g = lane;
        if (held.is_easy())
          for (; g + (AHEAD - 1) * ROW < held.run.whole; g += AHEAD * ROW) {
            Pack<T> pack[AHEAD];
#pragma unroll
            for (int u = 0; u < AHEAD; ++u) pack[u].all = load16(held.run.at + (g + u * ROW) * V);
#pragma unroll
            for (int u = 0; u < AHEAD; ++u) stash[g + u * ROW] = pack[u].all, seen.see(pack[u]);
          }
        for (; g < held.run.granules; g += AHEAD * ROW) {
          Pack<T> pack[AHEAD];
#pragma unroll
          for (int u = 0; u < AHEAD; ++u) pack[u] = held.run.load(g + u * ROW);
#pragma unroll
          for (int u = 0; u < AHEAD; ++u) {
            if (g + u * ROW < held.kept) stash[g + u * ROW] = pack[u].all;
            seen.see(pack[u]);
          }
        }
        mine = seen.value();
        highest = team.max(mine);
        if (MODE & TOPS) {
          if (lane == 0 && is_there) task.tops[row * parts + part] = highest;
          team.sync();
          continue;
        }
      }
      const Top<T> top(highest);
      if (MODE & JOIN) {
        for (int other = 0; other < parts; ++other) tally.add(((const Tally*)task.tallies)[row * parts + other]);
      } else {
        const Asked<A> asked = {here, MODE & STATISTICS ? task.label_logit[row] : A(0)};
        const bool holds = mine == highest || held.run.skip;  // subtle: leaves are those that were loaded, if aligned
        int first = lane * V;
        if (held.is_easy() && !holds)
#pragma unroll 2
          for (; first + V <= classes; first += ROW * V) {
            Pack<T> pack;
            pack.all = stash[first / V];
            A leaf[V], t[V];
#pragma unroll
            for (int k = 0; k < V; ++k) leaf[k] = widen(pack.each[k]);
            if (KIND == SOFT) load_targets(targets, first, classes, t);
            count<KIND, MODE, false>(tally, top, asked, leaf, t, first, V);
          }
        for (; first < classes; first += ROW * V) {
          const Pack<T> pack = held.classes_from(first);
          A leaf[V], t[V];
#pragma unroll
          for (int k = 0; k < V; ++k) leaf[k] = widen(pack.each[k]);
          if (KIND == SOFT) load_targets(targets, first, classes, t);
          if (holds)
            count<KIND, MODE, true>(tally, top, asked, leaf, t, first, classes - first);
          else
            count<KIND, MODE, false>(tally, top, asked, leaf, t, first, classes - first);
        }
        team.add(tally);
        if (MODE & SUMS) {
          if (lane == 0 && is_there) ((Tally*)task.tallies)[row * parts + part] = tally;
          team.sync();
          continue;
        }
      }
      if ((MODE & SLOPE) || lane == 0) of = numbers<KIND, MODE>(task, tally, top, label, at_label);
      if (lane == 0 && part == 0 && is_there) record<MODE>(task, row, of, tally);
    }
    if ((MODE & SLOPE) && is_there) {
      const Slope<KIND, T> slope(of, task.scale[row * task.scale_stride]);
      const Run<T> out(task.slope + row * task.slope_stride + start, classes);
      auto slopes = [&](const Pack<T>& pack, int first) {
        A leaf[V], t[V], value[V];
#pragma unroll
        for (int k = 0; k < V; ++k) leaf[k] = widen(pack.each[k]);
        if (KIND == SOFT) load_targets(targets, first, classes, t);
        slope.of(leaf, t, first, here, on, off, value);
        Pack<T> result;
#pragma unroll
        for (int k = 0; k < V; ++k) result.each[k] = narrow(value[k], T());
        return result;
      };
      int g = lane;
      if (held.is_easy() && out.skip == 0)
        for (; g < out.whole; g += ROW) {
          Pack<T> pack;
          pack.all = stash[g];
          store16(out.at + g * V, slopes(pack, g * V).all);
        }
      for (; g < out.granules; g += ROW) out.store(g, slopes(held.classes_from(g * V - out.skip), g * V - out.skip));
    }
    team.sync();  // before the stash is filled again
  }
}

template <class T, int KIND, int MODE, int ROW, int BLOCK> __global__ void LAUNCHED_BY(BLOCK) fold(Task<T> task) {
  fold_rows<T, KIND, MODE, ROW, BLOCK, 1>(task);
}

#if defined(XENT_HOST) || __CUDA_ARCH__ >= 900
template <class T, int KIND, int MODE, int BLOCK, int K>
__global__ void CLUSTER(K) LAUNCHED_BY(BLOCK) fold_in_cluster(Task<T> task) {
  fold_rows<T, KIND, MODE, BLOCK, BLOCK, K>(task);
}
#endif

// ---- rows of few classes, side by side: a thread for each, through a tile in shared memory ----------------------------

template <class T, int KIND, int MODE, int BLOCK> __global__ void LAUNCHED_BY(BLOCK) tile(Task<T> task) {
  typedef typename Wide<T>::type A;
  typedef typename TallyOf<KIND, MODE>::type Tally;
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
      const A at_label = !(MODE & GIVEN) && label >= 0 && label < classes ? A(widen(x[label])) : A(0);
      Numbers<A> of;
      if (MODE & GIVEN) {
        of = given<T, A>(task, row);
      } else {
        A highest = -infinity<A>();
#pragma unroll 4
        for (int c = 0; c < classes; ++c) highest = larger(highest, A(widen(x[c])));
        const Top<T> top(highest);
        const Asked<A> asked = {place_of(label, classes), MODE & STATISTICS ? task.label_logit[row] : A(0)};
        Tally tally;
        tally.clear();
        int first = 0;
        for (; first + V <= classes; first += V) {
          A leaf[V];
#pragma unroll
          for (int k = 0; k < V; ++k) leaf[k] = widen(x[first + k]);
          count<KIND, MODE, true>(tally, top, asked, leaf, leaf, first, V);
        }
        if (first < classes) {
          A leaf[V];
#pragma unroll
          for (int k = 0; k < V; ++k) leaf[k] = first + k < classes ? A(widen(x[first + k])) : -infinity<A>();
          count<KIND, MODE, true>(tally, top, asked, leaf, leaf, first, classes - first);
        }
        of = numbers<KIND, MODE>(task, tally, top, label, at_label);
        record<MODE>(task, row, of, tally);
      }
      if (MODE & SLOPE) {
        const Slope<KIND, T> slope(of, task.scale[row * task.scale_stride]);
        for (int c = 0; c < classes; ++c) {
          const A leaf[1] = {A(widen(x[c]))};
          A value[1];
          slope.of(leaf, leaf, c, place_of(label, classes), on, off, value);
          x[c] = narrow(value[0], T());
        }
      }
    }
    __syncthreads();
    if (MODE & SLOPE) {
      const Run<T> out(task.slope + base * classes, rows * classes);
      const Held<T> done = {Run<T>(tile, rows * classes), shared, in.granules};
#pragma unroll 2
      for (int g = threadIdx.x; g < out.granules; g += BLOCK) out.store(g, done.classes_from(g * V - out.skip));
      __syncthreads();
    }
  }
}
