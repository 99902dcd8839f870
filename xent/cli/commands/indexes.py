"""``xent index``: what is in each file of a set, written down once."""

from __future__ import annotations

import click

from xent.cli.exits import input_checked
from xent.cli.options import storage_option


@click.command()
@click.argument("sets", nargs=-1, required=True)
@click.option("--no-checksums", is_flag=True, help="Do not read every file whole for its SHA-256.")
@storage_option
def index(sets: tuple[str, ...], *, no_checksums: bool) -> None:
    """Write the index of SETS in many files, folders or globs: of each file the rows, the dtype, the size, a checksum.

    It is _xent_index.parquet in the folder. Evaluations take the lengths of the files from it and open none before
    their tasks do. Several arrays of the same files may be indexed: xent index 'parts#p_*' 'parts#label'.
    """
    with input_checked():
        from xent.evaluation.indexing import index_shards

        written = [index_shards(each, checksums=not no_checksums) for each in sets]
    for path in dict.fromkeys(written):
        click.echo(path)
