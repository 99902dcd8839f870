"""Mutants of xent.cu: whether the tests of the kernels notice one thing wrong at a time.

    python plugins/xent-cuda/tests/mutants.py [--only TEXT] [--jobs N]

Every mutant is compiled for the twin and tried by the battery in a process of its own: results under four schedules,
the bits of a row by each variant, races in shared memory, accesses beside an array. The first fault ends it. A mutant
that survives makes the command fail, unless it is one of EQUIVALENT, each with a reason. The source as it is goes
first, and must have no fault.
"""

from __future__ import annotations

import argparse
import itertools
import os
import pathlib
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

HERE = pathlib.Path(__file__).parent
sys.path[:0] = [str(HERE.parent), str(HERE / "twin")]

from battery import CODES, KINDS, Battery  # noqa: E402  # found by the line above
from processor import FLAGS, SANITIZED, SCHEDULES, VARIANTS, WATCHED, Processor, sanitized_environment  # noqa: E402
from xent_cuda import device  # noqa: E402
from xent_cuda.plan import C_TYPES  # noqa: E402

PATIENCE_SECONDS = 300
BUILDS = {"plain": FLAGS, "watched": WATCHED, "sanitized": SANITIZED}
ROWS = tuple(variant for variant in VARIANTS if variant != "tile")


class Mutant(NamedTuple):
    """One thing wrong."""

    name: str
    old: str
    new: str
    variants: tuple[str, ...] = VARIANTS  # those that run through it
    dtypes: tuple[str, ...] = ("bfloat16", "float32")

    def text(self) -> str:
        """The source with the change. ValueError if the old text is not there exactly once."""
        source = device.source()
        if source.count(self.old) != 1 or self.old == self.new:
            raise ValueError(f"{self.name}: the old text occurs {source.count(self.old)} times in xent.cu, not once.")
        return source.replace(self.old, self.new)


BARRIERS = [
    Mutant(
        "no barrier after warps leave their maxima",
        "      if (lane == 0) scratch->max[warp] = mine;\n      __syncthreads();\n",
        "      if (lane == 0) scratch->max[warp] = mine;\n",
        ("block", "cluster", "split"),
    ),
    Mutant(
        "no barrier after warps leave their accumulators",
        "      if (lane == 0) scratch->acc[warp] = mine;\n      __syncthreads();\n",
        "      if (lane == 0) scratch->acc[warp] = mine;\n",
        ("block", "cluster", "split"),
    ),
    Mutant(
        "no barrier of a warp between what it keeps and what it reads",
        "    } else {\n      __syncwarp();\n    }\n",
        "    }\n",
        ("lanes", "warp"),
    ),
    Mutant(
        "no barrier of a warp before its cache is filled again",
        "__syncthreads(); else __syncwarp();",
        "__syncthreads();",
        ("lanes", "warp"),
    ),
    Mutant(
        "no barrier of a block before its cache is filled again",
        "if (ROW > 32) __syncthreads(); else __syncwarp();",
        "if (ROW <= 32) __syncwarp();",
        ("block", "cluster", "split"),
    ),
    Mutant(
        "no barrier at the end of a row",
        "    team.sync();  // before the cache is filled again\n",
        "",
        ROWS,
    ),
    Mutant(
        "no barrier between the maxima of one row and the next",
        "task.maxima[row * parts + part] = highest;\n          team.sync();\n",
        "task.maxima[row * parts + part] = highest;\n",
        ("split",),
    ),
    Mutant(
        "no barrier between the accumulators of one row and the next",
        "((Accumulator*)task.accumulators)[row * parts + part] = acc;\n          team.sync();\n",
        "((Accumulator*)task.accumulators)[row * parts + part] = acc;\n",
        ("split",),
    ),
    Mutant(
        "no barrier of a cluster after its maxima",
        "threadIdx.x) = mine;\n      cluster_sync();\n#pragma unroll\n",
        "threadIdx.x) = mine;\n#pragma unroll\n",
        ("cluster",),
    ),
    Mutant(
        "no barrier of a cluster after its accumulators",
        "threadIdx.x) = mine;\n      cluster_sync();\n      mine.clear();\n",
        "threadIdx.x) = mine;\n      mine.clear();\n",
        ("cluster",),
    ),
    Mutant(
        "no barrier of a cluster at the beginning",
        "  if (K > 1) cluster_sync();  // a block's scratch",
        "  // a block's scratch",
        ("cluster",),
    ),
    Mutant(
        "no barrier after a tile is loaded",
        "shared[g] = in.load(g).all;\n    __syncthreads();\n",
        "shared[g] = in.load(g).all;\n",
        ("tile",),
    ),
    Mutant(
        "no barrier after the rows of a tile",
        "      }\n    }\n    __syncthreads();\n    if (MODE & GRADIENT) {\n",
        "      }\n    }\n    if (MODE & GRADIENT) {\n",
        ("tile",),
    ),
    Mutant(
        "no barrier after a tile is stored",
        "values.classes_from(g * V - out.skip));\n      __syncthreads();\n",
        "values.classes_from(g * V - out.skip));\n",
        ("tile",),
    ),
    Mutant(
        "a barrier that one lane of each warp reaches",
        "      if (lane == 0) scratch->max[warp] = mine;\n      __syncthreads();\n",
        "      if (lane == 0) {\n        scratch->max[warp] = mine;\n        __syncthreads();\n      }\n",
        ("block",),
    ),
    Mutant(
        "threads without a row leave before the shuffles",
        "    T* x = task.logits + row * task.logits_stride;\n",
        "    if (!has_row) break;\n    T* x = task.logits + row * task.logits_stride;\n",
        ("lanes", "warp"),
    ),
    Mutant(
        "a cluster's maxima and accumulators in one mailbox",
        "  A max[MAX_WARPS], peer_max[MAX_CLUSTER];\n  Accumulator acc[MAX_WARPS], peer_acc[MAX_CLUSTER];\n",
        "  A max[MAX_WARPS];\n  Accumulator acc[MAX_WARPS];\n"
        "  union { A peer_max[MAX_CLUSTER]; Accumulator peer_acc[MAX_CLUSTER]; };\n",
        ("cluster",),
    ),
    Mutant(
        "a block's maxima and accumulators in one mailbox",
        "  A max[MAX_WARPS], peer_max[MAX_CLUSTER];\n  Accumulator acc[MAX_WARPS], peer_acc[MAX_CLUSTER];\n",
        "  A peer_max[MAX_CLUSTER];\n  Accumulator peer_acc[MAX_CLUSTER];\n"
        "  union { A max[MAX_WARPS]; Accumulator acc[MAX_WARPS]; };\n",
        ("block", "cluster"),
    ),
]

TEAMS = [
    Mutant(
        "half of a warp's maxima",
        "for (int lane = LANES / 2; lane > 0; lane /= 2) x = larger",
        "for (int lane = LANES / 4; lane > 0; lane /= 2) x = larger",
    ),
    Mutant(
        "half of a warp's accumulators",
        "for (int lane = LANES / 2; lane > 0; lane /= 2) {\n    Accumulator<N> other;",
        "for (int lane = LANES / 4; lane > 0; lane /= 2) {\n    Accumulator<N> other;",
    ),
    Mutant(
        "neighbours' maxima at the maximum are not counted",
        "other.at_top = __shfl_xor_sync(0xffffffffu, acc.at_top, lane);",
        "other.at_top = 0;",
        ROWS,
    ),
    Mutant(
        "neighbours' ranks are not counted",
        "other.before = MODE & STATISTICS ? __shfl_xor_sync(0xffffffffu, acc.before, lane) : 0;",
        "other.before = 0;",
        ROWS,
    ),
    Mutant("the maximum of a warp too few", "scratch->max[lane % WARPS]", "scratch->max[lane % WARPS / 2]", ("block",)),
    Mutant("the accumulator of a warp too many", "scratch->acc[lane % WARPS]", "scratch->acc[lane % 32]", ("block",)),
    Mutant(
        "the last block of a cluster gets no maxima",
        "if (threadIdx.x < K) *in_peer(&scratch->peer_max",
        "if (threadIdx.x < K - 1) *in_peer(&scratch->peer_max",
        ("cluster",),
    ),
    Mutant(
        "accumulators in the wrong place of a peer",
        "&scratch->peer_acc[cluster_rank()]",
        "&scratch->peer_acc[0]",
        ("cluster",),
    ),
    Mutant(
        "a cluster's maxima without those of the last block",
        "for (int k = 0; k < K; ++k) mine = larger(mine, scratch->peer_max[k]);",
        "for (int k = 0; k < K - 1; ++k) mine = larger(mine, scratch->peer_max[k]);",
        ("cluster",),
    ),
    Mutant(
        "the parts of a row but for the last accumulator",
        "for (int other = 0; other < parts; ++other) acc.add(",
        "for (int other = 0; other < parts - 1; ++other) acc.add(",
        ("split",),
    ),
    Mutant(
        "the parts of a row but for the last maximum",
        "for (int other = 0; other < parts; ++other) highest",
        "for (int other = 0; other < parts - 1; ++other) highest",
        ("split",),
    ),
    Mutant(
        "further rows of a block, as if each had one part",
        "base += (i64)(gridDim.x / parts) * TEAMS",
        "base += (i64)gridDim.x * TEAMS",
        ("cluster", "split"),
    ),
    Mutant(
        "further rows of a block, as if it were alone",
        "base += (i64)(gridDim.x / parts) * TEAMS",
        "base += TEAMS",
        ("lanes", "block"),
    ),
    Mutant(
        "further tiles of a block, as if it were alone", "base += (i64)gridDim.x * BLOCK", "base += BLOCK", ("tile",)
    ),
    Mutant(
        "threads without a row write the last one's gradient", "(MODE & GRADIENT) && has_row", "MODE & GRADIENT", ROWS
    ),
    Mutant(
        "threads without a row store the last one's numbers",
        "if (lane == 0 && part == 0 && has_row) store_numbers",
        "if (lane == 0 && part == 0) store_numbers",
        ("lanes", "warp"),
    ),
    Mutant(
        "threads of a tile without a row take one",
        "if ((int)threadIdx.x < rows) {",
        "if ((int)threadIdx.x <= rows) {",
        ("tile",),
    ),
]

MEMORY = [
    Mutant("the head of a row off by one", "& 15u) / (int)sizeof(T);", "& 15u) / (int)sizeof(T) + 1;"),
    Mutant("the head of a row ignored", "skip = (int)((u64)at & 15u) / (int)sizeof(T);", "skip = 0;"),
    Mutant("the tail of a row lost", "granules = (skip + classes + V - 1) / V;", "granules = (skip + classes) / V;"),
    Mutant("a granule too many is whole", "whole = (skip + classes) / V;", "whole = (skip + classes) / V + 1;", ROWS),
    Mutant("16 bytes that end one past the row", "first + V <= classes; }\n", "first + V <= classes + 1; }\n"),
    Mutant("16 bytes that begin before the row", "{ return first >= 0 && first + V", "{ return first + V"),
    Mutant(
        "one class past the row",
        "{ return first + k >= 0 && first + k < classes; }",
        "{ return first + k >= 0 && first + k <= classes; }",
    ),
    Mutant(
        "one class before the row",
        "{ return first + k >= 0 && first + k < classes; }",
        "{ return first + k >= -1 && first + k < classes; }",
    ),
    Mutant(
        "a class past the row is read, and not used",
        "element.value = has(first, k) ? at[first + k] : narrow(-infinity<typename Wide<T>::type>(), T());",
        "element.value = at[first + k < 0 ? 0 : first + k];\n"
        "      if (!has(first, k)) element.value = narrow(-infinity<typename Wide<T>::type>(), T());",
    ),
    Mutant("a class past the row is written", "if (has(first, k)) at[first + k]", "if (first + k >= 0) at[first + k]"),
    Mutant("targets in 16 bytes though not aligned", " && ((u64)(row + first) & 15u) == 0) {", ") {", ROWS),
    Mutant(
        "targets in 16 bytes past the row",
        "if (first >= 0 && first + V <= classes && ((u64)",
        "if (first >= 0 && first + V <= classes + 1 && ((u64)",
        ROWS,
    ),
    Mutant(
        "one target past the row",
        "t[k] = first + k >= 0 && first + k < classes ?",
        "t[k] = first + k >= 0 && first + k <= classes ?",
        ROWS,
    ),
    Mutant(
        "one granule too many is cached", "if (g + u * ROW < logits.cached)", "if (g + u * ROW <= logits.cached)", ROWS
    ),
    Mutant(
        "as if every row were cached",
        "logits.cached = logits.run.granules < task.cached ? logits.run.granules : (int)task.cached;",
        "logits.cached = logits.run.granules;",
        ("block", "cluster"),
    ),
    Mutant(
        "a granule that is not cached is read as if", "index >= 0 && index < cached", "index >= 0 && index <= cached"
    ),
    Mutant("a granule before the first is read as if cached", "index >= 0 && index < cached", "index < cached"),
    Mutant(
        "rows of a block whose caches overlap",
        "team_index * (int)task.cached",
        "team_index * ((int)task.cached - 1)",
        ("lanes", "warp"),
    ),
    Mutant(
        "the cache over the exchanged results", "ROW > 32 ? SCRATCH_BYTES / 16", "ROW > 32 ? 0", ("block", "cluster")
    ),
    Mutant(
        "a run that is not all cached passes for one",
        " && cached == run.granules && cached > 0;",
        " && cached > 0;",
        ("block", "cluster"),
    ),
    Mutant("a run that is not cached at all passes for one", " && cached == run.granules && cached > 0;", ";", ROWS),
    Mutant("a run that is not aligned passes for one", "return run.skip == 0 && cached", "return cached", ROWS),
    Mutant(
        "a gradient passes for aligned where its logits are",
        "if (logits.is_cached_aligned() && out.skip == 0)",
        "if (logits.is_cached_aligned())",
        ROWS,
    ),
    Mutant(
        "splicing shifts 16 bits the wrong way",
        "word[i] >> 16 | word[i + 1] << 16",
        "word[i] << 16 | word[i + 1] >> 16",
        dtypes=("bfloat16",),
    ),
    Mutant("splicing shifts 8 bytes by 4", "bytes & 8 ? word[i + 2]", "bytes & 8 ? word[i + 1]"),
    Mutant("splicing forgets 4 bytes", "bytes & 4 ? word[i + 1] : word[i]", "word[i]"),
    Mutant(
        "what is spliced of one granule",
        "spliced(granule(index), granule(index + 1)",
        "spliced(granule(index), granule(index)",
    ),
    Mutant(
        "parts that leave out the last class",
        "(int)((task.classes + parts - 1) / parts + V - 1) / V * V",
        "(int)(task.classes / parts + V - 1) / V * V",
        ("cluster", "split"),
    ),
    Mutant(
        "parts that begin amid a leaf",
        "(int)((task.classes + parts - 1) / parts + V - 1) / V * V",
        "(int)((task.classes + parts - 1) / parts)",
    ),
    Mutant(
        "parts that begin one class on",
        "? part * part_classes :",
        "? part * part_classes + (part > 0) :",
        ("cluster", "split"),
    ),
    Mutant(
        "a last part as large as the others",
        "const int classes = task.classes - start < part_classes ? (int)(task.classes - start) : part_classes;",
        "const int classes = part_classes;",
        ("cluster", "split"),
    ),
    Mutant(
        "more than are loaded at once, one round in two",
        "g < logits.run.granules; g += IN_FLIGHT * ROW",
        "g < logits.run.granules; g += 2 * IN_FLIGHT * ROW",
        ROWS,
    ),
    Mutant(
        "the same of aligned rows",
        "logits.run.whole; g += IN_FLIGHT * ROW",
        "logits.run.whole; g += 2 * IN_FLIGHT * ROW",
        ROWS,
    ),
    Mutant(
        "every second leaf of a thread",
        "for (; first < classes; first += ROW * V) {",
        "for (; first < classes; first += 2 * ROW * V) {",
        ROWS,
    ),
    Mutant(
        "every second leaf of aligned rows",
        "first + V <= classes; first += ROW * V) {",
        "first + V <= classes; first += 2 * ROW * V) {",
        ROWS,
    ),
    Mutant("a tile without its head", "T* tile = (T*)shared + in.skip;", "T* tile = (T*)shared;", ("tile",)),
    Mutant(
        "a granule after a tile is read as if cached", "shared, in.granules};", "shared, in.granules + 1};", ("tile",)
    ),
    Mutant(
        "the label of -1 is read",
        "!(MODE & FROM_PARTIAL) && label >= 0 && label < task.classes ?",
        "!(MODE & FROM_PARTIAL) && label < task.classes ?",
        ROWS,
    ),
]

NUMBERS = [
    Mutant(
        "the largest of the first word of four",
        "for (int i = 0; i < 4; ++i) largest.word[0]",
        "for (int i = 0; i < 3; ++i) largest.word[0]",
        ROWS,
        ("bfloat16", "float16"),
    ),
    Mutant(
        "the larger of two without the second",
        "return larger(widen(largest.each[0]), widen(largest.each[1]));",
        "return widen(largest.each[0]);",
        ROWS,
        ("bfloat16", "float16"),
    ),
    Mutant(
        "classes at the maximum are added up too", "bool is_top = HOLDS && x[k] == top.max;", "bool is_top = false;"
    ),
    Mutant(
        "no leaf holds the maximum",
        "const bool holds = mine == highest || logits.run.skip;",
        "const bool holds = false;",
        ROWS,
    ),
    Mutant(
        "leaves are granules, however a row begins",
        "const bool holds = mine == highest || logits.run.skip;",
        "const bool holds = mine == highest;",
        ROWS,
    ),
    Mutant("parts do not know of the maximum", "        mine = highest;\n", "", ("split",)),
    Mutant("a row of -inf has a rest", "  if (is_empty) numbers.rest = A(-1);\n", ""),
    Mutant(
        "a row of -inf has no gap", "  if (is_empty) numbers.gap = numbers.mass > A(0) ? infinity<A>() : A(0);\n", ""
    ),
    Mutant(
        "a row of -inf has a gradient",
        "numbers.is_outside || numbers.max == -infinity<A>() ? nan",
        "numbers.is_outside ? nan",
        dtypes=("float64",),  # of the others a reciprocal of 0 is NaN already
    ),
    Mutant("a row of NaN is one of -inf", "top.max == -infinity<A>() && !has_nan,", "top.max == -infinity<A>(),"),
    Mutant(
        "the maximum of a row with NaN",
        "numbers.max = has_nan ? nan<A>() : top.max + A(0);",
        "numbers.max = top.max + A(0);",
    ),
    Mutant(
        "the maximum of -0",
        "numbers.max = has_nan ? nan<A>() : top.max + A(0);",
        "numbers.max = has_nan ? nan<A>() : top.max;",
    ),
    Mutant("two of +inf are one", "has_nan || (top.max == infinity<A>() && acc.at_top > 1) ?", "has_nan ?"),
    Mutant(
        "the label at +inf",
        "label_logit == top.max && !is_empty ? A(0) : top.max - label_logit;",
        "top.max - label_logit;",
    ),
    Mutant(
        "exponentials that overflow near the limits",
        "shift(larger(max * LOG2E, -3e38f))",
        "shift(max * LOG2E)",
        dtypes=("bfloat16",),
    ),
    Mutant(
        "the correction of a sum is dropped",
        "others = acc.sum[0].value() * correction;",
        "others = acc.sum[0].value();",
        dtypes=("bfloat16", "float16"),
    ),
    Mutant(
        "the correction of a gradient is dropped",
        "softmax_scale = mass * inverse * (A)top.correction();",
        "softmax_scale = mass * inverse;",
        dtypes=("bfloat16", "float16"),
    ),
    Mutant(
        "the correction of squares is taken once",
        "value() * correction * correction +",
        "value() * correction +",
        dtypes=("bfloat16", "float16"),
    ),
    Mutant(
        "the correction of a spread is dropped",
        "(A)(acc.sum[THIRD].value() * correction)",
        "(A)acc.sum[THIRD].value()",
        dtypes=("bfloat16", "float16"),
    ),
    Mutant(
        "the correction overflows",
        "return exp2(fmax(fmin(-off, 64.0), -64.0));",
        "return exp2(-off);",
        dtypes=("bfloat16",),
    ),
    Mutant("what is no class has a gap", "second[k] = k < valid ? gap : A(0);", "second[k] = gap;"),
    Mutant("what is no class is at the maximum", "acc.at_top += is_top && k < valid;", "acc.at_top += is_top;"),
    Mutant("what is no class has a rank", "acc.before += k < valid && (", "acc.before += ("),
    Mutant(
        "the rank of equals is not by their place",
        " || (x[k] == ranked.label_logit && first + k < ranked.label));",
        ");",
    ),
    Mutant("a spread of 0 times infinity", "third[k] = e[k] == A(0) ? A(0) : gap * e[k];", "third[k] = gap * e[k];"),
    Mutant(
        "a target of 0 times infinity", "second[k] = t[k] == A(0) ? A(0) : t[k] * gap;", "second[k] = t[k] * gap;", ROWS
    ),
    Mutant("a label's target of 0 times infinity", "is_inside && on != A(0) ? on * gap", "is_inside ? on * gap"),
    Mutant(
        "a label of -1 is among the classes",
        "is_inside = label >= 0 && label < task.classes;",
        "is_inside = label < task.classes;",
    ),
    Mutant(
        "a label past the classes is among them",
        "is_inside = label >= 0 && label < task.classes;",
        "is_inside = label >= 0;",
    ),
    Mutant(
        "a label of 2^62 wraps", "return label < 0 ? -1 : label < classes ? (int)label : classes;", "return (int)label;"
    ),
    Mutant("the loss of a label that is none", "return is_outside || rest < A(0) ? nan", "return rest < A(0) ? nan"),
    Mutant(
        "the gradient of a label that is none",
        "inverse = numbers.is_outside || numbers.max",
        "inverse = numbers.max",
    ),
    Mutant("a scale of 0 times NaN", "    if (scale == A(0)) {\n", "    if (false) {\n"),
    Mutant(
        "the last class of a leaf is not the label",
        "(u32)(label - first) < (u32)V)",
        "(u32)(label - first) < (u32)V - 1)",
    ),
    Mutant(
        "the label's gradient without the smoothing",
        "out[k] = entry(x[k], on + off);",
        "out[k] = entry(x[k], on);",
    ),
    Mutant("ties at the maximum are as any other", "x[k] == top.max ? peak : elsewhere;", "elsewhere;"),
    Mutant("the maximum cancels", "(x == top.max ? ((mass - t) - t * rest) * inverse : elsewhere)", "elsewhere"),
    Mutant(
        "a sum without its low part", "return low == low ? high + low : high; }", "return high; }", dtypes=("float64",)
    ),
    Mutant("a sum of infinity is NaN", "return low == low ? high + low : high; }", "return high + low; }"),
    Mutant(
        "the rounding errors of a sum are lost",
        "    low += (high - (sum - back)) + (x - back);\n",
        "",
        dtypes=("float64",),
    ),
    Mutant(
        "the rounding errors of another sum are lost",
        "add(other.high); low += other.low; }",
        "add(other.high); }",
        dtypes=("float64",),
    ),
    Mutant(
        "half of a rounding error",
        "low += (high - (sum - back)) + (x - back);",
        "low += x - back;",
        dtypes=("float64",),
    ),
    Mutant(
        "a leaf is added in another order by some",
        "const int N = sizeof(acc.sum) / sizeof(Sum);\n  acc.sum[0].add(tree_sum(e));",
        "const int N = sizeof(acc.sum) / sizeof(Sum);\n"
        "  if (HOLDS) for (int k = 0; k < V; ++k) acc.sum[0].add(e[k]); else acc.sum[0].add(tree_sum(e));",
    ),
    Mutant(
        "a reciprocal is off by parts in a million",
        "return fmaf(y, fmaf(-x, y, 1.0f), y); }",
        "return y * 0.999998f; }",
    ),
]

MUTANTS = [*BARRIERS, *TEAMS, *MEMORY, *NUMBERS]
EQUIVALENT = {
    "a row of NaN is one of -inf": "its rest is -1 then, and its maximum is NaN still: so is whatever is made of them",
}
"""Mutants that change nothing that is promised, and why."""


def tried(path: pathlib.Path, dtype: str, build: str, variants: tuple[str, ...]) -> Iterator[str]:
    """The faults of a source, with the schedule that shows each."""
    kinds = {"plain": tuple(KINDS), "watched": ("labels",), "sanitized": ("labels", "soft")}[build]
    codes = tuple(code for kind, code in CODES.items() if kind in kinds)
    text = path.read_text(encoding="utf-8")
    for schedule in SCHEDULES if build == "plain" else SCHEDULES[:1]:
        processor = Processor(schedule=schedule, text=text, variants=variants, kinds=codes, flags=BUILDS[build])
        battery = Battery(dtype, processor, variants, kinds)
        try:
            processor.library(C_TYPES[dtype])
        except RuntimeError as error:
            sys.exit(str(error))
        faults = battery.faults() if schedule else itertools.chain(battery.faults(), battery.other_bits())
        yield from (f"schedule {schedule}: {fault}" for fault in faults)


def first_fault(path: pathlib.Path, dtype: str, build: str, variants: tuple[str, ...]) -> str:
    """The first fault of a source, found in a process of its own; empty if it has none."""
    command = [sys.executable, __file__, "--try", str(path), dtype, build, ",".join(variants)]
    environment = {**os.environ, "XENT_TWIN_FOLDER": str(path.parent)}
    if build == "sanitized":
        environment |= sanitized_environment()
    try:
        result = subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=PATIENCE_SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        return f"it has no end: not after {PATIENCE_SECONDS} s"
    if "Traceback" in result.stderr or "g++ fails" in result.stderr:
        raise RuntimeError(result.stderr)  # of the battery, not of what it tries
    if result.returncode == 0 or result.stdout:
        return result.stdout
    lines = result.stderr.splitlines() or [""]
    errors = [line for line in lines if "ERROR: AddressSanitizer" in line or "runtime error" in line]
    return f"ended by {result.returncode}: {(errors or lines[-1:])[0]}"


def examine(text: str, dtypes: tuple[str, ...], variants: tuple[str, ...]) -> tuple[str, float]:
    """(The first fault of a source and where it shows, empty if it has none; seconds)."""
    begin = time.perf_counter()
    builds = [("plain", dtype) for dtype in dtypes] + [("watched", dtypes[0]), ("sanitized", dtypes[0])]
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "xent.cu"
        path.write_text(text, encoding="utf-8")
        for build, dtype in builds:
            fault = first_fault(path, dtype, build, variants)
            if fault:
                return f"{dtype}, {build}: {fault}", time.perf_counter() - begin
    return "", time.perf_counter() - begin


def verdict(name: str, fault: str, seconds: float) -> bool:
    """Prints the result of a mutant; returns whether it is as expected."""
    reason = EQUIVALENT.get(name, "")
    is_well = bool(fault) != bool(reason)
    word = "caught" if fault else "changes nothing" if reason else "SURVIVES"
    print(f"{word:16}{name} ({seconds:.0f} s)\n{'':16}{fault or reason}"[:400], flush=True)
    return is_well


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--only", default="", help="mutants whose name has this text")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="processes at once")
    parser.add_argument("--try", nargs=4, dest="source", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.source:
        path, dtype, build, variants = options.source
        fault = next(tried(pathlib.Path(path), dtype, build, tuple(variants.split(","))), "")
        print(fault, end="")
        return 1 if fault else 0
    chosen = [mutant for mutant in MUTANTS if options.only in mutant.name]
    texts = [mutant.text() for mutant in chosen]
    with ThreadPoolExecutor(options.jobs) as pool:
        pairs = (("bfloat16", "float64"), ("float32", "float16"))
        for fault, _ in pool.map(examine, [device.source()] * 2, pairs, [VARIANTS] * 2):
            if fault:
                print(f"the source as it is has a fault: {fault}")
                return 1
        print("the source as it is has no fault", flush=True)
        results = pool.map(examine, texts, [mutant.dtypes for mutant in chosen], [mutant.variants for mutant in chosen])
        wrong = [
            mutant.name
            for mutant, (fault, seconds) in zip(chosen, results, strict=True)
            if not verdict(mutant.name, fault, seconds)
        ]
    expected = [mutant.name for mutant in chosen if mutant.name not in EQUIVALENT]
    caught = len(set(expected) - set(wrong))
    print(f"{caught} of {len(chosen)} mutants are caught; not as they should be: {', '.join(wrong) or 'none'}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
