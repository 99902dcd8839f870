# make demo   the main job, on data made for it, with the kernels of plugins/xent-numba
# make check  lint and the quick tests, on the source folder: before every commit; a minute on two cores
# make test   lint and the whole test suite, on the installed wheel, with every CPU library required; then the plugins,
#             those for GPUs on a processor in the GPU's place, the template in an environment of its own, and what README's
#             line installs in another; CONTRIBUTING.md says what each part tests
# make test-gpu   on a machine with an NVIDIA GPU: the CUDA kernels, then xent's tests on CuPy. Installs nothing:
#             GPU_PYTHON (python3) must have CuPy, pytest, Hypothesis, mpmath, pluggy, array-api-compat; see docs/gpu.md
# make bench-gpu  there too: the kernels beside the ceilings of the GPU and their peers
# make sanitize-gpu  there too: the kernels under compute-sanitizer's memcheck and racecheck
# make test-mutants  the CUDA kernels, broken on purpose in many ways, each of which must be noticed; takes minutes
# make test-report   the HTML pages in a headless Chromium, which must be on PATH (Debian: apt install chromium);
#             pictures of them go to build/report
# make test-clients   programs of other packages that train and score with xent (transformers, flax, Keras, scikit-learn), in an
#             environment of their own of three gigabytes; not a part of make test
# make test-peers   xent.compat beside the peers themselves, and the peers' own tests of it; not a part of make test
# make fuzz   random calls through every door, held to exact numbers, for FUZZ_SECONDS (3600) from FUZZ_SEED; calls that fail
#             are kept in tests/fuzz/cases, which make test makes again
# make faults   damaged files of every format from FAULT_SEED, then interrupts, kills, full disks, runs beside one another and
#             inputs that change, FAULT_SECONDS (60) of each
# make lint   ruff, its format, mypy and the import contracts alone
# make bench  the measurements behind the README's numbers
# make bench-scale   evaluations of sets larger than memory; takes 50 GB of disk
# make docs   the documentation as a site, in build/docs, with warnings as errors; in an environment of its own
# make release   the source distributions and wheels of xent-array and of the plugins in build/release, checked: all but the upload
# make clean  remove what these made
#
# Everything goes into .venv; Python 3.11 and make are all that must be there before.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check

VERSION := $(shell sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml)
WHEEL := dist/xent_array-$(VERSION)-py3-none-any.whl
# subtle: the folders are listed beside the files, because a file that is deleted shows only there.
SOURCES := $(shell find xent -name __pycache__ -prune -o \( -type d -o -type f \) -print)

# The versions that the tests were last seen to pass with.
CONSTRAINTS := constraints/py311.txt
INSTALL := $(PIP) install --quiet --constraint $(CONSTRAINTS)

# torch is pinned here: the wheels that an open requirement finds bring gigabytes of CUDA.
# cupy comes without its ctk extra: without a GPU only its dispatch is tested, on arrays in host memory.
TORCH := torch==2.13.0
# expecttest is what torch.testing asks for, whose samples make test-peers computes.
LIBRARIES := $(TORCH) jax cupy-cuda13x tensorflow-cpu keras optax numba expecttest
# NVIDIA's compiler for kernels, which needs no GPU: theirs are compiled for several, and looked at.
NVRTC := cuda-bindings nvidia-cuda-nvrtc
BACKENDS := numpy,array-api-strict,dask,torch,jax,cupy
PEERS := tensorflow,keras,torch,optax,sklearn,scipy

# The plugins are installed beside the environment, not in it: xent's own tests see none, those of a plugin see it.
PLUGINS := $(VENV)/plugins
PLUGIN_SOURCES := $(shell find plugins -name __pycache__ -prune -o \( -type d -o -name '*.py' -o -name '*.cu' -o -name '*.toml' \) -print)
CUDA_PLUGIN := $(VENV)/cuda
PLUGIN_WHEELS := $(VENV)/wheels
TEMPLATE := $(VENV)/template
DOCS_ENVIRONMENT := $(VENV)/docs
DOCS_CONSTRAINTS := constraints/docs.txt
DOCS_PACKAGES := sphinx furo myst-nb sphinx-click sphinx-copybutton
CLIENTS := $(VENV)/clients
CLIENT_CONSTRAINTS := constraints/clients.txt
CLIENT_INSTALL := $(CLIENTS)/bin/python -m pip install --quiet --disable-pip-version-check
CLIENT_PACKAGES := $(TORCH) jax flax optax transformers keras tensorflow-cpu scikit-learn numba
ALL := $(VENV)/all
KERNEL_BACKENDS := numpy,dask,torch
KERNEL_FLAGS := --kernel numba --backend numpy --backend dask --backend torch
# What is made of the functions that the others test; scikit-learn's scores are of probabilities, which no kernel takes.
KERNEL_FLAGS += --ignore-glob='*/test_compat_*.py'

# No test may find the source folder where it should find the wheel: neither -c nor -m puts the working folder first.
export PYTHONSAFEPATH := 1

# The processes of the tests share the programs that XLA compiles for them, which is most of what tests on JAX take.
# subtle: a bound on their size is what makes JAX lock the folder as it writes
SHARED_PROGRAMS := JAX_COMPILATION_CACHE_DIR="$(CURDIR)/$(VENV)/xla" JAX_COMPILATION_CACHE_MAX_SIZE=4000000000 \
  JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS=0.05 JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES=-1

# make check and make lint look at the source folder all the same: what changes with every commit is not installed first.
ON_SOURCE := PYTHONPATH="$(CURDIR)"

TESTS ?= tests
# A process that has nothing left takes tests from another: the last tests of a file may take the longest.
PYTESTFLAGS ?= -n 2 --dist worksteal

.NOTPARALLEL:
.DELETE_ON_ERROR:
.PHONY: demo check test test-beside test-core test-plugins test-cuda test-template test-install test-report test-peers test-clients test-mutants fuzz faults
.PHONY: test-gpu sanitize-gpu bench-gpu lint bench bench-scale docs release clean

demo: $(VENV)/demo.stamp $(VENV)/wheel.stamp $(VENV)/plugins.stamp
	PYTHONPATH=$(PLUGINS) $(BIN)/xent demo

check: lint
	$(ON_SOURCE) $(BIN)/pytest -p no:cacheprovider -q $(PYTESTFLAGS) --check $(TESTS)

test: test-beside test-core test-plugins test-cuda

# pip takes one processor for minutes as it fills the environment of the tests. What needs another environment, and
# what compiles, runs beside it; its output follows.
test-beside: $(WHEEL) $(VENV)/plugins.stamp
	$(MAKE) $(VENV)/compiled.stamp test-template test-install > $(VENV)/beside.log 2>&1 & \
	$(MAKE) $(VENV)/test.stamp; here=$$?; wait $$!; beside=$$?; cat $(VENV)/beside.log; exit $$((here | beside))

test-core: lint $(VENV)/wheel.stamp
	$(SHARED_PROGRAMS) XENT_TEST_INSTALLED=1 XENT_REQUIRE_BACKENDS=$(BACKENDS) XENT_REQUIRE_PEERS=$(PEERS) $(BIN)/pytest -p no:cacheprovider $(PYTESTFLAGS) $(TESTS)

test-plugins: lint $(VENV)/wheel.stamp $(VENV)/compiled.stamp
	PYTHONPATH=$(PLUGINS) XENT_REQUIRE_BACKENDS=$(KERNEL_BACKENDS) $(BIN)/pytest -p no:cacheprovider $(PYTESTFLAGS) $(KERNEL_FLAGS) tests
	PYTHONPATH=$(PLUGINS) $(BIN)/pytest -p no:cacheprovider $(PYTESTFLAGS) plugins/xent-numba/tests

test-cuda: lint $(VENV)/wheel.stamp $(VENV)/plugins.stamp
	PYTHONPATH=$(CUDA_PLUGIN) $(BIN)/pytest -p no:cacheprovider $(PYTESTFLAGS) plugins/xent-cuda/tests

test-mutants: $(VENV)/test.stamp $(VENV)/wheel.stamp
	PYTHONPATH=plugins/xent-cuda $(BIN)/python plugins/xent-cuda/tests/mutants.py

FUZZ_SECONDS ?= 3600
FUZZ_SEED ?=

# Each process is one of as many as there are processors.
fuzz: $(VENV)/test.stamp $(VENV)/wheel.stamp $(VENV)/compiled.stamp
	PYTHONPATH=$(PLUGINS):tests OMP_NUM_THREADS=1 FUZZ_SECONDS=$(FUZZ_SECONDS) FUZZ_SEED=$(FUZZ_SEED) $(BIN)/python -m fuzz

FAULT_SECONDS ?= 60
FAULT_SEED ?= 0
FAULT_KINDS := calls many-interrupts interrupts terminations kills full-disks two-runs changed-inputs
FAULTS := PYTHONPATH=$(PLUGINS):tests $(BIN)/python

faults: $(VENV)/test.stamp $(VENV)/wheel.stamp $(VENV)/compiled.stamp
	$(FAULTS) tests/hostile.py --seconds $(FAULT_SECONDS) --seed $(FAULT_SEED)
	for kind in $(FAULT_KINDS); do $(FAULTS) tests/faults.py $$kind --seconds $(FAULT_SECONDS) || exit 1; done

GPU_PYTHON ?= python3
GPU_PATH := .:plugins/xent-cuda:plugins/xent-cuda/tests/twin:benchmarks$(if $(PYTHONPATH),:$(PYTHONPATH))
# XENT_PLUGINS has its default, said aloud: a plugin that is installed on that machine does not stop xent's tests.
GPU_TEST := PYTHONPATH=$(GPU_PATH) XENT_PLUGINS=auto $(GPU_PYTHON) -m pytest -p no:cacheprovider -W default

test-gpu:
	$(GPU_TEST) plugins/xent-cuda/tests/test_gpu.py plugins/xent-cuda/tests/test_conformance.py
	XENT_REQUIRE_BACKENDS=cupy $(GPU_TEST) -p registered --backend cupy tests/test_golden.py tests/test_semantics_*.py
	$(GPU_TEST) tests/test_cupy.py

sanitize-gpu:
	PYTHONPATH=$(GPU_PATH) compute-sanitizer --error-exitcode 1 --tool memcheck $(GPU_PYTHON) plugins/xent-cuda/tests/sanitized.py
	PYTHONPATH=$(GPU_PATH) compute-sanitizer --error-exitcode 1 --tool racecheck $(GPU_PYTHON) plugins/xent-cuda/tests/sanitized.py

bench-gpu:
	PYTHONPATH=$(GPU_PATH) $(GPU_PYTHON) benchmarks/bench_cuda.py

# As its author would: nothing but the wheels, and what they ask for.
test-template: $(TEMPLATE).stamp
	$(TEMPLATE)/bin/pytest -p no:cacheprovider plugins/xent-template
	$(TEMPLATE)/bin/xent explain --prefer template

# As its user would: the wheel with the extra that brings all, xent-numba, and nothing else but pytest.
test-install: $(ALL).stamp
	$(ALL)/bin/pytest -p no:cacheprovider $(PYTESTFLAGS) -c /dev/null --rootdir install_tests install_tests

# In a real browser, and so not among the tests of every day.
test-report: $(VENV)/test.stamp $(VENV)/wheel.stamp
	$(BIN)/pytest -p no:cacheprovider reports

test-peers: $(VENV)/test.stamp $(VENV)/wheel.stamp
	XENT_REQUIRE_PEERS=$(PEERS) $(BIN)/pytest -p no:cacheprovider $(PYTESTFLAGS) compat_tests

# xent and xent-numba as a user installs them, beside packages that no other test needs.
test-clients: $(CLIENTS)-wheels.stamp
	$(CLIENTS)/bin/pytest -p no:cacheprovider client_tests

lint: $(VENV)/test.stamp
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(ON_SOURCE) $(BIN)/lint-imports --no-logo

FUSED_BENCHES := $(wildcard benchmarks/bench_*numba.py) benchmarks/bench_jit.py benchmarks/bench_evaluate_peers.py
OTHER_BENCHES := benchmarks/bench_scale.py benchmarks/bench_cuda.py benchmarks/bench_reads.py

bench: $(VENV)/bench.stamp $(VENV)/wheel.stamp $(VENV)/plugins.stamp
	set -e; for script in $(filter-out $(FUSED_BENCHES) $(OTHER_BENCHES),$(wildcard benchmarks/bench_*.py)); do PYTHONPATH=benchmarks $(BIN)/python $$script; done
	set -e; for script in $(FUSED_BENCHES); do PYTHONPATH=benchmarks:$(PLUGINS) $(BIN)/python $$script; done

bench-scale: $(VENV)/bench.stamp $(VENV)/wheel.stamp $(VENV)/plugins.stamp
	PYTHONPATH=benchmarks:$(PLUGINS) $(BIN)/python benchmarks/bench_scale.py

# Built anew each time, for what one page says of another may have changed.
docs: $(DOCS_ENVIRONMENT)-wheel.stamp
	rm -rf build/docs
	$(DOCS_ENVIRONMENT)/bin/sphinx-build -W --keep-going -q -E -d build/doctrees docs build/docs
	@echo "built: build/docs/index.html"

# What is uploaded is built from what is committed.
RELEASE := build/release
release: $(VENV)/release.stamp
	test -z "$$(git status --porcelain)" || { echo "release: not everything is committed" >&2; exit 1; }
	rm -rf $(RELEASE)
	set -e; for project in . plugins/xent-numba plugins/xent-cuda plugins/xent-template; do \
	  $(BIN)/python -m build --no-isolation --outdir $(RELEASE) $$project; done
	$(BIN)/twine check --strict $(RELEASE)/*
	@echo "built and checked; to publish: $(BIN)/twine upload $(RELEASE)/*"

clean:
	rm -rf $(VENV) dist build .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -prune -exec rm -rf {} +

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/build.stamp: $(CONSTRAINTS) | $(BIN)/python
	$(INSTALL) hatchling
	touch $@

$(WHEEL): $(SOURCES) pyproject.toml README.md LICENSE | $(VENV)/build.stamp
	rm -rf dist
	$(PIP) wheel --quiet --no-deps --no-build-isolation --wheel-dir dist .
	touch $@

$(VENV)/release.stamp: $(VENV)/build.stamp
	$(INSTALL) build twine
	touch $@

# What each target needs beside xent. Repeated only when a requirement may have changed.
$(VENV)/demo.stamp: pyproject.toml $(CONSTRAINTS) | $(WHEEL)
	$(INSTALL) "$(WHEEL)[all]" numba
	touch $@

$(VENV)/test.stamp: pyproject.toml $(CONSTRAINTS) | $(WHEEL)
	$(INSTALL) "$(WHEEL)[test,lint,peers]" $(LIBRARIES) $(NVRTC)
	touch $@

$(VENV)/bench.stamp: pyproject.toml $(CONSTRAINTS) | $(WHEEL)
	$(INSTALL) "$(WHEEL)[bench]" $(LIBRARIES)
	touch $@

# xent itself, whenever its sources have changed.
$(VENV)/wheel.stamp: $(WHEEL)
	$(PIP) install --quiet --no-deps --force-reinstall $(WHEEL)
	touch $@

# The plugins, built into wheels, whenever their sources have changed.
$(VENV)/plugins.stamp: $(PLUGIN_SOURCES) | $(VENV)/build.stamp
	rm -rf $(PLUGINS) $(CUDA_PLUGIN) $(PLUGIN_WHEELS)
	$(PIP) wheel --quiet --no-deps --no-build-isolation --wheel-dir $(PLUGIN_WHEELS) plugins/xent-numba plugins/xent-cuda plugins/xent-template
	$(PIP) install --quiet --no-deps --target $(PLUGINS) $(PLUGIN_WHEELS)/xent_numba-*.whl
	$(PIP) install --quiet --no-deps --target $(CUDA_PLUGIN) $(PLUGIN_WHEELS)/xent_cuda-*.whl
	touch $@

# Its machine code, made by two processes side by side; every process of the tests would make all of it otherwise.
# The environment is a user's, which is there before that of the tests; it is kept beside the plugin, for both.
$(VENV)/compiled.stamp: $(VENV)/plugins.stamp $(ALL).stamp
	PYTHONPATH=$(PLUGINS) $(ALL)/bin/python -m xent_numba float16 float32 & \
	PYTHONPATH=$(PLUGINS) $(ALL)/bin/python -m xent_numba bfloat16 float64 && wait $$!
	touch $@

$(ALL).stamp: $(WHEEL) $(VENV)/plugins.stamp
	$(PYTHON) -m venv --clear $(ALL)
	$(ALL)/bin/python -m pip install --quiet --disable-pip-version-check --constraint $(CONSTRAINTS) "$(WHEEL)[all]" $(PLUGIN_WHEELS)/xent_numba-*.whl pytest pytest-xdist
	touch $@

$(DOCS_ENVIRONMENT).stamp: pyproject.toml $(DOCS_CONSTRAINTS) | $(WHEEL)
	$(PYTHON) -m venv --clear $(DOCS_ENVIRONMENT)
	$(DOCS_ENVIRONMENT)/bin/python -m pip install --quiet --disable-pip-version-check --constraint $(DOCS_CONSTRAINTS) "$(WHEEL)[all,testing]" $(DOCS_PACKAGES)
	touch $@

$(DOCS_ENVIRONMENT)-wheel.stamp: $(DOCS_ENVIRONMENT).stamp $(WHEEL)
	$(DOCS_ENVIRONMENT)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --force-reinstall $(WHEEL)
	touch $@

$(CLIENTS).stamp: $(CONSTRAINTS) $(CLIENT_CONSTRAINTS)
	$(PYTHON) -m venv --clear $(CLIENTS)
	$(CLIENT_INSTALL) --constraint $(CONSTRAINTS) --constraint $(CLIENT_CONSTRAINTS) $(CLIENT_PACKAGES) pytest array-api-compat pluggy ml_dtypes
	touch $@

$(CLIENTS)-wheels.stamp: $(CLIENTS).stamp $(WHEEL) $(VENV)/plugins.stamp
	$(CLIENT_INSTALL) --no-deps --force-reinstall $(WHEEL) $(PLUGIN_WHEELS)/xent_numba-*.whl
	touch $@

$(TEMPLATE).stamp: $(WHEEL) $(VENV)/plugins.stamp
	$(PYTHON) -m venv --clear $(TEMPLATE)
	$(TEMPLATE)/bin/python -m pip install --quiet --disable-pip-version-check --constraint $(CONSTRAINTS) "$(WHEEL)[testing]" $(PLUGIN_WHEELS)/xent_template-*.whl
	touch $@
