"""``python -m xent`` is the command ``xent``."""

from .cli import main

if __name__ == "__main__":
    main(prog_name="xent")
