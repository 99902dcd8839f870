"""Answers of vLLM and of OpenAI's API: the numbers of their log-probabilities, and which answers say too little."""

import gzip
import json
import re

import cloudpickle
import numpy as np
import pytest
from click.testing import CliRunner
from sklearn.metrics import log_loss

from xent.cli import main
from xent.evaluation.engine.evaluate_pass import plan
from xent.evaluation.evaluations import evaluate
from xent.evaluation.options import Options
from xent.evaluation.sources.messages import MalformedError, ReadError, SeveralArrays
from xent.evaluation.sources.opening import open_source
from xent.evaluation.sources.responses import UNLIKELY
from xent.evaluation.sources.topk import TopK

CLASSES, K = 11, 3
TEXTS = [" a", "b\n", '"', "größer", "\u6839", " ", "7", "<s>", "�", "e", "�"]
BYTES = [[*text.encode()] for text in TEXTS[:-1]] + [[0xE6, 0xA0]]
"""The last is a part of a character, and is shown as the eighth is."""


@pytest.fixture
def requests():
    """For each of twelve requests the tokens and the log-probabilities of all classes at each of them."""
    values = np.random.default_rng(4)
    made = []
    for length in [3, 1, 5, 4, 2, 6, 3, 3, 1, 7, 2, 4]:
        logits = 2 * values.normal(size=(length, CLASSES))
        log_p = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
        made.append((values.integers(0, CLASSES, length), log_p))
    return made


def best(log_p, token, *, order=lambda entries: entries):
    """The K likeliest and the token itself, as vLLM and OpenAI have them."""
    ids = [*np.argsort(-log_p)[:K].tolist()]
    return order([*ids, *([int(token)] if token not in ids else [])])


def chat(tokens, log_p, name):
    content = []
    for token, row in zip(tokens.tolist(), log_p.tolist(), strict=True):
        tops = [
            {"token": name(i), "bytes": BYTES[i], "logprob": row[i]} for i in np.argsort(-np.asarray(row))[:K].tolist()
        ]
        content.append({"token": name(token), "bytes": BYTES[token], "logprob": row[token], "top_logprobs": tops})
    return {"object": "chat.completion", "choices": [{"index": 0, "logprobs": {"content": content, "refusal": None}}]}


def completion(tokens, log_p, name):
    tops = [{name(i): row[i] for i in best(row, token)} for token, row in zip(tokens, log_p, strict=True)]
    chosen = [row[token] for token, row in zip(tokens, log_p, strict=True)]
    held = {"tokens": [name(token) for token in tokens], "token_logprobs": chosen, "top_logprobs": tops}
    return {
        "object": "text_completion",
        "choices": [{"text": "", "logprobs": held | {"text_offset": [0] * len(tokens)}}],
    }


def by_id(tokens, log_p, **_):
    return [
        {str(i): {"logprob": row[i], "rank": 1, "decoded_token": TEXTS[i]} for i in best(row, token)}
        for token, row in zip(tokens, log_p, strict=True)
    ]


def numbered(token):
    return f"token_id:{token}"


def text(token):
    return TEXTS[token]


ANSWERS = {
    "chat": lambda tokens, log_p: chat(tokens, log_p, text),
    "chat of numbers": lambda tokens, log_p: chat(tokens, log_p, numbered),
    "completions": lambda tokens, log_p: completion(tokens, log_p, numbered),
    "a batch": lambda tokens, log_p: {
        "custom_id": "x",
        "response": {"status_code": 200, "body": chat(tokens, log_p, text)},
        "error": None,
    },
    "vLLM's outputs": lambda tokens, log_p: {
        "prompt": "",
        "outputs": [{"token_ids": tokens.tolist(), "logprobs": by_id(tokens, log_p)}],
    },
    "several choices": lambda tokens, log_p: {
        "choices": [
            choice
            for i in range(len(tokens))
            for choice in chat(tokens[i : i + 1], log_p[i : i + 1], numbered)["choices"]
        ]
    },
}
PROMPTS = {
    "prompts of completions": lambda tokens, log_p: {
        "choices": [
            {
                "text": "",
                "logprobs": None,
                "prompt_logprobs": [None, *by_id(tokens, log_p)],
                "prompt_token_ids": [7, *tokens.tolist()],
            }
        ]
    },
    "prompts of chat": lambda tokens, log_p: {
        **chat(tokens, log_p, numbered),
        "prompt_logprobs": [None, *by_id(tokens, log_p)],
        "prompt_token_ids": [7, *tokens.tolist()],
    },
    "prompts of vLLM": lambda tokens, log_p: {
        "prompt_token_ids": [7, *tokens.tolist()],
        "prompt_logprobs": [None, *by_id(tokens, log_p)],
        "outputs": [{"token_ids": [1], "logprobs": None}],
    },
}


def write(path, requests, answer):
    data = "".join(json.dumps(answer(*request)) + "\n" for request in requests).encode()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


def evaluated(path, prefix="", tail="error", **options):
    top = TopK(f"{path}#{prefix}ids", f"{path}#{prefix}logprobs", CLASSES, tail)
    return evaluate(top, f"{path}#{prefix}tokens", **options)


def losses(requests):
    return [-row[token] for tokens, log_p in requests for token, row in zip(tokens, log_p, strict=True)]


@pytest.mark.parametrize("kind", [*ANSWERS, *PROMPTS])
def test_the_loss_is_that_of_scikit_learn(tmp_path, requests, kind):
    path = write(tmp_path / "x.jsonl", requests, {**ANSWERS, **PROMPTS}[kind])
    made = evaluated(path, "prompt_" * (kind in PROMPTS), chunk_bytes=100, top_k=3)
    tokens, log_p = (np.concatenate(each) for each in zip(*requests, strict=True))

    assert made.mean_loss == pytest.approx(log_loss(tokens, np.exp(log_p), labels=range(CLASSES)), rel=1e-12)
    assert made.counted == len(tokens)
    assert made.accuracy == pytest.approx((log_p.argmax(axis=1) == tokens).mean())


@pytest.mark.parametrize("kind", ["chat of numbers", "vLLM's outputs"])
def test_numbers_of_tokens_stay_and_the_rest_shares_what_is_left(tmp_path, requests, kind):
    path = write(tmp_path / "x.jsonl.gz", requests, ANSWERS[kind])
    tokens, log_p = (np.concatenate(each) for each in zip(*requests, strict=True))
    dense = log_p.copy()
    for row, token, full in zip(dense, tokens, log_p, strict=True):
        ids = best(full, token)
        rest = [i for i in range(CLASSES) if i not in ids]
        row[rest] = np.log1p(-np.exp(full[ids]).sum()) - np.log(len(rest))
    made, expected = (
        evaluated(path, tail="uniform", top_k=(2, 9)),
        evaluate(dense, tokens, kind="log_probabilities", top_k=(2, 9)),
    )

    np.testing.assert_array_equal(open_source(f"{path}#tokens", "labels").read(0, len(tokens)), tokens)
    for name, metric in expected.metrics.items():
        assert made.metrics[name].value == pytest.approx(metric.value, rel=1e-11), name


def test_texts_are_numbered_as_they_come_and_told_apart_by_their_bytes(tmp_path):
    log_p = np.log(np.full((2, CLASSES), 0.05))
    log_p[:, [8, 10]] = np.log(0.3), np.log(0.25)
    path = write(tmp_path / "x.jsonl", [(np.array([10, 8]), log_p)], ANSWERS["chat"])

    assert open_source(f"{path}#tokens", "labels").read(0, 2).tolist() == [1, 0]
    assert open_source(f"{path}#ids", "predictions").read(0, 1)[0, :2].tolist() == [0, 1]


def test_requests_are_clusters_and_the_arrays_are_listed(tmp_path, requests):
    path = write(tmp_path / "x.jsonl", requests, PROMPTS["prompts of chat"])
    made = evaluated(path, clusters=f"{path}#requests", chunk_bytes=100)
    values, groups = np.array(losses(requests)), np.repeat(np.arange(12), [len(tokens) for tokens, _ in requests])
    sums = np.bincount(groups, values - values.mean())

    assert made.clusters == 12
    assert made.standard_error == pytest.approx(np.sqrt(12 / 11 * (sums**2).sum()) / len(values), rel=1e-12)
    with pytest.raises(
        SeveralArrays, match="logprobs, ids, tokens, requests, prompt_logprobs, prompt_ids, prompt_tokens"
    ):
        open_source(path, "predictions")


def test_the_command_line_takes_them(tmp_path, requests):
    path = write(tmp_path / "x.jsonl", requests, ANSWERS["chat"])
    words = [
        "evaluate",
        f"{path}#logprobs",
        f"{path}#tokens",
        "--ids",
        f"{path}#ids",
        "--classes",
        str(CLASSES),
        "-q",
        "--json",
    ]
    made = CliRunner().invoke(main, words)

    assert made.exit_code == 0, made.stderr
    assert json.loads(made.stdout)["metrics"]["loss"]["value"] == pytest.approx(np.mean(losses(requests)), rel=1e-12)
    listed = CliRunner().invoke(main, ["inspect", str(path)])
    assert listed.exit_code == 0 and "#requests" in listed.stdout


def test_no_graph_holds_data(tmp_path, requests):
    path = write(tmp_path / "x.jsonl", requests, ANSWERS["chat"])
    top = TopK(f"{path}#ids", f"{path}#logprobs", CLASSES)
    planned = plan(top, f"{path}#tokens", Options(chunk_bytes=80))

    assert planned.tasks > 10 and len(cloudpickle.dumps(planned.work().graph()[0])) <= 10_000 + 2000 * planned.tasks


def test_what_is_too_unlikely_to_be_said_is_not_known(tmp_path, requests):
    tokens, log_p = np.array([0, 1]), np.log(np.full((2, CLASSES), 0.09))
    log_p[0, 0] = UNLIKELY
    path = write(tmp_path / "x.jsonl", [(tokens, log_p)], ANSWERS["chat of numbers"])

    with pytest.raises(ValueError, match="must be among the ids of their rows, got 1 that"):
        evaluated(path)
    assert evaluated(path, tail="skip").mean_loss == pytest.approx(-np.log(0.09))


def test_answers_without_log_probabilities_and_lines_of_errors_have_no_rows(tmp_path, requests):
    path = write(tmp_path / "x.jsonl", requests, ANSWERS["a batch"])
    every = path.read_text().splitlines()
    failed = json.dumps({"custom_id": "y", "response": None, "error": {"message": "spam"}})
    path.write_text("\n".join([every[0], failed, '{"choices": [{"logprobs": null}]}', *every[1:]]))

    assert evaluated(path).mean_loss == pytest.approx(np.mean(losses(requests)), rel=1e-12)


def refused(path, name, message, error):
    with pytest.raises(error, match=message) as raised:
        open_source(f"{path}#{name}", "labels")
    assert "\n" not in str(raised.value)


def test_answers_that_say_too_little_are_refused_with_what_to_ask_for(tmp_path, requests):
    def without(answer, *keys):
        return {key: value for key, value in answer.items() if key not in keys}

    path = write(tmp_path / "none.jsonl", requests, lambda *_: {"choices": [{"logprobs": None}]})
    refused(
        path,
        "tokens",
        r"must have log-probabilities, got .*whose answers have none\. Ask the server for logprobs",
        ValueError,
    )
    path = write(
        tmp_path / "unsaid.jsonl",
        requests,
        lambda *each: without(PROMPTS["prompts of chat"](*each), "prompt_token_ids"),
    )
    refused(
        path,
        "prompt_tokens",
        r"must say which token is in each place.*return_token_ids, or pass your own labels",
        ValueError,
    )
    path = write(tmp_path / "mixed.jsonl", requests, ANSWERS["chat"])
    path.write_text(path.read_text().replace(json.dumps(" a"), '"token_id:3"'))
    path.write_text(re.sub(r'"token_id:3", "bytes": \[[^]]*\]', '"token_id:3"', path.read_text()))
    refused(path, "tokens", r"must have tokens that are numbers, or text, throughout", MalformedError)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"logprob": -', '"logprob": "-', r"could not be read"),
        ('"top_logprobs"', '"tops"', r"could not be read \(KeyError: 'top_logprobs'\)"),
        ('"content": [', '"content": 5, "x": [', r"could not be read \(TypeError"),
        ('{"object"', '{{"object"', r"could not be read \(JSONDecodeError"),
        ('"choices": [', '"choices": ["spam", ', r"could not be read \(AttributeError"),
    ],
)
def test_a_line_that_is_no_answer_is_named(tmp_path, requests, old, new, message):
    path = write(tmp_path / "x.jsonl", requests, ANSWERS["chat"])
    every = path.read_text().splitlines()
    every[7] = every[7].replace(old, new, 1)
    path.write_text("\n".join(every))
    refused(path, "tokens", rf"line 8 of .*x\.jsonl {message}", ReadError)
    words = ["evaluate", f"{path}#logprobs", f"{path}#tokens", "--ids", f"{path}#ids", "--classes", str(CLASSES), "-q"]
    made = CliRunner().invoke(main, words)

    assert made.exit_code == 3 and made.stderr.count("\n") == 1


def test_rows_of_other_json_that_have_choices_are_a_table(tmp_path):
    path = tmp_path / "x.jsonl"
    path.write_text('{"question": "?", "choices": ["a", "b"], "x": [0.5, 1.5], "answer": 1}\n')

    assert open_source(f"{path}#x", "predictions").read(0, 1).tolist() == [[0.5, 1.5]]
