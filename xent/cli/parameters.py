"""The types of values on the command line that click has not: numbers of bytes, labels, ranges of rows."""

from __future__ import annotations

import re
from typing import Any

import click

BYTE_UNITS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30}


class ByteSize(click.ParamType):
    """A number of bytes, with or without a unit: 1000000, 64MiB, 1.5 GB."""

    name = "bytes"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        text = str(value).strip()
        number = text.rstrip("BbiIkKmMgG ")
        try:
            size = int(float(number) * BYTE_UNITS[text[len(number) :].strip().upper()])
        except (KeyError, ValueError, OverflowError):
            size = 0
        if size < 1:
            self.fail(f"must be a number of bytes such as 64MiB, got {text}.", param, ctx)
        return size


class Count(click.ParamType):
    """A number of all rows, or the file of the numbers of each."""

    name = "number or file"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int | str:
        text = str(value)
        if text.lstrip("+-").isdigit() and int(text) < 1:
            self.fail(f"must be a whole number, at least 1, or a file, got {text}.", param, ctx)
        return int(text) if text.isdigit() else text


class Label(click.ParamType):
    """A label: a number, or the name of a class."""

    name = "label"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int | str:
        try:
            return int(value)
        except ValueError:
            return str(value)


class RowRange(click.ParamType):
    """A range of rows as Python writes it: 0:1000, :1000, 1000:."""

    name = "rows"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, int | None]:
        match = re.fullmatch(r"(\d*):(\d*)", str(value))
        if match is None:
            raise click.BadParameter(f"must be a range of rows such as 0:1000, got {value}.", ctx, param)
        return int(match[1] or 0), int(match[2]) if match[2] else None
