# make demo: set everything up and run the main job on embedded data. make test: set everything up and check everything.
PYTHON ?= python3
BIN := .venv/bin
RUNTIME := .venv/.runtime
INSTALLED := .venv/.installed

export PYTHONDONTWRITEBYTECODE =

.PHONY: demo test test-all check docs gpu test-minimum lock help clean

help:
	@echo "make demo   set up .venv and attack a small target on embedded images"
	@echo "make test   set up .venv, then lint, format check, types, doctests and tests"
	@echo "make test-all  every test, further launchers and kills included"
	@echo "make check FILE=tests/...   ruff, mypy on the changed files and one test file"
	@echo "make gpu    measure on the graphics card, in under ten minutes"
	@echo "make docs   build the documentation into site/, warnings are errors"
	@echo "make test-minimum   set up .venv-minimum with the oldest versions that pyproject.toml allows, then tests"
	@echo "make lock   pin the dependencies of pyproject.toml again"
	@echo "make clean  remove .venv and the demo's runs"

# A stamp is newer than what it was made from, so a second call installs nothing. The demo needs the runtime libraries
# alone; everything else adds those of the tests, with the same versions. Modules are compiled as they are imported: tests
# import a third of what is installed.
$(RUNTIME): requirements.lock requirements-dev.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "$(PYTHON) is $$($(PYTHON) --version 2>&1); Python 3.11 or newer is needed: make PYTHON=python3.12 ..." >&2; exit 2; }
	$(PYTHON) -m venv .venv
	sed -n '/^uv==/,/[^\\]$$/p' requirements-dev.lock > .venv/uv.txt
	$(BIN)/python -m pip install --quiet --require-hashes --requirement .venv/uv.txt
	$(BIN)/uv pip install --quiet --python $(BIN)/python --require-hashes --requirement requirements.lock
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation --editable .
	@touch $@

$(INSTALLED): $(RUNTIME)
	$(BIN)/uv pip sync --quiet --python $(BIN)/python --require-hashes requirements-dev.lock
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation --editable .
	@touch $@

demo: $(RUNTIME)
	$(BIN)/python train.py --config configs/demo.yaml

# Two processes of one thread each: most tests wait for processes of their own or train networks of a few kilobytes.
# A file stays in one process, as its tests share fixtures; tests/conftest.py puts the slow files first, so that the
# processes end together.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 --dist loadfile --no-loadscope-reorder

# Types are checked by tests/test_extending.py, at the same time as the other tests run.
test: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(PYTEST) -m "not extended"

test-all: $(INSTALLED)
	$(PYTEST)

# The inner loop: checks of the files that differ from the last commit, and one test file.
check: $(INSTALLED)
	@test -n "$(FILE)" || { echo "name a test file: make check FILE=tests/evaluation/test_claims.py" >&2; exit 2; }
	$(BIN)/ruff check . && $(BIN)/ruff format --check .
	changed=$$(git diff --name-only --diff-filter=d HEAD -- 'mia_lightning/*.py'; git ls-files --others --exclude-standard -- 'mia_lightning/*.py'); \
	  test -z "$$changed" || $(BIN)/mypy $$changed
	OMP_NUM_THREADS=1 $(BIN)/pytest $(FILE)

docs: $(INSTALLED)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --site-dir site

gpu: $(INSTALLED)
	$(BIN)/python benchmarks/gpu.py --minutes 8 --output gpu.json

# torchvision's floor is the release that was built for torch's.
test-minimum: $(INSTALLED)
	$(BIN)/uv venv --quiet --allow-existing --python $(BIN)/python .venv-minimum
	$(BIN)/uv pip install --quiet --python .venv-minimum/bin/python --resolution lowest-direct --extra dev --requirement pyproject.toml
	$(BIN)/uv pip install --quiet --python .venv-minimum/bin/python --no-deps --no-build-isolation --editable .
	OMP_NUM_THREADS=1 .venv-minimum/bin/python -m pytest -n 2 --dist loadfile

COMPILE := uv pip compile --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-emit-find-links --no-header \
  --quiet pyproject.toml

lock:
	$(COMPILE) --extra dev --extra docs --output-file requirements-dev.lock
	$(COMPILE) --constraint requirements-dev.lock --output-file requirements.lock

clean:
	rm -rf .venv .venv-minimum site runs/demo
