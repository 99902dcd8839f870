"""The tables of an evaluation as a folder of Parquet files.

Leaves out their content (``tables.py``).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from xent.evaluation.engine.compare_pass import SETS
from xent.evaluation.outputs import Destination, Target, draft_of, move, output_path, written
from xent.evaluation.report.tables import Table
from xent.evaluation.sources.messages import refusal
from xent.optional import require

NAMES = (
    *("metrics", "counts", "classes", "slices", "scores", "confusion", "ranking", "gains"),
    *("reliability", "equal_mass", "calibration", "histogram", "positions", "worst", "worst_clusters"),
)
"""The tables of an evaluation; a comparison has those of its differences, and of its sets by these names too."""
PAIR_NAMES = ("difference", "pairs", "metrics", "slices", *(f"{name}_{each}" for each in SETS for name in NAMES))


def tables_path(path: Any, *, overwrite: bool = False, argument: str = "tables") -> Target:
    """The path of a folder of tables, checked before any work; `argument` is its name in a message.

    Raises
    ------
    FileExistsError, FileNotFoundError, ValueError
        If it exists and may not be overwritten, its parent does not exist, or it holds anything but such tables: a
        folder is overwritten whole.
    ModuleNotFoundError
        If pyarrow is not installed.
    """
    require("pyarrow.parquet", "parquet", "a Parquet table")
    target = output_path(argument, path, (), overwrite=overwrite)
    if target.exists():
        names = {f"{name}.parquet" for name in (*NAMES, *PAIR_NAMES)}
        found = {file.name for file in target.iterdir()} if isinstance(target, Path) and target.is_dir() else set()
        found = {*target.names()} if isinstance(target, Destination) else found
        others = sorted(found - names) if found or (isinstance(target, Path) and target.is_dir()) else ["a file"]
        if others:
            rule, got = "be a folder of nothing but these tables", f"{target}, which holds {others[0]}"
            raise ValueError(refusal(argument, rule, got, "Name a new one."))
    return target


def write_tables(tables: Mapping[str, Table], folder: Target, *, overwrite: bool = False) -> None:
    """Write a file for each table into a folder, which may replace an older one; WriteError if it cannot.

    An unknown value is null, and NaN is NaN.
    """
    with written(folder), draft_of(folder) as draft:
        draft.mkdir()
        for name, table in tables.items():
            write_table(draft / f"{name}.parquet", table)
        move(draft, folder, overwrite=overwrite)


def write_table(path: Path, table: Table) -> None:
    """Write one Parquet file."""
    pyarrow = require("pyarrow", "parquet", "a Parquet table")
    parquet = require("pyarrow.parquet", "parquet", "a Parquet table")
    types = {int: pyarrow.int64(), float: pyarrow.float64(), str: pyarrow.string()}
    schema = pyarrow.schema([(name, types[kind]) for name, kind in table.columns.items()])
    columns = zip(*table.rows, strict=True) if table.rows else ((),) * len(schema)
    arrays = [pyarrow.array(column, field.type) for column, field in zip(columns, schema, strict=True)]
    parquet.write_table(pyarrow.table(arrays, schema), path)
