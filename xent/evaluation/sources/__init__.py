"""What is evaluated: files of each format, arrays in memory, and how they are opened."""

from .messages import ReadError
from .opening import open_source
from .source import Source
from .topk import TopK

__all__ = ["ReadError", "Source", "TopK", "open_source"]
