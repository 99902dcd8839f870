"""Log-probabilities that servers of language models answer with, as JSON lines: a line is a request, a row a token.

OpenAI's chat completions (``logprobs.content``) and completions (``logprobs.top_logprobs``), alone or as the bodies of
a batch; vLLM's own, of the text that it made (``logprobs``) and of the prompt (``prompt_logprobs``). Of each file there
are the arrays ``logprobs`` and ``ids`` (rows, k), ``tokens`` (rows,), the token that is there, and ``requests``
(rows,), the number of its line; where there are log-probabilities of prompts the same with ``prompt_`` before them.

A token that has a number keeps it. One that is only text has the number of texts before it in the file. A row with
fewer than k tokens is filled up with ids of -1, whose log-probability is minus infinity.
"""

from __future__ import annotations

import json
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xent.evaluation.sources.json_lines import open_json
from xent.evaluation.sources.lines import line_index, lines_of
from xent.evaluation.sources.messages import MalformedError, ReadError, reading, refusal, select_array
from xent.evaluation.sources.source import FileSource, Source
from xent.evaluation.sources.storage import Stamp, check_unchanged, status
from xent.evaluation.sources.text_tables import leading_lines, rows_of_lines

UNLIKELY = -9999.0
"""What OpenAI and vLLM say instead of a log-probability that is lower, or not known."""
ARRAYS = ("logprobs", "ids", "tokens", "requests")
PROMPT = "prompt_"
NUMBERED = "token_id:"
HEAD_LINES = 10
"""Lines of which one must be an answer."""

Token = int | str
Position = tuple[Token | None, dict[Token, float]]
"""The token at a place, None if it is not said, and the log-probabilities of those that could be."""


@dataclass(frozen=True, eq=False)
class ResponseSource(FileSource):
    """One of the arrays of a file of answers."""

    array: str

    def edge(self, start: int, stop: int) -> int | None:
        edges = answers(self.file, self.stamp, self.array.startswith(PROMPT)).edges
        inside = edges[bisect_right(edges, start) : bisect_left(edges, stop)]
        return min(inside, key=lambda edge: abs(2 * edge - start - stop), default=None)

    def read(self, start: int, stop: int) -> NDArray[Any]:
        check_unchanged(self.file, self.stamp)
        is_prompt, array = self.array.startswith(PROMPT), self.array.removeprefix(PROMPT)
        with reading(self.path, start, stop):
            known = answers(self.file, self.stamp, is_prompt)
            first, last = bisect_right(known.edges, start) - 1, bisect_left(known.edges, stop)
            rows: list[Any] = []
            for number, places in places_of(self.file, self.stamp, first, last, is_prompt=is_prompt):
                rows += (row_of(array, place, number, known) for place in places)
            rows = rows[start - known.edges[first] : stop - known.edges[first]]
            return np.asarray(rows, self.dtype).reshape(len(rows), *self.shape[1:])


@dataclass
class Answers:
    """What a file of answers holds: the rows at which each line begins, and the end; k; the number of each text."""

    edges: list[int] = field(default_factory=lambda: [0])
    k: int = 0
    texts: dict[str, int] = field(default_factory=dict)
    has_tokens: bool = True
    has_numbers: bool = False


def is_answer(line: bytes) -> bool:
    """Whether a line of JSON is an answer of a server, with log-probabilities or without."""
    try:
        record = body_of(json.loads(line))
    except (ValueError, RecursionError, UnicodeDecodeError):
        return False
    if not isinstance(record, dict):
        return False
    held = [parts for parts in (record.get("choices"), record.get("outputs")) if isinstance(parts, list)]
    return isinstance(record.get("prompt_logprobs"), list) or any(
        isinstance(part, dict) and ("logprobs" in part or "prompt_logprobs" in part) for parts in held for part in parts
    )


def open_json_lines(path: str, name: str, argument: str) -> Source:
    """The source of JSON lines: an array of servers' answers, or fields of a table."""
    lines = leading_lines(path, status(path).stamp, quoted=False)
    if lines and any(map(is_answer, rows_of_lines(lines)[:HEAD_LINES])):
        return open_responses(path, name, argument)
    return open_json(path, name, argument)


def open_responses(path: str, name: str, argument: str) -> ResponseSource:
    """An array of a file of answers, which has been read once."""
    stamp = status(path).stamp
    made, prompt = answers(path, stamp, False), answers(path, stamp, True)
    held = [*(ARRAYS if made.k else ()), *(f"{PROMPT}{array}" for array in ARRAYS if prompt.k)]
    if not held:
        remedy = "Ask the server for logprobs, or prompt_logprobs."
        raise ValueError(refusal(argument, "have log-probabilities", f"{path}, whose answers have none", remedy))
    array = select_array(held, name, path, argument)
    known = prompt if array.startswith(PROMPT) else made
    if known.texts and known.has_numbers:
        rule, remedy = "have tokens that are numbers, or text, throughout", "Split it into files of one kind."
        raise MalformedError(refusal(argument, rule, path, remedy))
    if array.endswith("tokens") and not known.has_tokens:
        rule, remedy = (
            "say which token is in each place",
            "Ask the server for return_token_ids, or pass your own labels.",
        )
        raise ValueError(refusal(argument, rule, f"{path}, which does not", remedy))
    is_wide = array.endswith(("logprobs", "ids"))
    shape = (known.edges[-1], known.k) if is_wide else (known.edges[-1],)
    dtype = np.dtype(np.float64 if array.endswith("logprobs") else np.int64)
    return ResponseSource(f"{path}#{array}", shape, dtype, path, stamp, array)


@lru_cache(maxsize=8)
def answers(path: str, stamp: Stamp, is_prompt: bool) -> Answers:
    """What a file of answers holds, of the text that was made or of the prompts."""
    known, rows = Answers(), line_index(path, stamp, quoted=False).rows[-1]
    for _, places in places_of(path, stamp, 0, rows, is_prompt=is_prompt):
        for token, values in places:
            known.k = max(known.k, len(values))
            known.has_tokens &= token is not None
            for each in (*values, *(() if token is None else (token,))):
                if isinstance(each, str):
                    known.texts.setdefault(each, len(known.texts))
                else:
                    known.has_numbers = True
        known.edges.append(known.edges[-1] + len(places))
    return known


def places_of(
    path: str, stamp: Stamp, start: int, stop: int, *, is_prompt: bool
) -> Iterator[tuple[int, list[Position]]]:
    """The places of the answers of these lines, each with the line's number; ReadError if one is malformed."""
    for lines in lines_of(path, stamp, start, stop, quoted=False):
        begin = 0
        for i, end in enumerate(lines.ends):
            try:
                places = [*positions(body_of(json.loads(lines.text[begin:end])), is_prompt=is_prompt)]
            except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
                what = f"line {lines.numbers[i] + 1} of {path} could not be read"
                raise ReadError(f"evaluate: {what} ({type(error).__name__}: {str(error).rstrip('.')}).") from error
            yield lines.row + i, places
            begin = end


def row_of(array: str, position: Position, request: int, known: Answers) -> Any:
    """What an array has of a place."""
    token, values = position
    if array == "requests":
        return request
    if array == "tokens":
        return known.texts.get(token, token) if isinstance(token, str) else token
    missing = known.k - len(values)
    if array == "logprobs":
        return [*values.values(), *[-np.inf] * missing]
    return [*(known.texts[each] if isinstance(each, str) else each for each in values), *[-1] * missing]


# ---------------------------------------------------------------------------------------------------------------------
# The layouts of answers


def body_of(record: Any) -> Any:
    """The answer itself, of a line of a batch's output file."""
    while isinstance(record, dict) and "choices" not in record and isinstance(record.get("response"), dict):
        record = record["response"].get("body", record["response"])
        if isinstance(record, str):
            record = json.loads(record)
    return record


def positions(record: Mapping[str, Any], *, is_prompt: bool) -> Iterator[Position]:
    """The places of an answer that have log-probabilities; the first of a text has none."""
    choices = record.get("choices") or record.get("outputs") or [record]
    if is_prompt:
        for holder in (record, *(choice for choice in choices if choice is not record)):
            if holder.get("prompt_logprobs"):
                ids = holder.get("prompt_token_ids") or record.get("prompt_token_ids")
                yield from by_id(holder["prompt_logprobs"], ids)
        return
    for choice in choices:
        held = choice.get("logprobs")
        if isinstance(held, list):
            yield from by_id(held, choice.get("token_ids"))
        elif held and held.get("content") is not None:
            for place in held["content"]:
                values = {token_of(each): each["logprob"] for each in (*place["top_logprobs"], place)}
                yield token_of(place), likely(values)
        elif held and held.get("tokens"):
            tops = held.get("top_logprobs") or [None] * len(held["tokens"])
            for text, value, top in zip(held["tokens"], held["token_logprobs"], tops, strict=True):
                if value is not None:
                    values = {number_or_text(each): number for each, number in (top or {}).items()}
                    yield number_or_text(text), likely({number_or_text(text): value} | values)


def by_id(places: Sequence[Any], ids: Sequence[int] | None) -> Iterator[Position]:
    """The places of vLLM's own lists: dicts of the tokens' numbers, which may have the tokens that are there beside."""
    tokens: Sequence[int | None] = ids or [None] * len(places)
    for place, token in zip(places, tokens, strict=True):
        if place is not None:
            values: dict[Token, Any] = {
                int(each): v["logprob"] if isinstance(v, dict) else v for each, v in place.items()
            }
            only = next(iter(values)) if len(values) == 1 else None
            yield (only if token is None else int(token)), likely(values)


def likely(values: dict[Token, Any]) -> dict[Token, float]:
    """The log-probabilities that are known."""
    return {token: float(value) for token, value in values.items() if value is not None and not value <= UNLIKELY}


def token_of(place: Mapping[str, Any]) -> Token:
    """The number of a token, or its bytes as text, which tell apart what is no whole character."""
    token = number_or_text(place["token"])
    if isinstance(token, str) and place.get("bytes"):
        return bytes(place["bytes"]).decode("utf-8", "backslashreplace")
    return token


def number_or_text(token: str) -> Token:
    """The number of a token that is written as ``token_id:5``, or its text."""
    return int(token.removeprefix(NUMBERED)) if token.startswith(NUMBERED) else token
