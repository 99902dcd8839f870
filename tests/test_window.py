"""The window of a pass: how much of its work is under way at once, and what is made of all of it."""

import pickle

import dask
import dask.array as da
import numpy as np
import pytest

from xent.evaluation.engine import clusters, schedulers
from xent.evaluation.engine.evaluate_pass import plan
from xent.evaluation.engine.work import Fold, Work
from xent.evaluation.evaluations import evaluate
from xent.evaluation.options import Options
from xent.evaluation.sources.hidden_states import Head
from xent.evaluation.statistics.state import State

ROWS, CLASSES = 507, 3
LOGITS = np.random.default_rng(0).standard_normal((ROWS, CLASSES)).astype(np.float32)
LABELS = np.arange(ROWS) % CLASSES
EXPECTED = evaluate(LOGITS, LABELS)
OF_THREE_ROWS = {"chunk_bytes": 36}


class Counted:
    """How many groups have been made, and how many of their states have been folded; the most between the two."""

    def __init__(self, monkeypatch):
        self.made = self.folded = self.most = 0
        groups, add = Work.groups, Fold.add

        def made(work, threads):
            for group in groups(work, threads):
                self.made += 1
                self.most = max(self.most, self.made - self.folded)
                yield group

        def folded(fold, state):
            self.folded += 1
            add(fold, state)

        monkeypatch.setattr(Work, "groups", made)
        monkeypatch.setattr(Fold, "add", folded)


@pytest.fixture
def counted(monkeypatch):
    return Counted(monkeypatch)


@pytest.fixture(scope="module")
def client():
    distributed = pytest.importorskip("distributed", reason="distributed is not installed")
    with (
        distributed.LocalCluster(1, threads_per_worker=2, processes=False, dashboard_address="127.0.0.1:0") as local,
        distributed.Client(local, set_as_default=False) as it,
    ):
        yield it


@pytest.mark.parametrize("threads", [1, 3])
def test_threads_have_a_few_groups_each_whatever_the_number_of_chunks(counted, threads):
    with dask.config.set(num_workers=threads):
        assert evaluate(LOGITS, LABELS, scheduler="threads", **OF_THREE_ROWS) == EXPECTED

    assert counted.folded == counted.made > 10 and counted.most <= 2 * threads + 1


def test_a_cluster_has_a_few_groups_whatever_the_number_of_chunks(counted, monkeypatch, client):
    monkeypatch.setattr(clusters, "LEAST_WINDOW", 4)
    told = []

    assert evaluate(LOGITS, LABELS, scheduler=client, progress=told.append, **OF_THREE_ROWS) == EXPECTED
    assert told == [3] * (ROWS // 3)
    assert counted.folded == counted.made > 10 and counted.most <= 4


def test_nothing_of_a_run_is_left_on_its_cluster(client):
    assert evaluate(LOGITS, LABELS, scheduler=client, **OF_THREE_ROWS) == EXPECTED
    with pytest.raises(ValueError, match="labels"):
        evaluate(LOGITS, np.full(ROWS, 9), scheduler=client, **OF_THREE_ROWS)

    def left(dask_scheduler):
        return [key for key in dask_scheduler.tasks if "xent" in str(key)]

    for _ in range(100):
        if not client.run_on_scheduler(left):
            break
    assert not client.run_on_scheduler(left)


@pytest.mark.parametrize("scheduler", ["threads", "sync", "client"])
def test_a_graph_is_made_only_of_rows_that_dask_makes(monkeypatch, client, scheduler):
    scheduler = client if scheduler == "client" else scheduler

    def refused(*_):
        raise AssertionError("a graph was made")

    monkeypatch.setattr(Work, "graph", refused)

    assert evaluate(LOGITS, LABELS, scheduler=scheduler, **OF_THREE_ROWS) == EXPECTED
    with pytest.raises(AssertionError, match="a graph was made"):
        evaluate(da.from_array(LOGITS, chunks=(100, -1)), LABELS, scheduler=scheduler)


@pytest.mark.parametrize("batch", [7, 4096])
def test_a_get_is_given_graphs_of_a_few_chunks(monkeypatch, batch):
    monkeypatch.setattr(schedulers, "BATCH_CHUNKS", batch)
    sizes, told = [], []

    def get(graph, root, **_):
        sizes.append(sum(key[0] == "xent-chunk" for key in graph))
        return dask.get(graph, root)

    assert evaluate(LOGITS, LABELS, scheduler=get, progress=told.append, chunk_bytes=12 * 20) == EXPECTED
    assert sizes == ([7, 7, 7, 5] if batch == 7 else [26]) and sum(told) == ROWS


@pytest.mark.parametrize("states", [0, 1, 15, 16, 17, 300])
def test_a_fold_is_of_all_states_in_any_order_and_keeps_few(states):
    fold = Fold()
    for number in np.random.default_rng(0).permutation(states).tolist():
        fold.add(State(rows=number, ranks={number: 1}))
        assert all(len(level) < 16 for level in fold.levels)

    assert fold.state() == State(rows=sum(range(states)), ranks=dict.fromkeys(range(states), 1))


def test_what_all_groups_share_is_in_none_of_them(tmp_path, client):
    hidden = np.random.default_rng(1).standard_normal((ROWS, 4)).astype(np.float32)
    classifier = np.random.default_rng(2).standard_normal((CLASSES, 4)).astype(np.float32)
    np.save(tmp_path / "h.npy", hidden)
    head, names = Head(classifier), ["a" * 5000, "b", "c"]
    text = np.asarray(names)[LABELS]
    np.save(tmp_path / "y.npy", LABELS)
    work = plan(tmp_path / "h.npy", text, Options(chunk_bytes=1), head=head, class_names=names).work()
    groups = [*work.groups(2)]

    assert len(work.shared) == 2  # the classifier, and the numbers of the names
    assert max(len(pickle.dumps(group.parts[0])) for group in groups) < 1000
    expected = evaluate(hidden, LABELS, classifier=classifier)
    assert evaluate(tmp_path / "h.npy", LABELS, classifier=classifier, scheduler=client, chunk_bytes=300) == expected


def test_groups_hold_few_bytes_and_every_thread_gets_some():
    planned = plan(np.zeros((4000, 2)), np.zeros(4000, int), Options(chunk_bytes=16 * 100))
    assert planned.tasks == 40
    sizes = [len(group.bounds) - 1 for group in planned.work().groups(2)]
    assert sum(sizes) == 40 and max(sizes) == 5
    rows = plan(np.broadcast_to(np.float32(0), (4096, 2**13)), np.zeros(4096, int), Options(chunk_bytes=2**24))

    assert [len(group.bounds) - 1 for group in rows.work().groups(1)] == [2] * 4
    assert rows.tasks == 8
