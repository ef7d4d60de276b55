# make demo: install, and detect defocus in the bundled samples.
# make test: install what tests need, and run all of them.
# make lowest: the engine's tests with the lowest versions that pyproject.toml allows.
# make trust, coverage, mutants: what docs/trust.md tells; some hours.
# make docs: build the pages into site/, warnings as errors.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Without byte code of the thousands of modules that nobody imports: a minute less.
INSTALL := $(BIN)/python -m pip install -q --no-compile -c constraints.txt
OUT ?= demo
# For napari's window without a screen: Qt's xcb platform, software GL, a virtual X server.
DEBIAN := xvfb xauth libegl1 libgl1 libgl1-mesa-dri libopengl0 libglib2.0-0 libdbus-1-3 \
	libfontconfig1 libxkbcommon-x11-0 libx11-xcb1 libxcb-cursor0 libxcb-icccm4 libxcb-image0 \
	libxcb-keysyms1 libxcb-randr0 libxcb-render-util0 libxcb-shape0 libxcb-xfixes0 libxcb-xkb1

# Test files side by side; many of them wait for windows and processes.
BESIDE := -n 3 --dist loadfile
WINDOW := tests/io/test_ngff_writer.py::TestOthersReadIt::test_opens_in_napari_with_scale_and_position

.PHONY: demo test slow lint types docs figures window lowest audit trust coverage mutants clean

demo: $(VENV)/base
	$(BIN)/napari-defocus demo --out $(OUT) --overwrite

# Windows apart: a process that has drawn with Mesa's GL dies when torch loads triton's LLVM.
test: $(VENV)/test window
	$(BIN)/python -m pytest $(BESIDE) --ignore tests/widgets --deselect $(WINDOW)
	$(BIN)/python -m pytest $(BESIDE) tests/widgets $(WINDOW)

slow: $(VENV)/test window
	$(BIN)/python -m pytest -m "slow or not slow"

lint: $(VENV)/test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/test
	$(BIN)/mypy

docs: $(VENV)/docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

figures: $(VENV)/base
	$(BIN)/python docs/figures/draw.py

# Of torch the usual release: old ones bring 3 GB of CUDA.
LOWEST_KEEP ?= torch
LOWEST_TESTS := $(addprefix tests/,labels detection/test_api.py detection/test_random_images.py \
	detection/test_refinement.py detection/test_threshold.py evaluate/test_scores.py \
	filters/test_plane.py $(patsubst %,io/test_%.py,axes hostile_files ngff_writer raster sources) \
	$(patsubst %,metric/test_%.py,calibration fitting local_metric nets patches response training))
# What needs napari, a writer of packed bits that old imagecodecs lack, and zip:// addresses, which
# fsspec reads for Zarr since 2026.
LOWEST_NOT := napari or min_is_white

lowest: $(VENV)-lowest/made
	$(VENV)-lowest/bin/python -m pytest -o addopts= -m "not slow" \
		-k "not ($(LOWEST_NOT))" --deselect tests/io/test_sources.py::TestUrls::test_zip $(LOWEST_TESTS)

$(VENV)-lowest/made: pyproject.toml constraints.txt .ci/lowest.py
	$(PYTHON) -m venv --clear $(VENV)-lowest
	$(PYTHON) .ci/lowest.py --keep $(LOWEST_KEEP) > $(VENV)-lowest/lowest.txt
	$(VENV)-lowest/bin/python -m pip install -q -c constraints.txt -r $(VENV)-lowest/lowest.txt \
		-e . hypothesis pytest pytest-timeout
	touch $@

# Known holes of what is installed; needs the package index's advisories.
audit: $(VENV)/test
	$(BIN)/python -m pip install -q pip-audit
	$(BIN)/python -m pip_audit --skip-editable --format json | $(BIN)/python .ci/audited.py

trust: $(VENV)/test window
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.trust.table

coverage: $(VENV)/test window
	$(BIN)/python -m pytest --cov=napari_defocus --cov-branch --cov-report=term:skip-covered

# Settings stand in pyproject.toml.
mutants: $(VENV)/test
	$(BIN)/python -m pip install -q mutmut
	$(BIN)/mutmut run
	$(BIN)/mutmut results

window:
	@if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null && \
		! dpkg -s $(DEBIAN) >/dev/null 2>&1; then \
		apt-get update -qq && DEBIAN_FRONTEND=noninteractive \
			apt-get install -y -qq --no-install-recommends $(DEBIAN); \
	fi

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/base: pyproject.toml constraints.txt | $(BIN)/python
	$(INSTALL) -e .
	touch $@

$(VENV)/test: pyproject.toml constraints.txt | $(BIN)/python
	$(INSTALL) -e '.[all,test]'
	touch $@ $(VENV)/base

$(VENV)/docs: pyproject.toml constraints.txt | $(BIN)/python
	$(INSTALL) -e '.[docs]'
	touch $@

clean:
	rm -rf $(VENV) $(VENV)-lowest demo build dist site
