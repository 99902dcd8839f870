"""Where an evaluation runs where its caller does not say, and arrays that a cluster holds."""

import json
import os
import sys
from concurrent.futures import ThreadPoolExecutor

import dask
import dask.array as da
import numpy as np
import pytest
from click.testing import CliRunner
from dask.callbacks import Callback

from xent.cli import main
from xent.evaluation.engine import scheduler_choice
from xent.evaluation.evaluations import compare, evaluate

distributed = pytest.importorskip("distributed", reason="distributed is not installed")

ROWS, CLASSES = 60, 5
LOGITS = np.random.default_rng(0).standard_normal((ROWS, CLASSES)).astype(np.float32)
LABELS = np.arange(ROWS) % CLASSES
EXPECTED = evaluate(LOGITS, LABELS)
HELD = r"`scheduler` must be the Client of the cluster that holds the arrays"


@pytest.fixture(scope="module")
def cluster():
    with distributed.LocalCluster(1, processes=False, dashboard_address="127.0.0.1:0") as local:
        yield local


@pytest.fixture
def client(cluster):
    """The active client of the cluster."""
    with distributed.Client(cluster) as active:
        yield active


def chunks_run(cluster):
    """How many tasks of chunks the cluster has run so far."""
    log = cluster.scheduler.transition_log
    return len({entry[0] for entry in log if isinstance(entry[0], tuple) and entry[0][0] == "xent-chunk"})


class Get:
    """A ``get`` as other packages have for Dask, which counts its calls, and tells Dask's callbacks nothing."""

    calls = 0

    def __call__(self, graph, keys, **options):
        self.calls += 1
        active = Callback.active.copy()
        Callback.active.clear()
        try:
            return dask.get(graph, keys)
        finally:
            Callback.active.update(active)


def test_an_active_client_runs_the_tasks(cluster, client):
    before = chunks_run(cluster)
    found = evaluate(LOGITS, LABELS, chunk_bytes=400)

    assert found == EXPECTED and chunks_run(cluster) == before + 3
    assert found.run.scheduler == cluster.scheduler_address
    assert compare(LOGITS, -LOGITS, LABELS).run.scheduler == cluster.scheduler_address


def test_a_client_that_is_active_for_a_while_runs_the_tasks(cluster):
    with distributed.Client(cluster, set_as_default=False) as other:
        before = chunks_run(cluster)
        assert evaluate(LOGITS, LABELS) == EXPECTED and chunks_run(cluster) == before
        with other.as_current():
            assert evaluate(LOGITS, LABELS) == EXPECTED and chunks_run(cluster) == before + 1


@pytest.mark.parametrize("scheduler", ["threads", "sync", Get()])
def test_a_scheduler_that_is_named_goes_before_the_active_client(cluster, client, scheduler):
    before = chunks_run(cluster)

    assert evaluate(LOGITS, LABELS, scheduler=scheduler) == EXPECTED
    with dask.config.set(scheduler=scheduler):
        assert evaluate(LOGITS, LABELS) == EXPECTED
    assert chunks_run(cluster) == before


@pytest.mark.parametrize("name", ["distributed", "dask.distributed"])
def test_the_active_client_has_a_name(cluster, client, name):
    before = chunks_run(cluster)

    assert evaluate(LOGITS, LABELS, scheduler=name) == EXPECTED and chunks_run(cluster) > before


@pytest.mark.parametrize("name", ["distributed", "dask.distributed"])
def test_without_an_active_client_its_name_is_refused(name):
    with pytest.raises(
        ValueError, match=r"`scheduler` must be one that runs, got 'distributed' and no Client is active"
    ):
        evaluate(LOGITS, LABELS, scheduler=name)


@pytest.mark.parametrize(
    ("name", "shown"),
    [("synchronous", "sync"), ("single-threaded", "sync"), ("sync", "sync"), ("Threading", "threads")],
)
def test_the_names_of_dasks_configuration_are_honoured(name, shown, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    np.save("x.npy", LOGITS)
    np.save("y.npy", LABELS)
    with dask.config.set(scheduler=name):
        found = evaluate(LOGITS, LABELS)
        made = CliRunner().invoke(main, ["evaluate", "x.npy", "y.npy", "--json", "-q"])

    assert found == EXPECTED and found.run.scheduler == shown
    assert json.loads(made.stdout)["options"]["scheduler"] == shown


def test_a_name_that_is_none_is_refused_in_the_configuration_too(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    np.save("x.npy", LOGITS)
    np.save("y.npy", LABELS)
    with dask.config.set(scheduler="nope"):
        made = CliRunner().invoke(main, ["evaluate", "x.npy", "y.npy", "-q"])
        with pytest.raises(ValueError, match=r"`scheduler` must be None, .* got 'nope'"):
            evaluate(LOGITS, LABELS)

    assert made.exit_code == 2 and made.stderr.count("\n") == 1 and "got nope" in made.stderr


@pytest.mark.parametrize("is_configured", [False, True])
def test_a_get_is_called_and_every_row_is_told(is_configured):
    get, told = Get(), []
    with dask.config.set(scheduler=get if is_configured else "sync"):
        found = evaluate(
            LOGITS,
            LABELS,
            chunk_bytes=400,
            scheduler=None if is_configured else get,
            progress=told.append,
            fit_temperature=True,
        )

    assert get.calls == found.temperature.passes and told == [20, 20, 20]
    assert found.mean_loss == EXPECTED.mean_loss and found.run.scheduler == "Get"


def test_an_executor_of_the_configuration_runs_the_tasks():
    with ThreadPoolExecutor(2, thread_name_prefix="own") as pool, dask.config.set(scheduler=pool):
        assert evaluate(LOGITS, LABELS, chunk_bytes=400) == EXPECTED
        assert any(thread.name.startswith("own") for thread in pool._threads)


# -------------------- arrays that a cluster holds


def lazy(chunks=(20, CLASSES)):
    return da.from_array(LOGITS, chunks=chunks), da.from_array(LABELS, chunks=chunks[0])


HELD_ARRAYS = {
    "predictions": lambda x, y: (x.persist(), LABELS),
    "labels": lambda x, y: (LOGITS, y.persist()),
    "both": lambda x, y: (x.persist(), y.persist()),
    "made of them": lambda x, y: (x.persist() * 1, y.persist() * 1),
    "other chunks": lambda x, y: (x.persist().rechunk((15, CLASSES)), y),
}


@pytest.mark.parametrize("held", HELD_ARRAYS)
def test_arrays_that_a_cluster_holds_are_evaluated_there(client, held):
    x, y = HELD_ARRAYS[held](*lazy())

    assert evaluate(x, y) == evaluate(x, y, scheduler=client) == EXPECTED
    assert compare(x, LOGITS, y).a == EXPECTED
    assert evaluate(x, y, slices=y).slices.keys() == set(range(CLASSES))


def test_arrays_that_a_cluster_holds_may_be_cut_along_their_classes(client):
    x, y = lazy((20, 3))
    expected = evaluate(x, y)

    for held in ((x.persist(), LABELS), (x.persist() * 1, y.persist())):
        assert evaluate(*held) == expected


def test_blocks_that_a_cluster_holds_are_evaluated(client):
    x, y = (array.persist() for array in lazy())

    assert evaluate((x[i : i + 20], y[i : i + 20]) for i in range(0, ROWS, 20)).mean_loss == EXPECTED.mean_loss


@pytest.mark.parametrize("scheduler", ["threads", "sync", Get(), "another client"])
def test_arrays_that_a_cluster_holds_need_its_client(cluster, client, scheduler):
    x, y = lazy()
    with distributed.Client(cluster, set_as_default=False) as another:
        scheduler = another if scheduler == "another client" else scheduler
        for held in ((x.persist(), y), (x, y.persist() * 1), (lazy((20, 3))[0].persist(), y)):
            with pytest.raises(ValueError, match=HELD):
                evaluate(*held, scheduler=scheduler)


def test_dask_is_imported_only_where_something_may_have_configured_it(monkeypatch, tmp_path):
    for name in [name for name in os.environ if name.startswith("DASK_")]:
        monkeypatch.delenv(name)
    monkeypatch.setattr(scheduler_choice, "folders", lambda: [tmp_path / "dask"])
    monkeypatch.setattr(scheduler_choice, "require", lambda *_: pytest.fail("Dask would be imported"))
    monkeypatch.delitem(sys.modules, "dask")

    assert scheduler_choice.configured("num_workers") is None
    assert scheduler_choice.chosen(None) == "threads"
    with pytest.raises(pytest.fail.Exception, match="Dask would be imported"), monkeypatch.context() as variable:
        variable.setenv("DASK_NUM_WORKERS", "3")
        scheduler_choice.configured("num_workers")
    (tmp_path / "dask").mkdir()
    with pytest.raises(pytest.fail.Exception, match="Dask would be imported"):
        scheduler_choice.configured("num_workers")


def test_the_folders_of_dasks_configuration_are_those_that_dask_reads(monkeypatch):
    for name in ("DASK_ROOT_CONFIG", "DASK_CONFIG"):
        monkeypatch.delenv(name, raising=False)

    assert {*scheduler_choice.folders()} == {*dask.config._get_paths()}
