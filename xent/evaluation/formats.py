"""The formats that are read: what each is called, its suffixes, and how an array in one is named.

Help, messages and docs/evaluation.md have their lists from here; ``sources/opening.py`` says what opens each. Nothing
is imported, so that ``--help`` is quick.
"""

from __future__ import annotations

from typing import NamedTuple


class Format(NamedTuple):
    """A format: its name, the suffixes of its files, and how docs/evaluation.md says that arrays in one are named."""

    name: str
    suffixes: tuple[str, ...]
    naming: str


FORMATS = (
    Format(".npy", (".npy",), "`x.npy`"),
    Format(".npz", (".npz",), "`x.npz#logits`; compressed ones up to 256 MiB"),
    Format("safetensors", (".safetensors",), "`x.safetensors#logits`"),
    Format("Zarr", (".zarr", ".zarr.zip"), "versions 2 and 3: `x.zarr`, `x.zarr#logits` of a group, `x.zarr.zip`"),
    Format("HDF5", (".h5", ".hdf5", ".hdf", ".he5"), "`x.h5#run/logits`; virtual datasets whose files lie beside them"),
    Format("netCDF", (".nc", ".nc4"), "version 4: `x.nc#logits`; numbers that are packed (CF) are unpacked"),
    Format(
        "Parquet", (".parquet", ".pq"), "a list column `x.parquet#logits`, or plain ones `x.parquet#p_*`; see below"
    ),
    Format(
        "Arrow",
        (".arrow", ".arrows", ".ipc", ".feather"),
        "the same of files and streams, of Feather, Polars and Hugging Face",
    ),
    Format("CSV", (".csv", ".tsv", ".csv.gz", ".tsv.gz"), "`x.csv#p_*`; `x.csv` alone of one without a header"),
    Format(
        "JSON lines",
        (".jsonl", ".ndjson", ".jsonl.gz", ".ndjson.gz"),
        "`x.jsonl#logits`, a list; answers of vLLM and of OpenAI's API: see below",
    ),
    Format("torch", (".pt", ".pth"), "`x.pt`, `x.pt#logits` of a dict; tensors alone, on a local disk"),
)
SUFFIXES = tuple(suffix for form in FORMATS for suffix in form.suffixes)


def listed() -> str:
    """The names of all formats, as in a sentence."""
    *names, last = (form.name for form in FORMATS)
    return f"{', '.join(names)} or {last}"


def help_text() -> str:
    """What the command line says of the formats."""
    forms = "; ".join(f"{form.name} ({', '.join(form.suffixes)})" for form in FORMATS)
    return (
        f"Formats, by their suffixes: {forms}; raw numbers, as x.bin#float16,1000,256. After a # is the name of an "
        "array or of columns: x.h5#run/logits, x.csv#p_*, x.parquet#a,b,c, x.jsonl#*,!label."
    )
