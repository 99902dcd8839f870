"""How results are shown: on a terminal, as JSON, as tables, and as a page."""
