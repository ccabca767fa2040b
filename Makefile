# make demo: set up and run the main job.  make test: set up and pass all tests.
# Everything happens in .venv with the versions of requirements.txt.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
TORCHFORCE := .venv-torchforce
SOURCES := $(shell find cpp lammps_plugin openmm_plugin -type f) CMakeLists.txt pyproject.toml

.PHONY: demo test test-torchforce lint format ctest clean install
demo: $(VENV)/.installed
	$(BIN)/python -m orb_export.demo --output demo-run

test: $(VENV)/.installed ctest
	$(BIN)/python -m pytest

# openmm-torch has an environment of its own: it needs torch 2.9 in its CUDA build (7 GB, no GPU).
test-torchforce: $(TORCHFORCE)/.installed
	$(TORCHFORCE)/bin/python -m pytest tests/torchforce tests/parity/test_torch_force.py

$(TORCHFORCE)/.installed: $(TORCHFORCE)/.requirements $(SOURCES) $(shell find python -name '*.py')
	$(TORCHFORCE)/bin/pip install --quiet --no-build-isolation --no-deps --config-settings=build-dir=build/torchforce \
		--config-settings=cmake.define.ORB_EXPORT_LAMMPS=OFF .
	touch $@

$(TORCHFORCE)/.requirements: requirements-torchforce.txt
	$(PYTHON) -m venv $(TORCHFORCE)
	$(TORCHFORCE)/bin/pip install --quiet --requirement requirements-torchforce.txt
	touch $@

install: $(VENV)/.installed

# Editable: Python files are live, C++ is rebuilt when a source is newer than the last build.
$(VENV)/.installed: $(VENV)/.requirements $(SOURCES)
	$(BIN)/pip install --quiet --no-build-isolation --no-deps --config-settings=cmake.define.ORB_EXPORT_TESTS=ON --editable .
	touch $@

$(VENV)/.requirements: requirements.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --requirement requirements.txt
	touch $@

ctest: $(VENV)/.installed
	$(BIN)/ctest --test-dir $$(ls -d build/cp3*) --output-on-failure

lint: $(VENV)/.requirements
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/clang-format --dry-run --Werror $$(git ls-files '*.cpp' '*.h')

format: $(VENV)/.requirements
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/clang-format -i $$(git ls-files '*.cpp' '*.h')

clean:
	rm -rf build demo-run $(VENV)/.installed $(TORCHFORCE)/.installed
