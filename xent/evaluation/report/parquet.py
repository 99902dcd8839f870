"""The sheets of an evaluation as a folder of Parquet files.

Leaves out what is in them (``tables.py``).
"""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xent.evaluation.outputs import move, output_path, remove, written
from xent.evaluation.report.tables import Sheet, sheets
from xent.evaluation.sources.source import refusal
from xent.optional import require

if TYPE_CHECKING:
    from xent.evaluation.statistics.metrics import Evaluation

NAMES = ("metrics", "counts", "classes", "slices", "reliability", "histogram", "positions", "worst")


def tables_path(path: Any, *, overwrite: bool = False, argument: str = "tables") -> Path:
    """The path of a folder of tables, checked before any work; `argument` is what a message calls it.

    Raises
    ------
    FileExistsError, FileNotFoundError, ValueError
        If it is there and may not be overwritten, lies in no folder, or holds anything but such tables: a folder is
        overwritten whole.
    ModuleNotFoundError
        If pyarrow is not installed.
    """
    require("pyarrow.parquet", "parquet", "a Parquet table")
    target = output_path(argument, path, (), overwrite=overwrite)
    if target.exists():
        ours = {f"{name}.parquet" for name in NAMES}
        others = sorted(one.name for one in target.iterdir() if one.name not in ours) if target.is_dir() else ["a file"]
        if others:
            rule, got = "be a folder of nothing but these tables", f"{target}, which holds {others[0]}"
            raise ValueError(refusal(argument, rule, got, "Name a new one."))
    return target


def write_tables(evaluation: Evaluation, folder: Path) -> None:
    """Write a table for each of `NAMES` into a folder, which takes the place of what is there.

    Those of classes and slices are there where there are classes and slices. A column's name ends in its unit where it
    has one; what is not known is null, and NaN is NaN.
    """
    draft = folder.with_name(f".{uuid.uuid4().hex}")
    with written(folder):
        try:
            draft.mkdir()
            for name, sheet in sheets(evaluation).items():
                write_sheet(draft / f"{name}.parquet", sheet)
            move(draft, folder)
        finally:
            remove(draft)


def write_sheet(path: Path, sheet: Sheet) -> None:
    """One Parquet file."""
    pyarrow = require("pyarrow", "parquet", "a Parquet table")
    kinds = {int: pyarrow.int64(), float: pyarrow.float64(), str: pyarrow.string()}
    schema = pyarrow.schema([(name, kinds[kind]) for name, kind in sheet.columns.items()])
    columns = zip(*sheet.rows, strict=True) if sheet.rows else ((),) * len(schema)
    arrays = [pyarrow.array(column, one.type) for column, one in zip(columns, schema, strict=True)]
    require("pyarrow.parquet", "parquet", "a Parquet table").write_table(pyarrow.table(arrays, schema), path)
