"""The environment and ``xent.using``: what the user asks of dispatch."""

import asyncio
import concurrent.futures
import os
import pickle
import subprocess
import sys

import numpy as np
import pytest
from toy_kernels import logits

import xent
from xent.dispatch import settings
from xent.dispatch.settings import read_environment


@pytest.fixture
def environment():
    """Reads an environment for one test, then the real one again."""
    yield lambda **variables: read_environment(variables).settings
    read_environment()


def test_the_environment_is_read_into_settings(environment):
    found = environment(XENT_PREFER="a, b", XENT_DISABLE="c", XENT_KERNEL="d", XENT_THREADS="3", XENT_VALIDATE="never")

    assert found == settings.Settings(("a", "b"), frozenset({"c"}), "d", 3, "never")


def test_an_empty_environment_asks_for_nothing(environment):
    assert environment() == settings.Settings()


@pytest.mark.parametrize("text", ["0", "-1", "two", "1.5"])
def test_a_number_of_threads_that_is_none_is_refused(environment, text):
    with pytest.raises(ValueError, match="`XENT_THREADS` must be a positive integer"):
        environment(XENT_THREADS=text)


def test_an_unknown_validation_is_refused(environment):
    with pytest.raises(ValueError, match="`XENT_VALIDATE` must be"):
        environment(XENT_VALIDATE="maybe")


@pytest.mark.parametrize(("text", "traced"), [("1", True), ("on", True), ("0", False), ("False", False), ("", False)])
def test_a_switch_is_on_or_off(environment, text, traced):
    environment(XENT_TRACE=text)

    assert (settings.scopes.default.sink is not None) is traced


def test_a_switch_that_is_neither_on_nor_off_warns(environment):
    with pytest.warns(xent.PluginWarning, match="XENT_TRACE='perhaps' is neither on nor off"):
        environment(XENT_TRACE="perhaps")


def test_tracing_by_the_environment_prints_each_decision_once(environment, capsys):
    environment(XENT_TRACE="1")
    for _ in range(3):
        xent.sparse_cross_entropy(*logits())

    assert capsys.readouterr().err.count("-> numpy") == 1


def test_a_decision_that_took_another_time_is_not_printed_again(environment, capsys):
    environment(XENT_TRACE="1")
    for _ in range(3):
        settings.forget_plans()
        xent.sparse_cross_entropy(*logits())

    assert capsys.readouterr().err.count("-> numpy") == 1


def test_the_environment_is_read_at_the_first_call_and_not_at_import():
    code = """
import os, numpy as np, xent
os.environ["XENT_KERNEL"] = "generic"
with xent.using(trace=True) as decisions:
    xent.sparse_cross_entropy(np.zeros((1, 4)), np.asarray([2]))
assert decisions[0].kernel == "generic"
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60, env={**os.environ, "XENT_KERNEL": ""})


def test_contexts_nest_and_keep_what_the_inner_one_does_not_name():
    with xent.using(threads=2), xent.using(validate="never"):
        inner = settings.current().settings
    outer = settings.current().settings

    assert (inner.threads, inner.validate, outer.threads, outer.validate) == (2, "never", None, "auto")


def test_a_context_ends_with_an_error_too():
    with pytest.raises(KeyError), xent.using(threads=2):
        raise KeyError

    assert settings.current().settings.threads is None


def test_using_is_a_decorator():
    @xent.using(kernel="generic")
    def kernel():
        return xent.explain(xent.sparse_cross_entropy, *logits()).kernel

    assert (kernel(), xent.explain(xent.sparse_cross_entropy, *logits()).kernel) == ("generic", "numpy")


def test_a_decorated_function_may_run_in_many_threads_at_once():
    @xent.using(kernel="generic")
    def kernel(_):
        return xent.explain(xent.sparse_cross_entropy, *logits()).kernel

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        assert set(pool.map(kernel, range(64))) == {"generic"}


def test_tasks_of_one_thread_each_have_their_own_context():
    async def kernel(name):
        with xent.using(kernel=name):
            await asyncio.sleep(0)
            return xent.explain(xent.sparse_cross_entropy, *logits()).kernel

    async def both():
        return await asyncio.gather(kernel("numpy"), kernel("generic"))

    assert asyncio.run(both()) == ["numpy", "generic"]


def test_validation_never_gives_nan_and_leaves_the_other_rows_alone():
    x, y = logits()
    with xent.using(validate="never"):
        loss = xent.sparse_cross_entropy(x, np.where(np.arange(7) == 3, 99, y))

    assert np.isnan(loss).tolist() == [False] * 3 + [True] + [False] * 3


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"validate": "maybe"}, "`validate` must be"),
        ({"threads": 0}, "`threads` must be"),
        ({"threads": True}, "`threads`"),
    ],
)
def test_wishes_that_make_no_sense_are_refused(keywords, message):
    with pytest.raises(ValueError, match=message):
        xent.using(**keywords)


def test_settings_survive_pickling():
    with xent.using(prefer="a", disable=["b"], threads=2):
        found = settings.current().settings

    assert pickle.loads(pickle.dumps(found)) == found


def test_errors_survive_pickling():
    with pytest.raises(xent.LabelError) as caught:
        xent.sparse_cross_entropy(np.zeros((2, 3)), np.asarray([0, 7]))
    again = pickle.loads(pickle.dumps(caught.value))

    assert (str(again), again.count, again.position, again.value) == (str(caught.value), 1, (1,), 7)
