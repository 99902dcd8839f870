"""Writes the table of the conformance kit's promises into docs/plugins.md."""

import re
from pathlib import Path

from xent.testing import PROMISES

PAGE = Path(__file__).with_name("plugins.md")
MARKED = re.compile(r"(?<=<!-- promises -->\n).*?(?=<!-- /promises -->)", re.DOTALL)


def table() -> str:
    """The table in Markdown, with one row per promise."""
    lines = ["| promise | |", "|---|---|"]
    for name, promise in PROMISES.items():
        lines.append(f"| `{name}` | {(promise.__doc__ or '').partition(chr(10))[0].replace('``', '`')} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    PAGE.write_text(MARKED.sub(lambda _: table(), PAGE.read_text()))
