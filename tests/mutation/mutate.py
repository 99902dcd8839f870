"""Mutants of the fold and of xent-numba's loops: one operator, number or statement changed, and what catches it.

    python tests/mutation/mutate.py --target fold
    python tests/mutation/mutate.py --target numba --sample 150 --seed 1 --jobs 2

A mutant is imported from a copy of its package and judged in a process of its own by the conformance kit; one of
fold.py then by tests/test_fold.py too, which tests how partials merge. It is caught if that fails, crashes or hangs.
Leaves out what a survivor means: README.md has each of them. Slow, and therefore no part of ``make test``.
"""

from __future__ import annotations

import argparse
import ast
import dataclasses
import faulthandler
import importlib
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = {"fold": ROOT / "xent", "numba": ROOT / "plugins/xent-numba/xent_numba"}
LOOPS = (
    "rows segments row_gradients columns column_targets grids targets exponential totals "
    "blocks kernels threads lanes memory"
)
FILES = {"fold": ["numerics/fold.py"], "numba": [f"{name}.py" for name in LOOPS.split()]}
DTYPES = ("float32", "float64", "float16", "bfloat16")
CONVERSIONS = ("exponential.py", "totals.py", "lanes.py", "memory.py")  # these differ from dtype to dtype
STAGES = ({"partial"}, {"loss_and_gradient"}, {"gradient"}, {"loss"}, {"statistics"})
FIRST = ("every_width", "infinities", "smoothed", "soft_targets", "merged_spans")
CPU_SECONDS, WALL_SECONDS = 30, 300  # for one promise
OTHERS = {
    "Add": "Sub", "Sub": "Add", "Mult": "Div", "Div": "Mult", "FloorDiv": "Mult", "Mod": "FloorDiv",
    "BitAnd": "BitOr", "BitOr": "BitAnd", "LShift": "RShift", "RShift": "LShift", "And": "Or", "Or": "And",
    "Lt": "LtE Gt", "LtE": "Lt", "Gt": "GtE Lt", "GtE": "Gt", "Eq": "NotEq", "NotEq": "Eq",
    "Is": "IsNot", "IsNot": "Is", "In": "NotIn", "NotIn": "In",
}  # fmt: skip
"""What an operator is changed to."""
SWAPPED = {"where": (1, 2), "select": (1, 2), "larger": (0, 1), "at_least": (0, 1)}
"""Which arguments of a call change places."""


def others(operator: ast.AST) -> list[ast.AST]:
    """What an operator is changed to."""
    return [getattr(ast, name)() for name in OTHERS.get(type(operator).__name__, "").split()]


def changes(node: ast.AST) -> Iterator[Callable[[], None]]:
    """Every way to change one node of a tree, in its place."""
    if isinstance(node, ast.BinOp | ast.AugAssign | ast.BoolOp):
        yield from (lambda new=new: setattr(node, "op", new) for new in others(node.op))
    if isinstance(node, ast.Compare):
        for at, operator in enumerate(node.ops):
            yield from (lambda at=at, new=new: node.ops.__setitem__(at, new) for new in others(operator))
    if isinstance(node, ast.UnaryOp):
        if isinstance(node.op, ast.USub):
            yield lambda: setattr(node, "op", ast.UAdd())
        else:  # not not x is x
            yield lambda: setattr(node, "operand", ast.UnaryOp(node.op, node.operand))
    if isinstance(node, ast.Constant) and isinstance(node.value, bool | int | float):
        value = node.value
        new = not value if isinstance(value, bool) else type(value)(1 if value == 0 else 0 if value == 1 else value + 1)
        yield lambda: setattr(node, "value", new)
    if isinstance(node, ast.If | ast.IfExp) and not is_equality(node.test):  # whose operator is changed already
        yield lambda: setattr(node, "test", ast.UnaryOp(ast.Not(), node.test))
    if isinstance(node, ast.Call):
        name = getattr(node.func, "attr", getattr(node.func, "id", ""))
        if name in ("min", "max") and isinstance(node.func, ast.Name):
            yield lambda: setattr(node.func, "id", "min" if name == "max" else "max")
        elif name in SWAPPED:
            yield lambda: swap(node.args, *SWAPPED[name])
    for body in (getattr(node, field, None) for field in ("body", "orelse", "finalbody")):
        for at, statement in enumerate(body if isinstance(body, list) else ()):
            is_call = isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Call)
            if is_call or isinstance(statement, ast.AugAssign):
                yield lambda body=body, at=at: body.__setitem__(at, ast.Pass())


def is_equality(test: ast.expr) -> bool:
    """Whether the other operator is the opposite."""
    opposites = ast.Eq | ast.NotEq | ast.Is | ast.IsNot | ast.In | ast.NotIn
    return isinstance(test, ast.Compare) and len(test.ops) == 1 and isinstance(test.ops[0], opposites)


def swap(arguments: list[ast.expr], a: int, b: int) -> None:
    """Two arguments change places."""
    arguments[a], arguments[b] = arguments[b], arguments[a]


def nodes(tree: ast.AST) -> Iterator[ast.AST]:
    """Every node of a tree that runs: no annotations."""
    yield tree
    for field, value in ast.iter_fields(tree):
        if field not in ("annotation", "returns"):
            for child in value if isinstance(value, list) else [value]:
                if isinstance(child, ast.AST):
                    yield from nodes(child)


@dataclasses.dataclass(frozen=True)
class Mutant:
    """One change of one file of a target, by its number in the order of the tree; number −1 changes nothing."""

    target: str
    file: str
    number: int

    def text(self) -> tuple[str, str]:
        """The whole file changed, and one line that says what and where."""
        tree = ast.parse((PACKAGES[self.target] / self.file).read_text(encoding="utf-8"))
        before = ast.unparse(tree)
        if self.number < 0:
            return before, "as it is"
        node, change = [(node, change) for node in nodes(tree) for change in changes(node)][self.number]
        change()
        after = ast.unparse(ast.fix_missing_locations(tree))
        pairs = zip(before.splitlines(), after.splitlines(), strict=True)
        old, new = next((a.strip(), b.strip()) for a, b in pairs if a != b)
        return after, f"{self.file}:{getattr(node, 'lineno', 0)} #{self.number}: {old}  →  {new}"

    @property
    def dtypes(self) -> tuple[str, ...]:
        """The dtypes it is judged on by default."""
        return DTYPES if self.file in CONVERSIONS else DTYPES[:2] if self.target == "fold" else DTYPES[:1]


def mutants(target: str) -> list[Mutant]:
    """Every mutant of a target."""
    every = []
    for file in FILES[target]:
        tree = ast.parse((PACKAGES[target] / file).read_text(encoding="utf-8"))
        count = sum(1 for node in nodes(tree) for _ in changes(node))
        every += [Mutant(target, file, number) for number in range(count)]
    return every


# -------------------- judged


def judge(target: str, dtypes: list[str]) -> str:
    """The first promise that the kernels imported in this process break; empty if all are kept."""
    from xent.testing import PROMISES, registered_specs

    if target == "fold":
        specs = registered_specs("generic")
    else:
        specs = list(importlib.import_module("xent_numba.hooks").xent_register_kernels(api=1))
    module = importlib.import_module("xent.numerics.fold" if target == "fold" else "xent_numba.kernels")
    assert not Path(str(module.__file__)).is_relative_to(ROOT), f"{module.__file__} is no copy"
    facts = {"name": "mutant", "arrays": frozenset({"numpy"})}
    for dtype in dtypes:
        specs = [dataclasses.replace(spec, **facts, dtypes=frozenset({dtype})) for spec in specs]
        methods: set[str] = set()
        for stage in STAGES:  # the loops of one method after the other: to compile them takes longer than to run them
            methods |= stage
            for spec in (spec for spec in specs if stage <= spec.methods):
                few = dataclasses.replace(spec, methods=spec.methods & methods)
                for promise in FIRST if methods >= spec.methods else FIRST[:2]:
                    if is_broken(few, promise):
                        return f"{promise} ({spec.op}, {dtype})"
        for spec in specs:
            for promise in (name for name in PROMISES if name not in FIRST):
                if is_broken(spec, promise):
                    return f"{promise} ({spec.op}, {dtype})"
    return ""


def is_broken(spec: Any, promise: str) -> bool:
    """Whether a kernel breaks a promise; a process that hangs is ended."""
    from xent.testing import check_kernel

    resource.setrlimit(resource.RLIMIT_CPU, (round(time.process_time()) + CPU_SECONDS, resource.RLIM_INFINITY))
    faulthandler.dump_traceback_later(WALL_SECONDS, exit=True)  # threads that wait for each other take no time
    report = check_kernel(spec, checks=promise)
    faulthandler.cancel_dump_traceback_later()
    return not all(result.ok for result in report.results)


def verdict(mutant: Mutant, dtypes: list[str]) -> str:
    """The test that catches a mutant; empty if it survives."""
    with tempfile.TemporaryDirectory() as folder:
        package = Path(folder) / PACKAGES[mutant.target].name
        shutil.copytree(PACKAGES[mutant.target], package, ignore=shutil.ignore_patterns("__pycache__"))
        (package / mutant.file).write_text(mutant.text()[0], encoding="utf-8")
        paths = {"PYTHONPATH": f"{folder}{os.pathsep}{ROOT}", "PYTHONSAFEPATH": "1", "NUMBA_CACHE_DIR": folder}
        commands = [[__file__, "--target", mutant.target, "--judge", "--dtypes", *(dtypes or mutant.dtypes)]]
        if mutant.target == "fold":
            options = ["-p", "no:cacheprovider", "-qx", "--seed=1", "--hypothesis-seed=1"]
            commands.append(["-m", "pytest", *options, "tests/test_fold.py"])
        for command in commands:
            command = [sys.executable, "-B", *command]
            process = subprocess.run(command, cwd=ROOT, env=os.environ | paths, capture_output=True, text=True)
            if process.returncode:
                failures = [
                    line for line in process.stdout.splitlines() if line.startswith(("FAILED", "ERROR", "broken"))
                ]
                hangs = "Timeout (" in process.stderr or process.returncode == -signal.SIGXCPU
                end = ["hangs"] if hangs else [*process.stderr.splitlines()[-1:], f"exit {process.returncode}"]
                return [*failures, *end][0][:160]
    return ""


def main() -> None:
    """Judges the chosen mutants; prints a line for each, and the counts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--target", choices=FILES, required=True)
    parser.add_argument("--sample", type=int, help="how many, drawn at random; all by default")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--only", nargs="*", default=[], metavar="FILE#NUMBER", help="these mutants")
    parser.add_argument("--dtypes", nargs="*", choices=DTYPES, default=[], help="by default those that its file is for")
    parser.add_argument("--judge", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.judge:
        broken = judge(options.target, options.dtypes)
        print(f"broken: {broken}")
        sys.exit(bool(broken))

    every = mutants(options.target)
    chosen = [mutant for mutant in every if not options.only or f"{mutant.file}#{mutant.number}" in options.only]
    if options.sample:
        chosen = random.Random(options.seed).sample(chosen, min(options.sample, len(chosen)))
    if broken := verdict(Mutant(options.target, FILES[options.target][0], -1), options.dtypes):
        sys.exit(f"without any change: {broken}")
    print(f"{len(chosen)} of {len(every)} mutants, --seed {options.seed}", flush=True)
    survivors = 0
    with ThreadPoolExecutor(options.jobs) as pool:
        verdicts = pool.map(lambda mutant: verdict(mutant, options.dtypes), chosen)
        for mutant, caught_by in zip(chosen, verdicts, strict=True):
            survivors += not caught_by
            print(f"{'caught  ' if caught_by else 'SURVIVED'} {mutant.text()[1]}  [{caught_by}]", flush=True)
    print(f"{len(chosen)} mutants, {len(chosen) - survivors} caught, {survivors} survived")


if __name__ == "__main__":
    main()
