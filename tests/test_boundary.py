"""Nothing outside of a set is read: what a set names by itself, in every format, and how its owner allows it."""

import json
import os
import shutil
import socket
from pathlib import Path

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zarr
from click.testing import CliRunner

from xent.cli import main
from xent.evaluation.evaluations import compare, evaluate
from xent.evaluation.sources import hdf5_parts
from xent.evaluation.sources.messages import MalformedError, ReadError
from xent.evaluation.sources.opening import open_source

ROWS, CLASSES = 60, 5
LOGITS = np.random.default_rng(0).standard_normal((ROWS, CLASSES)).astype(np.float32)
LABELS = np.arange(ROWS) % CLASSES
EXPECTED = evaluate(LOGITS, LABELS)


@pytest.fixture
def outside(tmp_path, monkeypatch):
    """A folder with what a set must not read; the current folder is another one, of the set."""
    (tmp_path / "outside").mkdir()
    (tmp_path / "set").mkdir()
    monkeypatch.chdir(tmp_path / "set")
    folder = tmp_path / "outside"
    np.save(folder / "x.npy", LOGITS)
    (folder / "x.bin").write_bytes(LOGITS.tobytes())
    zarr.create_array(folder / "x.zarr", data=LOGITS, chunks=(20, CLASSES))
    with h5py.File(folder / "x.h5", "w") as file:
        file["x"] = LOGITS
    np.save("y.npy", LABELS)
    return folder


def virtual(path, *sources, rows=ROWS, name="x"):
    """A virtual dataset at the path, made of the files, one after the other."""
    layout = h5py.VirtualLayout((ROWS, CLASSES), "f4")
    edges = np.linspace(0, rows, len(sources) + 1).astype(int)
    for source, start, stop in zip(sources, edges, edges[1:], strict=False):
        layout[start:stop] = h5py.VirtualSource(str(source), name, (ROWS, CLASSES))[start:stop]
    with h5py.File(path, "w") as file:
        file.create_virtual_dataset("x", layout)
    return path


def raw_storage(outside):
    with h5py.File("s.h5", "w") as file:
        file.create_dataset("x", LOGITS.shape, "f4", external=[(str(outside / "x.bin"), 0, LOGITS.nbytes)])
    return "s.h5"


def linked_file(outside):
    with h5py.File("s.h5", "w") as file:
        file["x"] = h5py.ExternalLink(str(outside / "x.h5"), "/x")
    return "s.h5#x"


def soft_link_to_a_linked_group(outside):
    with h5py.File("s.h5", "w") as file:
        file["elsewhere"] = h5py.ExternalLink(str(outside / "x.h5"), "/")
        file["run/x"] = h5py.SoftLink("/elsewhere/x")
    return "s.h5#run/x"


def virtual_source(outside):
    return virtual("s.h5", outside / "x.h5")


def virtual_source_above(outside):
    return virtual("s.h5", "../outside/x.h5")


def virtual_source_by_a_symbolic_link(outside):
    os.symlink(outside / "x.h5", "part.h5")
    return virtual("s.h5", "part.h5")


def virtual_source_of_raw_storage(outside):
    shutil.move(raw_storage(outside), "part.h5")
    return virtual("s.h5", "part.h5")


def virtual_source_that_links(outside):
    linked_file(outside)
    shutil.move("s.h5", "part.h5")
    return virtual("s.h5", "part.h5")


def zarr_chunk(outside):
    zarr.create_array("s.zarr", data=LOGITS, chunks=(20, CLASSES))
    shutil.move("s.zarr/c/1/0", outside / "chunk")
    os.symlink(outside / "chunk", "s.zarr/c/1/0")
    return "s.zarr"


def zarr_metadata(outside):
    zarr.create_array("s.zarr", data=LOGITS, zarr_format=2)
    shutil.move("s.zarr/.zarray", outside / "zarray")
    os.symlink(outside / "zarray", "s.zarr/.zarray")
    return "s.zarr"


def zarr_folder_of_chunks(outside):
    zarr.create_array("s.zarr", data=LOGITS, chunks=(20, CLASSES))
    shutil.rmtree("s.zarr/c")
    os.symlink(outside / "x.zarr" / "c", "s.zarr/c")
    return "s.zarr"


def zarr_array_of_a_group(outside):
    zarr.create_group("s.zarr")
    os.symlink(outside / "x.zarr", "s.zarr/x")
    return "s.zarr#x"


def member_of_a_folder(outside):
    os.mkdir("parts")
    os.symlink(outside / "x.npy", "parts/a.npy")
    return "parts"


def match_of_a_glob(outside):
    return member_of_a_folder(outside) + "/*.npy"


def match_in_a_linked_folder(outside):
    os.mkdir("parts")
    os.symlink(outside, "parts/a")
    return "parts/*/x.npy"


WAYS_OUT = [
    raw_storage,
    linked_file,
    soft_link_to_a_linked_group,
    virtual_source,
    virtual_source_above,
    virtual_source_by_a_symbolic_link,
    virtual_source_of_raw_storage,
    virtual_source_that_links,
    zarr_chunk,
    zarr_metadata,
    zarr_folder_of_chunks,
    zarr_array_of_a_group,
    member_of_a_folder,
    match_of_a_glob,
    match_in_a_linked_folder,
]


@pytest.mark.parametrize("way_out", WAYS_OUT)
def test_what_leads_out_of_a_set_is_refused_by_name_and_read_where_the_owner_allows_it(outside, way_out):
    path = way_out(outside)
    with pytest.raises(MalformedError, match=rf"must lie in files of its own, got .*{outside}.* allow_outside="):
        open_source(path, "predictions")
    for others in ((), Path.cwd()):
        with pytest.raises(MalformedError, match=f"must lie in files of its own, got .*{outside}"):
            evaluate(path, LABELS, allow_outside=others)

    assert evaluate(path, LABELS, allow_outside=outside) == EXPECTED
    assert evaluate(path, LABELS, allow_outside=[Path.cwd(), outside.parent]) == EXPECTED


@pytest.mark.parametrize("way_out", WAYS_OUT)
def test_what_lies_outside_is_refused_before_a_byte_of_it_is_read(outside, way_out):
    path = way_out(outside)
    for file in filter(Path.is_file, outside.rglob("*")):
        file.write_bytes(b"nothing that can be read")  # which would be another error

    with pytest.raises(MalformedError, match="must lie in files of its own"):
        evaluate(path, LABELS)


@pytest.mark.parametrize("argument", ["labels", "slices", "clusters"])
def test_no_other_argument_leads_out_of_its_set(outside, argument):
    (outside / "secret").write_bytes(bytes(range(ROWS)))
    with h5py.File("s.h5", "w") as file:
        file.create_dataset("s", (ROWS,), "u1", external=[(str(outside / "secret"), 0, ROWS)])

    with pytest.raises(MalformedError, match=rf"`{argument}` must lie in files of its own, .*secret"):
        evaluate(LOGITS, **{"labels": LABELS, argument: "s.h5"})
    with pytest.raises(MalformedError, match=r"must lie in files of its own, .*secret"):
        compare(LOGITS, LOGITS, **{"labels": LABELS, argument: "s.h5"})


def test_the_command_line_refuses_with_3_and_takes_the_remedy_that_it_names(outside):
    path = virtual_source(outside)
    for command in (["inspect", path], ["evaluate", path, "y.npy"], ["compare", path, path, "y.npy"]):
        refused, remedy = CliRunner().invoke(main, command), ["--allow-outside", str(outside)]

        assert refused.exit_code == 3 and refused.stderr.count("\n") == 1 and " ".join(remedy) in refused.stderr
        assert CliRunner().invoke(main, [*command, *remedy]).exit_code == 0


def test_a_folder_that_is_allowed_must_be_there(outside):
    with pytest.raises(ValueError, match=r"`allow_outside` must be folders, got 'nope'"):
        evaluate(LOGITS, LABELS, allow_outside="nope")


def test_a_link_that_the_user_names_is_his_choice(outside):
    for suffix in ("npy", "zarr", "h5"):
        os.symlink(outside / f"x.{suffix}", f"mine.{suffix}")

        assert evaluate(f"mine.{suffix}", LABELS) == EXPECTED


def test_links_inside_of_a_set_are_followed(outside):
    zarr.create_group("s.zarr").create_array("a", data=LOGITS, chunks=(20, CLASSES))
    shutil.copytree("s.zarr/a", "s.zarr/b")
    shutil.rmtree("s.zarr/b/c")
    os.symlink("../a/c", "s.zarr/b/c")
    os.mkdir("parts")
    np.save("parts/.x.npy", LOGITS)
    os.symlink(".x.npy", "parts/a.npy")

    assert evaluate("s.zarr#b", LABELS) == EXPECTED
    assert evaluate("parts", LABELS) == EXPECTED


def test_a_list_of_references_is_refused(outside):
    Path("refs.json").write_text(json.dumps({"x.npy": [str(outside / "x.npy"), 0, 100]}))

    with pytest.raises(MalformedError, match=r"refs\.json is a list of references, which may name any file"):
        evaluate("reference://x.npy::refs.json", LABELS)


def test_a_local_folder_behind_a_cache_is_refused(outside):
    zarr_chunk(outside)

    with pytest.raises(MalformedError, match=r"is a local path, written as a URL\. Pass it without its protocols"):
        evaluate(f"simplecache::file://{Path.cwd()}/s.zarr", LABELS)


def test_the_file_that_a_parquet_footer_names_is_not_read(outside):
    found = []
    table = pa.table({"x": [*range(ROWS)]})
    pq.write_to_dataset(table, outside, basename_template="{i}.parquet", metadata_collector=found)
    found[0].set_file_path(str(outside / "0.parquet"))
    found[0].write_metadata_file("s.parquet")

    with pytest.raises(ReadError, match=r"rows 0 to 60 of .*s\.parquet#x could not be read"):
        evaluate(LOGITS, LABELS, clusters="s.parquet")


# ---------------------------------------------------------------------------------------------------------------------
# Virtual datasets


def endless(path, source):
    """A virtual dataset that grows with its source, or with the files of a pattern."""
    space = h5py.h5s.create_simple((ROWS, CLASSES), (h5py.h5s.UNLIMITED, CLASSES))
    space.select_hyperslab((0, 0), (h5py.h5s.UNLIMITED, 1), (10, CLASSES), (10, CLASSES))
    taken = h5py.h5s.create_simple((10, CLASSES)) if "%" in source else space
    options = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    options.set_virtual(space, source.encode(), b"x", taken)
    with h5py.File(path, "w") as file:
        h5py.h5d.create(file.id, b"x", h5py.h5t.IEEE_F32LE, space, options)
    return path


@pytest.fixture
def parts(outside):
    """Two files beside the set, each of which has all rows."""
    for name in ("a.h5", "b.h5"):
        shutil.copy(outside / "x.h5", name)
    return ["a.h5", "b.h5"]


def test_a_virtual_dataset_of_files_beside_it_gives_the_same_bits(parts):
    os.mkdir("deeper")
    shutil.copy("a.h5", "deeper/c.h5")
    for sources in (["a.h5"], parts, ["a.h5", "deeper/c.h5", "b.h5"]):
        assert evaluate(virtual("v.h5", *sources), LABELS, chunk_bytes=200) == EXPECTED
    assert evaluate(virtual("w.h5", "v.h5"), LABELS) == EXPECTED
    assert evaluate(virtual("v.h5", "/where/it/was/written/a.h5"), LABELS) == EXPECTED  # the set has moved


def test_a_virtual_dataset_of_its_own_file_gives_the_same_bits(parts):
    layout = h5py.VirtualLayout((ROWS, CLASSES), "f4")
    layout[:] = h5py.VirtualSource(".", "x", (ROWS, CLASSES))
    with h5py.File("a.h5", "a") as file:
        file.create_virtual_dataset("v", layout)

    assert evaluate("a.h5#v", LABELS) == EXPECTED


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: virtual("v.h5", "nope.h5"), r"nope\.h5 is not there\. Copy it too"),
        (lambda: virtual("v.h5", "a.h5", name="nope"), r"a\.h5#nope lacks rows"),
        (lambda: virtual("v.h5", "a.h5", rows=40), r"100 of its 300 numbers are in none of its parts"),
        (lambda: virtual("v.h5", "v.h5"), r"is linked to itself"),
        (lambda: virtual(virtual("v.h5", "w.h5") and "w.h5", "v.h5"), r"is linked to itself"),
        (lambda: endless("v.h5", "a.h5"), r"v\.h5#/x has a part without an end"),
        (lambda: endless("v.h5", "a-%b.h5"), r"files named by a pattern, a-%b\.h5|has a part without an end"),
    ],
    ids=["a file that is not there", "a name that is not there", "a hole", "itself", "a circle", "no end", "a pattern"],
)
def test_a_virtual_dataset_that_lacks_a_part_is_refused_by_name(parts, make, message):
    with pytest.raises(ReadError, match=message):
        evaluate(make(), LABELS)


def test_a_part_is_not_looked_for_in_the_current_folder(parts, outside, monkeypatch):
    virtual("v.h5", "deeper/a.h5")  # which is not there; a file of its name is beside, and one of its path is elsewhere
    (outside / "deeper").mkdir()
    shutil.copy("a.h5", outside / "deeper" / "a.h5")
    path = os.path.abspath("v.h5")
    monkeypatch.chdir(outside)

    assert np.isfinite(h5py.File(path)["x"][:]).all()  # h5py reads it
    with pytest.raises(ReadError, match=r"set/deeper/a\.h5 is not there"):
        evaluate(path, LABELS)


@pytest.mark.parametrize("variable", ["HDF5_VDS_PREFIX", "HDF5_EXTFILE_PREFIX"])
def test_an_environment_that_leads_parts_elsewhere_is_refused(parts, outside, monkeypatch, variable):
    monkeypatch.setenv(variable, str(outside))

    assert evaluate("a.h5", LABELS) == EXPECTED
    with pytest.raises(MalformedError, match=rf"v\.h5#/x has parts, which {variable} leads elsewhere\. Unset it"):
        evaluate(virtual("v.h5", "a.h5"), LABELS)


def test_parts_that_double_at_every_step_are_refused(outside, monkeypatch):
    monkeypatch.setattr(hdf5_parts, "MOST_PARTS", 100)
    with h5py.File("v.h5", "w") as file:
        file["0"] = LOGITS
        for step in range(1, 30):
            file[f"again {step - 1}"] = file[f"{step - 1}"]
            layout = h5py.VirtualLayout((ROWS, CLASSES), "f4")
            for name, rows in ((f"{step - 1}", np.s_[:30]), (f"again {step - 1}", np.s_[30:])):
                layout[rows] = h5py.VirtualSource(".", name, (ROWS, CLASSES))[rows]
            file.create_virtual_dataset(f"{step}", layout)

    assert evaluate("v.h5#4", LABELS) == EXPECTED
    with pytest.raises(MalformedError, match=r"is one of more than 100 parts of parts"):
        evaluate("v.h5#29", LABELS)


def test_a_part_of_fewer_rows_than_are_taken_of_it_is_named(parts):
    with h5py.File("b.h5", "w") as file:
        file["x"] = LOGITS[:-1]

    with pytest.raises(ReadError, match=r"v\.h5#/x is incomplete: .*b\.h5#x lacks rows of it"):
        evaluate(virtual("v.h5", *parts), LABELS)


def test_a_part_that_was_never_written_is_named_with_its_rows(parts):
    with h5py.File("b.h5", "w") as file:
        file.create_dataset("x", LOGITS.shape, "f4", chunks=(10, CLASSES))[:50] = LOGITS[:50]

    with pytest.raises(ReadError, match=r"b\.h5#/x is incomplete: 1 of its 6 chunks .* that of rows 50 to 60"):
        evaluate(virtual("v.h5", *parts), LABELS)


def test_a_part_that_changes_is_seen(parts):
    source = open_source(virtual("v.h5", *parts), "predictions")
    with h5py.File("b.h5", "a") as file:
        file["more"] = LOGITS

    assert sorted(map(os.path.basename, source.files())) == ["a.h5", "b.h5", "v.h5"]
    with pytest.raises(ReadError, match=r"b\.h5 has changed"):
        source.read(0, 10)


@pytest.mark.parametrize("argument", ["labels", "slices", "clusters"])
def test_a_chunk_of_an_hdf5_file_that_was_never_written_is_an_error_that_names_it(outside, argument):
    with h5py.File("y.h5", "w") as file:
        file.create_dataset("y", (ROWS,), "i8", chunks=(10,))[:20] = LABELS[:20]

    for zeros_ok in (False, True):  # HDF5 leaves out no chunk of zeros by itself
        with pytest.raises(
            ReadError, match=r"y\.h5#y is incomplete: 4 of its 6 chunks .* the first that of rows 20 to 30"
        ):
            evaluate(LOGITS, **{"labels": LABELS, argument: "y.h5#y"}, zeros_ok=zeros_ok)


@pytest.mark.parametrize("argument", ["labels", "slices"])
def test_chunks_that_are_not_stored_are_told_wherever_the_result_is(outside, argument):
    np.save("x.npy", LOGITS)
    zarr.create_array("z.zarr", shape=(ROWS,), dtype="i8", chunks=(20,))[:40] = LABELS[:40]
    labels = "z.zarr" if argument == "labels" else "y.npy"
    command = ["evaluate", "x.npy", labels, *(["--slices", "z.zarr"] if argument == "slices" else [])]
    refused = CliRunner().invoke(main, command)
    allowed = [*command, "--zeros-ok", "--html", "o.html", "--overwrite"]
    table, document = CliRunner().invoke(main, allowed), CliRunner().invoke(main, [*allowed, "--json"])
    sentence = f"1 chunks of {argument} are not stored; the fill value is taken for them."

    assert refused.exit_code == 3 and "pass --zeros-ok." in refused.stderr and "z.zarr/c/2" in refused.stderr
    assert sentence in table.stdout and sentence in Path("o.html").read_text("utf-8")
    assert json.loads(document.stdout)["unstored_chunks"] == {argument: 1}
    compared = CliRunner().invoke(
        main, ["compare", "x.npy", *command[1:], "--zeros-ok", "--html", "o.html", "--overwrite"]
    )
    assert sentence in compared.stdout and sentence in Path("o.html").read_text("utf-8")


# ---------------------------------------------------------------------------------------------------------------------
# What is no file


@pytest.fixture
def special(outside):
    """A pipe, a socket and a device, by what a message calls them."""
    os.mkfifo("pipe.npy")
    with socket.socket(socket.AF_UNIX) as opened:
        opened.bind("socket.npy")
        yield {"a pipe": "pipe.npy", "a socket": "socket.npy", "a device": "/dev/zero"}


@pytest.mark.parametrize("name", ["a pipe", "a socket", "a device"])
def test_what_may_never_end_is_refused(special, name):
    os.mkdir("parts")
    zarr.create_array("s.zarr", data=LABELS)
    os.remove("s.zarr/c/0")
    for link in ("parts/a.npy", "s.zarr/c/0"):
        os.symlink(os.path.abspath(special[name]), link)

    for path in (special[name], "parts", "s.zarr"):
        with pytest.raises(
            MalformedError, match=f"is {name}, which cannot be read in parts|must lie in files of its own"
        ):
            evaluate(LOGITS, path)


@pytest.mark.parametrize("place", ["zarr.json", "c/0"])
def test_a_pipe_inside_of_a_zarr_array_is_refused(outside, place):
    zarr.create_array("s.zarr", data=LABELS)
    os.remove(f"s.zarr/{place}")
    os.mkfifo(f"s.zarr/{place}")

    with pytest.raises(MalformedError, match=rf"{place} is a pipe"):
        evaluate(LOGITS, "s.zarr")


def test_an_empty_path_is_refused_and_is_not_the_current_folder(outside):
    np.save("only.npy", LOGITS)
    os.remove("y.npy")
    for given in (["", "only.npy"], ["only.npy", ""], ["only.npy", "only.npy", "--slices", ""]):
        made = CliRunner().invoke(main, ["evaluate", *given])

        assert made.exit_code == 2 and ("an empty path" in made.stderr or "`labels` must have shape" in made.stderr)
    np.save("y.npy", LABELS)
    for option in ("--html", "--tables", "--per-example", "--state", "--slices", "--clusters"):
        made = CliRunner().invoke(main, ["evaluate", "only.npy", "y.npy", option, ""])

        assert made.exit_code == 2 and f"`{option}` must be" in made.stderr and "an empty" in made.stderr
    assert sorted(os.listdir()) == ["only.npy", "y.npy"]


@pytest.mark.parametrize(
    ("option", "name"),
    [("--html", "r.html"), ("--tables", "t"), ("--per-example", "l.npy"), ("--state", "s"), ("demo --keep", "k")],
)
def test_an_output_where_nothing_can_be_written_is_refused_before_any_work_and_makes_no_folder(outside, option, name):
    np.save("x.npy", LOGITS)
    command = ["demo", "digits"] if option.startswith("demo") else ["evaluate", "x.npy", "y.npy"]
    option = option.removeprefix("demo ")
    for url in ("https://user:hidden@host/", "zip://z::https://user:hidden@host/", "s3://"):
        path = url + name if url != "s3://" else f"{url}/"
        made = CliRunner().invoke(main, [*command, option, path, "-q"])

        assert made.exit_code == 2 and f"`{option}` must be a local path" in made.stderr
        assert made.stderr.count("\n") == 1 and "hidden" not in made.stderr
        assert sorted(os.listdir()) == ["x.npy", "y.npy"]


def test_results_save_themselves_where_can_be_written_alone(outside):
    for save, name in ((EXPECTED.to_json, "r.json"), (EXPECTED.to_html, "r.html"), (EXPECTED.to_parquet, "t")):
        with pytest.raises(ValueError, match="must be a local path"):
            save(f"https://bucket/{name}")
        save(f"file://{os.getcwd()}/{name}")

    assert sorted(os.listdir()) == ["r.html", "r.json", "t", "y.npy"]


def test_a_link_to_itself_is_an_error_of_the_data(outside):
    os.symlink("loop.npy", "loop.npy")
    with h5py.File("loop.h5", "w") as file:
        file["x"], file["a"], file["b"] = h5py.SoftLink("/x"), h5py.SoftLink("b"), h5py.SoftLink("a")

    for path in ("loop.npy", "loop.h5#x", "loop.h5#a"):
        made = CliRunner().invoke(main, ["evaluate", path, "y.npy"])

        assert made.exit_code == 3 and path in made.stderr and made.stderr.count("\n") == 1


def test_folders_of_shards_that_links_lead_to_twice_are_refused(outside):
    os.makedirs("loop")
    np.save("loop/a.npy", LOGITS)
    for link in ("b.npy", "c.npy"):
        os.symlink(".", f"loop/{link}")
    folder = "tree"
    for _ in range(25):  # 2**25 ways to the last one
        os.makedirs(f"{folder}/x.d")
        for link in ("b.npy", "c.npy"):
            os.symlink("x.d", f"{folder}/{link}")
        folder += "/x.d"
    np.save(f"{folder}/a.npy", LOGITS)

    for path in ("loop", "loop/*.npy", "tree"):
        made = CliRunner().invoke(main, ["evaluate", "-q", path, "y.npy"])

        assert made.exit_code == 3 and made.stderr.count("\n") == 1
        assert "must have each of its folders once" in made.stderr


def test_folders_in_a_folder_of_shards_are_shards(outside):
    for part in ("a.npy", "b.npy"):
        os.makedirs(f"parts/{part}")
        np.save(f"parts/{part}/a.npy", LOGITS)
    os.symlink("a.npy/a.npy", "parts/c.npy")

    assert open_source("parts", "predictions").shape == (3 * len(LOGITS), LOGITS.shape[1])
