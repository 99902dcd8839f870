"""The table of array libraries in docs/libraries.md, from a report of the tests.

    pytest --junitxml=report.xml tests && python docs/library_table.py report.xml

counts, for each library, the tests that passed on its own arrays, and writes the table between the markers of the page.
A library is "computed" if its tests compared numbers, "dispatched only" if tests passed its own arrays through keys,
plans and checks without arithmetic, and "not run" otherwise.
"""

from __future__ import annotations

import pathlib
import re
import sys
import xml.etree.ElementTree as ElementTree

PAGE = pathlib.Path(__file__).with_name("libraries.md")
MARKERS = "<!-- libraries -->", "<!-- /libraries -->"
LIBRARIES = {
    "numpy": (
        "NumPy",
        "float16, bfloat16 (ml_dtypes), float32, float64",
        "in place, in blocks that fit the cache; fused by xent-numba",
    ),
    "torch": ("torch", "the same", "NumPy's kernel on the same memory, inside autograd; torch.compile, torch.func"),
    "jax": ("JAX", "the same; float64 with x64", "jit, grad, vmap; derivatives written out"),
    "dask": ("Dask", "those of its chunks", "one task for each chunk; classes cut or not; unknown rows"),
    "array-api-strict": ("array-api-strict", "float32, float64", "generic: any array API library"),
    "cupy": ("CuPy", "those of NumPy", "fused by xent-cuda, whose kernels are tested on a processor too; generic"),
}

BY_NAME_ONLY = ("test_doctor", "test_cli")
"""Modules whose tests use the name of a library and none of its arrays."""


def counts(report: pathlib.Path) -> dict[str, tuple[int, int]]:
    """For each library: how many tests compared numbers on it, and how many only dispatched its arrays."""
    tests = {name: [0, 0] for name in LIBRARIES}
    for case in ElementTree.parse(report).getroot().iter("testcase"):
        if case.find("skipped") is not None or case.find("failure") is not None or case.find("error") is not None:
            continue
        name, module = case.get("name", ""), case.get("classname", "").rpartition(".")[2]
        variant = module not in BY_NAME_ONLY and re.search(r"\[([a-z-]+)", name)
        for library in LIBRARIES:
            if module == f"test_{library}":
                tests[library][library == "cupy"] += 1  # without a GPU only its dispatch is tested
            elif variant and (variant[1] == library or variant[1].startswith(f"{library}-")):
                tests[library][0] += 1
    return {name: (computed, dispatched) for name, (computed, dispatched) in tests.items()}


def table(report: pathlib.Path) -> str:
    """The rows of the table, in Markdown."""
    lines = ["| library | tested | dtypes of the predictions | how |", "|---|---|---|---|"]
    for name, (computed, dispatched) in counts(report).items():
        title, dtypes, how = LIBRARIES[name]
        status = f"computed: {computed} tests" if computed else f"dispatched only: {dispatched} tests, no GPU at hand"
        lines.append(f"| {title} | {status if computed or dispatched else 'not run'} | {dtypes} | {how} |")
    lines.append("| any other, array API 2024.12 or later | computed: a toy library of the tests | its own | generic |")
    return "\n".join(lines)


def main(report: str) -> None:
    """Writes the table into the page."""
    text = PAGE.read_text()
    before, rest = text.split(MARKERS[0])
    after = rest.split(MARKERS[1])[1]
    PAGE.write_text(f"{before}{MARKERS[0]}\n{table(pathlib.Path(report))}\n{MARKERS[1]}{after}")


if __name__ == "__main__":
    main(sys.argv[1])
