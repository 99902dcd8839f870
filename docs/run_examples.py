"""Runs the examples of the pages, and writes what they print below them.

    python docs/run_examples.py

A page's blocks run in order, in one namespace and in an empty folder. What a ``python`` block prints stands in a
``text`` block right below it; one that begins with ``# name.py`` is that file. A ``console`` block has commands of
``xent``, and ``echo $?``, each with its output, of which ``>`` sends stdout to a file. Three dots stand for what
differs from run to run: times, threads and their memory. The cells of a notebook run likewise, as a notebook shows
them. ``tests/test_site.py`` compares.
"""

from __future__ import annotations

import ast
import base64
import contextlib
import io
import json
import os
import re
import shlex
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

DOCS = Path(__file__).parent
PAGES = [DOCS / "index.md", *sorted(DOCS.glob("tutorials/*.md")), *sorted(DOCS.glob("howto/*.md"))]
NOTEBOOKS = sorted(DOCS.glob("tutorials/*.ipynb"))
BLOCK = re.compile(r"^```(python|console)\n(.*?)^```\n(?:\n```text\n.*?^```\n)?", re.MULTILINE | re.DOTALL)
COMMAND = re.compile(r"^\$ (.*)\n(?:(?!\$ ).*\n)*", re.MULTILINE)
FILE = re.compile(r"# (\w+\.py)\n")
VARYING = re.compile(
    r"\d+(?= threads: about)|(?<= threads: about )[\d,]+"
    r"|[\d.]+(?= s, [\d.]+ GB/s)|[\d.]+(?= GB/s, )|[\d,]+(?= rows/s)|[\d.]+(?= µs)|(?<= in )[\d.]+(?= s:)"
)
"""What an output says of the machine and the moment."""
COLUMNS = "100"


@contextlib.contextmanager
def empty_folder() -> Iterator[None]:
    """A new folder as the working folder, whose modules can be imported."""
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        known = set(sys.modules)
        sys.path.insert(0, folder)
        try:
            yield
        finally:
            sys.path.remove(folder)
            for name in {name for name in set(sys.modules) - known if (Path(folder) / f"{name}.py").exists()}:
                del sys.modules[name]


def printed(source: str, names: dict[str, Any]) -> str:
    """What a Python block prints."""
    stream = io.StringIO()
    with contextlib.redirect_stdout(stream):
        exec(compile(source, "<example>", "exec"), names)
    return stream.getvalue()


def steady(output: str) -> str:
    """An output as it is in every folder, on every machine and at every time."""
    return VARYING.sub("...", output.replace(f"{os.getcwd()}/", ""))


def answer(command: str, status: int) -> tuple[str, int]:
    """What a command writes to the terminal, and its exit code; `status` is that of the command before it."""
    from click.testing import CliRunner

    from xent.cli import main

    program, *arguments = shlex.split(command)
    if command == "echo $?":
        return f"{status}\n", 0
    if program != "xent":
        raise ValueError(f"only xent is run in a console block, got {command}")
    target = arguments.pop() if ">" in arguments else None
    result = CliRunner(env={"COLUMNS": COLUMNS}).invoke(main, [word for word in arguments if word != ">"])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    if target:
        Path(target).write_text(result.stdout, encoding="utf-8")
    return result.stderr if target else result.output, result.exit_code


def ran(text: str) -> str:
    """A page with the outputs that its examples have now."""
    names: dict[str, Any] = {"__name__": "page"}
    status = 0

    def with_answer(match: re.Match[str]) -> str:
        nonlocal status
        output, status = answer(match[1], status)
        return f"$ {match[1]}\n{steady(output)}"

    def with_output(match: re.Match[str]) -> str:
        kind, source = match.groups()
        if kind == "console":
            return f"```console\n{COMMAND.sub(with_answer, source)}```\n"
        block = f"```python\n{source}```\n"
        if file := FILE.match(source):
            Path(file[1]).write_text(source, encoding="utf-8")
            return block
        output = steady(printed(source, names))
        return f"{block}\n```text\n{output}```\n" if output else block

    with empty_folder():
        return BLOCK.sub(with_output, text)


def figures() -> list[dict[str, Any]]:
    """The open figures of matplotlib, as outputs of a cell, which closes them."""
    outputs = []
    if plots := sys.modules.get("matplotlib.pyplot"):
        for number in plots.get_fignums():
            stream = io.BytesIO()
            plots.figure(number).savefig(stream, format="png", bbox_inches="tight", metadata={"Software": None})
            data = {"image/png": base64.b64encode(stream.getvalue()).decode() + "\n"}
            outputs.append({"data": data, "metadata": {}, "output_type": "display_data"})
        plots.close("all")
    return outputs


def outputs_of(source: str, names: dict[str, Any], number: int) -> list[dict[str, Any]]:
    """What a notebook shows below a cell: what it prints, the value of its last line, and its figures."""
    tree = ast.parse(source)
    last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
    stream = io.StringIO()
    with contextlib.redirect_stdout(stream):
        exec(compile(tree, "<cell>", "exec"), names)
        value = eval(compile(ast.Expression(last.value), "<cell>", "eval"), names) if last else None
    outputs = []
    if text := stream.getvalue():
        outputs.append({"name": "stdout", "output_type": "stream", "text": text.splitlines(keepends=True)})
    if value is not None:
        data = {"text/plain": repr(value).splitlines(keepends=True)}
        if hasattr(value, "_repr_html_"):
            data = {"text/html": value._repr_html_().splitlines(keepends=True), **data}
        result = {"data": data, "execution_count": number, "metadata": {}, "output_type": "execute_result"}
        outputs.append(result)
    return outputs + figures()


def ran_notebook(text: str) -> str:
    """A notebook with the outputs that its cells have now."""
    notebook = json.loads(text)
    names: dict[str, Any] = {"__name__": "__main__"}
    with empty_folder():
        for number, cell in enumerate((cell for cell in notebook["cells"] if cell["cell_type"] == "code"), start=1):
            cell["execution_count"] = number
            cell["outputs"] = outputs_of("".join(cell["source"]), names, number)
    return json.dumps(notebook, indent=1, ensure_ascii=False) + "\n"


def shown(notebook: str) -> list[Any]:
    """What a notebook shows: the texts below its cells, and of what has none the kind."""
    outputs = [output for cell in json.loads(notebook)["cells"] for output in cell.get("outputs", ())]
    return [output.get("text") or output["data"].get("text/plain") or sorted(output["data"]) for output in outputs]


if __name__ == "__main__":
    os.environ.setdefault("MPLBACKEND", "agg")
    for page in PAGES:
        page.write_text(ran(page.read_text(encoding="utf-8")), encoding="utf-8")
    for page in NOTEBOOKS:
        old = page.read_text(encoding="utf-8")
        if shown(new := ran_notebook(old)) != shown(old):  # pictures hold the time at which they were made
            page.write_text(new, encoding="utf-8")
