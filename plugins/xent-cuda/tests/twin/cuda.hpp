// CUDA for a processor: what xent.cu asks of a GPU, so that a C++17 compiler runs the very same text.
//
// Every thread of a block, and of the blocks of a cluster, is a fiber; a barrier or a shuffle hands the processor on.
// Shared memory is NaN before each block. In which order the fibers go on is the schedule, a number:
//
//   0  round-robin           each thread up to its next barrier, in turn
//   1  greedy                one warp as far as it gets, then one block: quick warps lap the slow ones
//   2  greedy, last first
//   n  shuffled, by n        round-robin over an order drawn for each block
//
// What no GPU forgives is reported (Outcome), and a 16-byte access that is not aligned ends the process. The
// exponentials of float32 are as far off as CUDA's documentation allows (ex2.approx 2 units in the last place, expf 1).
//
// Compiled with -fsanitize=thread, every access to shared memory is watched: two threads may meet in a place only with
// a barrier of both in between, in whatever order they happened to run, and what is read was written. A shuffle is no
// such barrier. The sanitizer's own library is not linked: its functions are here.
#pragma once
#define XENT_HOST 1
#include <ucontext.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <vector>

typedef unsigned long long u64;
struct alignas(16) uint4 { unsigned x, y, z, w; };
struct Index { unsigned x = 0; };

namespace host {

const size_t STACK = 32 * 1024 + 576;  // subtle: were it a power of 2, all fibers would be in a few lines of the cache
#ifdef __SANITIZE_ADDRESS__
const size_t GUARD = 0;  // the sanitizer has its own
#else
const size_t GUARD = 256;  // bytes after a block's shared memory, in which nothing may be written
#endif

enum Outcome { DONE = 0, UNKNOWN = 1, DEADLOCK = 2, UNEVEN = 3, OVERRUN = 4, RACE = 5, UNWRITTEN = 6, ABSENT = 7 };
inline Outcome trouble;  // the first that a thread had

inline void report(Outcome outcome, const char* what) {
  if (trouble == DONE) fprintf(stderr, "twin: %s\n", what);
  if (trouble == DONE) trouble = outcome;
}

struct Barrier { unsigned waiting = 0, generation = 0; };
struct Warp {
  Barrier sync, exchange;
  unsigned char slot[2][32][8];
};

struct Mark { unsigned thread, cluster, block, warp; };  // the last thread to access (0: none), and the barriers' generations then
struct Cell { Mark write, read, earlier_read; };         // what is known of two bytes

struct Block {
  Index index;
  unsigned rank, left;  // threads that are not done
  Barrier barrier;
  std::vector<unsigned char> memory;
  unsigned char* shared;
  size_t shared_bytes;
  std::vector<Warp> warps;
  std::vector<Cell> seen;
  Cell* cells;
};

struct Fiber {
  ucontext_t context;
  void* where[5];
  bool has_begun = false, is_done = false;
  Index thread;
  unsigned number, lane, side = 0;
  Block* block;
  Warp* warp;
  const unsigned* awaited = nullptr;
  unsigned seen = 0;
  bool can_go() const { return !is_done && !(awaited && *awaited == seen); }
};

inline Fiber* current;
inline void* scheduler[5];
inline Index grid, threads;
inline unsigned cluster_size;
inline Barrier cluster_barrier;
inline Block* cluster;  // its blocks, by rank
inline unsigned char *shared_begin, *shared_end;  // all their shared memory is between, and may be other things
inline void (*body)(void*);
inline void* body_argument;

// subtle: the compiler's own jumps, for those of a sanitizer's library ask the system about the stack each time
#define JUMPS __attribute__((noinline, no_sanitize("address", "thread", "undefined"))) inline
JUMPS void jump(void** where) { __builtin_longjmp(where, 1); }

JUMPS void yield() {
  if (!__builtin_setjmp(current->where)) jump(scheduler);
}

JUMPS void resume(Fiber* fiber) {
  current = fiber;
  fiber->awaited = nullptr;
  if (!__builtin_setjmp(scheduler)) {
    if (fiber->has_begun) jump(fiber->where);
    fiber->has_begun = true;
    setcontext(&fiber->context);
  }
  current = nullptr;
}

JUMPS void fiber_main() {
  body(body_argument);
  current->is_done = true;
  current->block->left--;
  jump(scheduler);
}

__attribute__((noinline)) inline void arrive(Barrier& barrier, unsigned total) {
  unsigned generation = barrier.generation;
  if (++barrier.waiting == total) {
    barrier.waiting = 0;
    barrier.generation++;
    return;
  }
  current->awaited = &barrier.generation;
  current->seen = generation;
  yield();
}

inline unsigned lanes() { return std::min(32u, threads.x - current->thread.x / 32 * 32); }  // of this thread's warp

struct Stacks {
  unsigned char* memory;
  size_t count;
  unsigned char* need(size_t stacks) {
    if (stacks > count) {
      free(memory);
      memory = (unsigned char*)aligned_alloc(64, stacks * STACK);
      count = stacks;
    }
    return memory;
  }
};
inline Stacks stacks;

// The fibers in the order of a schedule.
inline std::vector<unsigned> ordered(unsigned all, unsigned schedule, u64 seed) {
  std::vector<unsigned> order(all);
  for (unsigned i = 0; i < all; ++i) order[i] = schedule == 2 ? all - 1 - i : i;
  for (unsigned i = all; schedule > 2 && i > 1; --i) {
    seed = seed * 6364136223846793005ull + 1442695040888963407ull;
    std::swap(order[i - 1], order[(seed >> 33) % i]);
  }
  return order;
}

// One block, or the blocks of one cluster, from the first to the last instruction.
inline Outcome run_cluster(unsigned first, unsigned shared_bytes, unsigned schedule, std::vector<Fiber>& fibers) {
  unsigned each = threads.x, warps = (each + 31) / 32, all = each * cluster_size;
  std::vector<Block> blocks(cluster_size);
  cluster = blocks.data();
  cluster_barrier = Barrier();
  for (unsigned rank = 0; rank < cluster_size; ++rank) {
    Block& block = blocks[rank];
    block.index.x = first + rank;
    block.rank = rank;
    block.left = each;
    block.memory.assign(shared_bytes + GUARD, 0xFF);  // subtle: exactly so many bytes, and the allocator aligns to 16
    block.shared = block.memory.data();
    block.shared_bytes = shared_bytes;
    shared_begin = rank ? std::min(shared_begin, block.shared) : block.shared;
    shared_end = rank ? std::max(shared_end, block.shared + shared_bytes) : block.shared + shared_bytes;
    block.warps.resize(warps);
#ifdef __SANITIZE_THREAD__
    block.seen.resize(shared_bytes / 2 + 1);
    block.cells = block.seen.data();
#endif
  }
  for (unsigned i = 0; i < all; ++i) {
    Fiber& fiber = fibers[i];
    fiber.has_begun = fiber.is_done = false;
    fiber.side = 0;
    fiber.awaited = nullptr;
    fiber.block = &blocks[i / each];
    fiber.number = i + 1;
    fiber.thread.x = i % each;
    fiber.lane = fiber.thread.x % 32;
    fiber.warp = &fiber.block->warps[fiber.thread.x / 32];
    getcontext(&fiber.context);
    fiber.context.uc_stack.ss_sp = stacks.memory + (size_t)i * STACK;
    fiber.context.uc_stack.ss_size = STACK;
    fiber.context.uc_link = nullptr;
    makecontext(&fiber.context, fiber_main, 0);
  }
  std::vector<unsigned> order = ordered(all, schedule, schedule + first);
  bool is_greedy = schedule == 1 || schedule == 2;
  for (unsigned left = all; left;) {
    bool any = false;
    auto go = [&](Fiber& fiber) {
      if (!fiber.can_go()) return false;
      resume(&fiber);
      left -= fiber.is_done;
      return any = true;
    };
    if (!is_greedy) {
      for (unsigned i : order) go(fibers[i]);
    } else {
      for (unsigned begin = 0; begin < all; begin += each)  // a block
        for (bool more = true; more;) {
          more = false;
          for (unsigned warp = 0; warp < each; warp += 32)
            for (bool again = true; again;) {
              again = false;
              for (unsigned i = warp; i < std::min(warp + 32, each); ++i) again |= go(fibers[order[begin + i]]);
              more |= again;
            }
        }
    }
    if (!any) {
      report(DEADLOCK, "a barrier that not all threads come to");
      break;
    }
  }
  for (const Block& block : blocks)
    for (size_t i = 0; i < GUARD; ++i)
      if (block.memory[shared_bytes + i] != 0xFF) report(OVERRUN, "a write after the end of shared memory");
  return trouble;
}

inline Outcome run(void (*kernel)(void*), void* argument, unsigned blocks, unsigned block, unsigned shared_bytes,
                   unsigned size, unsigned schedule) {
  if (blocks % size) return UNEVEN;
  body = kernel;
  body_argument = argument;
  grid.x = blocks;
  threads.x = block;
  cluster_size = size;
  trouble = DONE;
  std::vector<Fiber> fibers(block * size);
  stacks.need(fibers.size());
  for (unsigned first = 0; first < blocks && trouble == DONE; first += size)
    run_cluster(first, shared_bytes, schedule, fibers);
  return trouble;
}

template <class T> T exchanged(T value, int mask) {
  Fiber* fiber = current;
  unsigned char(*slot)[8] = fiber->warp->slot[fiber->side ^= 1];
  static_assert(sizeof(T) <= 8, "a shuffle carries up to eight bytes");
  memcpy(slot[fiber->lane], &value, sizeof(T));
  arrive(fiber->warp->exchange, lanes());
  T other;
  memcpy(&other, slot[fiber->lane ^ mask], sizeof(T));
  return other;
}

inline void aligned(const void* address) {
  if ((uintptr_t)address & 15) {
    fprintf(stderr, "twin: an access of 16 bytes is not aligned\n");
    abort();
  }
}

// A block of the cluster, whose shared memory is about to be used: it must be there, which takes a barrier to know.
inline Block& peer(unsigned rank) {
  if (cluster[rank].left == 0) report(ABSENT, "a block of the cluster is used that is gone");
  if (cluster_barrier.generation == 0) report(ABSENT, "a block of the cluster is used that may not have begun");
  return cluster[rank];
}

typedef Outcome (*Launch)(void*, unsigned, unsigned, unsigned, unsigned, unsigned);
struct Kernel { const char* name; Launch launch; };
inline std::vector<Kernel> kernels;

template <auto KERNEL> struct Entry;
template <class Argument, void (*KERNEL)(Argument)> struct Entry<KERNEL> {
  static void call(void* argument) { KERNEL(*(Argument*)argument); }
  static Outcome launch(void* argument, unsigned blocks, unsigned block, unsigned shared_bytes, unsigned size,
                        unsigned schedule) {
    return run(&call, argument, blocks, block, shared_bytes, size, schedule);
  }
};
template <auto KERNEL> struct Known {
  explicit Known(const char* name) { kernels.push_back({name, &Entry<KERNEL>::launch}); }
};

}  // namespace host

extern "C" int twin_launch(const char* name, void* task, unsigned blocks, unsigned block, unsigned shared_bytes,
                           unsigned size, unsigned schedule) {
  for (const host::Kernel& one : host::kernels)
    if (!strcmp(one.name, name)) return one.launch(task, blocks, block, shared_bytes, size, schedule);
  return host::UNKNOWN;
}

// ---- races in shared memory --------------------------------------------------------------------------------------------

#ifdef __SANITIZE_THREAD__
#define UNWATCHED __attribute__((no_sanitize("thread"), noinline))
namespace host {

// Whether a barrier that both threads took part in lies between a mark and now.
UNWATCHED inline bool is_past(const Mark* mark, Fiber* now) {
  if (mark->thread == 0 || mark->thread == now->number || mark->cluster != cluster_barrier.generation) return true;
  unsigned other = mark->thread - 1, mine = now->number - 1, each = threads.x;
  if (other / each != mine / each) return false;
  if (mark->block != now->block->barrier.generation) return true;
  return other % each / 32 == mine % each / 32 && mark->warp != now->warp->sync.generation;
}

UNWATCHED inline void touched(const void* address, size_t bytes, bool writes) {
  Fiber* now = current;
  if (!now || address < shared_begin || address >= shared_end) return;
  for (unsigned rank = 0; rank < cluster_size; ++rank) {
    Block* block = cluster + rank;
    size_t offset = (uintptr_t)address - (uintptr_t)block->shared;
    if (offset >= block->shared_bytes) continue;
    Mark mark = {now->number, cluster_barrier.generation, now->block->barrier.generation, now->warp->sync.generation};
    for (Cell* cell = block->cells + offset / 2; cell <= block->cells + (offset + bytes - 1) / 2; ++cell) {
      bool meets = !is_past(&cell->write, now);
      if (writes) meets = meets || !is_past(&cell->read, now) || !is_past(&cell->earlier_read, now);
      if (meets) report(RACE, "two threads use a place in shared memory with no barrier between, one writes");
      if (!writes && !cell->write.thread) report(UNWRITTEN, "a place in shared memory is read that was not written");
      if (writes) {
        cell->write = mark;
        cell->read.thread = cell->earlier_read.thread = 0;
      } else {
        if (cell->read.thread != mark.thread) cell->earlier_read = cell->read;
        cell->read = mark;
      }
    }
  }
}

}  // namespace host

#define WATCHED(N)                                                                              \
  UNWATCHED void __tsan_read##N(void* at) { host::touched(at, N, false); }                      \
  UNWATCHED void __tsan_write##N(void* at) { host::touched(at, N, true); }                      \
  UNWATCHED void __tsan_unaligned_read##N(void* at) { host::touched(at, N, false); }            \
  UNWATCHED void __tsan_unaligned_write##N(void* at) { host::touched(at, N, true); }
extern "C" {
WATCHED(1) WATCHED(2) WATCHED(4) WATCHED(8) WATCHED(16)
UNWATCHED void __tsan_read_range(void* at, size_t bytes) { host::touched(at, bytes, false); }
UNWATCHED void __tsan_write_range(void* at, size_t bytes) { host::touched(at, bytes, true); }
UNWATCHED void __tsan_init() {}
UNWATCHED void __tsan_func_entry(void*) {}
UNWATCHED void __tsan_func_exit() {}
}
#endif

// ---- what CUDA has ----------------------------------------------------------------------------------------------------

#define __global__ static
#define __syncthreads() host::arrive(host::current->block->barrier, host::threads.x)
#define __syncwarp() host::arrive(host::current->warp->sync, host::lanes())
#define __shfl_xor_sync(mask, value, lanes) host::exchanged(value, lanes)
#define __umulhi(a, b) ((unsigned)(((u64)(a) * (u64)(b)) >> 32))
#define threadIdx (host::current->thread)
#define blockIdx (host::current->block->index)
#define gridDim (host::grid)

// ---- what xent.cu says in PTX -----------------------------------------------------------------------------------------

#define DEV inline
#define CLUSTER(K)
#define LAUNCH_BOUNDS(BLOCK)
#define SHARED_MEMORY(name) uint4* name = (uint4*)host::current->block->shared

inline float as_float(unsigned bits) { float x; memcpy(&x, &bits, 4); return x; }
inline unsigned bits_of(float x) { unsigned bits; memcpy(&bits, &x, 4); return bits; }

template <class H> float widened_half(H x) {
  unsigned sign = (x.bits & 0x8000u) << 16, exponent = (x.bits >> 10) & 31u, fraction = x.bits & 1023u;
  if (exponent == 31) return as_float(sign | 0x7f800000u | fraction << 13);
  if (exponent) return as_float(sign | (exponent + 112) << 23 | fraction << 13);
  float small = ldexpf((float)fraction, -24);
  return sign ? -small : small;
}

template <class H> H narrowed_to_half(float x) {
  unsigned sign = bits_of(x) >> 16 & 0x8000u;
  float size = fabsf(x);
  unsigned bits;
  if (x != x) bits = 0x7fffu;
  else if (size >= 65520.f) bits = 0x7c00u;
  else if (size < 6.103515625e-05f) bits = (unsigned)lrintf(size * 16777216.f);
  else bits = ((bits_of(size) + 0xfffu + (bits_of(size) >> 13 & 1u)) >> 13) - (112u << 10);
  H narrow;
  narrow.bits = (unsigned short)(x != x ? bits : sign | bits);
  return narrow;
}

template <class B> B narrowed_to_bfloat(float x) {
  B narrow;
  narrow.bits = x != x ? 0x7fff : (unsigned short)((bits_of(x) + 0x7fffu + (bits_of(x) >> 16 & 1u)) >> 16);
  return narrow;
}

inline float off_by(float y, int units) {  // as far off as documented, by a sign that hangs on the value
  if (!(y >= 1.17549435e-38f)) return y == y ? 0.f : y;  // flushed
  return y == 1.f || std::isinf(y) ? y : as_float(bits_of(y) + ((bits_of(y) * 2654435761u) >> 31 ? units : -units));
}
inline float exp2_approximate(float x) { return x == floorf(x) ? off_by(exp2f(x), 0) : off_by((float)exp2((double)x), 2); }
inline float approximate_reciprocal(float x) { return off_by(1.f / x, 1); }
inline float exponential(float x) { return off_by((float)exp((double)x), 1); }

template <class H> unsigned larger_pair(unsigned a, unsigned b, H) {  // max.f16x2, max.bf16x2
  unsigned out = 0;
  for (int shift = 0; shift < 32; shift += 16) {
    H x, y;
    x.bits = (unsigned short)(a >> shift);
    y.bits = (unsigned short)(b >> shift);
    float wide = fmaxf(widen(x), widen(y));
    H one = wide != wide || wide == widen(x) ? x : y;
    out |= (unsigned)one.bits << shift;
  }
  return out;
}

inline uint4 load16(const void* from) { host::aligned(from); uint4 value; memcpy(&value, from, 16); return value; }
inline void store16(void* to, uint4 value) { host::aligned(to); memcpy(to, &value, 16); }
inline unsigned cluster_rank() { return host::current->block->rank; }
template <class P> P* in_peer(P* mine, unsigned rank) {
  return (P*)(host::peer(rank).shared + ((unsigned char*)mine - host::current->block->shared));
}
inline void cluster_sync() { host::arrive(host::cluster_barrier, host::threads.x * host::cluster_size); }
