# make demo: install, and detect defocus in the bundled samples.
# make test: install what tests need, and run all of them.
# make docs: build the pages into site/, warnings as errors.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
OUT ?= demo
# For napari's window without a screen: Qt's xcb platform, software GL, a virtual X server.
DEBIAN := xvfb xauth libegl1 libgl1 libgl1-mesa-dri libopengl0 libglib2.0-0 libdbus-1-3 \
	libfontconfig1 libxkbcommon-x11-0 libx11-xcb1 libxcb-cursor0 libxcb-icccm4 libxcb-image0 \
	libxcb-keysyms1 libxcb-randr0 libxcb-render-util0 libxcb-shape0 libxcb-xfixes0 libxcb-xkb1

.PHONY: demo test slow lint types docs figures window clean

demo: $(VENV)/base
	$(BIN)/napari-defocus demo --out $(OUT) --overwrite

test: $(VENV)/test window
	$(BIN)/python -m pytest

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

window:
	@if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null && \
		! dpkg -s $(DEBIAN) >/dev/null 2>&1; then \
		apt-get update -qq && DEBIAN_FRONTEND=noninteractive \
			apt-get install -y -qq --no-install-recommends $(DEBIAN); \
	fi

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/base: pyproject.toml constraints.txt | $(BIN)/python
	$(BIN)/python -m pip install -q -c constraints.txt -e .
	touch $@

$(VENV)/test: pyproject.toml constraints.txt | $(BIN)/python
	$(BIN)/python -m pip install -q -c constraints.txt -e '.[all,test]'
	touch $@ $(VENV)/base

$(VENV)/docs: pyproject.toml constraints.txt | $(BIN)/python
	$(BIN)/python -m pip install -q -c constraints.txt -e '.[docs]'
	touch $@

clean:
	rm -rf $(VENV) demo build dist site
