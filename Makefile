# Two commands: `make demo` does the main job on real data, `make test` runs the tests.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --constraint constraints.txt

.PHONY: demo demo-transformer test test-long test-clusters test-integrations table bench check docs wheel-test clean

demo: $(VENV)/.demo
	$(BIN)/python examples/digits_sweep.py

# The same for a transformer of 22.6 million parameters on text, by the Trainer of transformers: some minutes.
demo-transformer: $(VENV)/.demo-transformer
	$(BIN)/python examples/minilm_sweep.py

# Side by side, as many as there are cores, with one thread of torch each.
test: $(VENV)/.test
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses auto --maxprocesses 8 --dist worksteal

test-long: $(VENV)/.test $(VENV)/.demo-transformer
	$(BIN)/python -m pytest -m "long and not clusters"

# The same contract over real Dask and Ray clusters on this machine.
test-clusters: $(VENV)/.clusters
	$(BIN)/python -m pytest tests/clusters -m clusters

# NNI's own compressors on our evaluators, in an environment of their own: NNI brings 15 more packages.
test-integrations: $(VENV)-nni/.integrations
	$(VENV)-nni/bin/python -m pytest tests/integrations -m integrations

# Every optimizer, parameter style and scheduler form against direct construction: docs/reinitialisation.md.
table: $(VENV)/.test
	$(BIN)/python tests/exactness/exact_table.py

# Everything that is measured, beside the libraries that people use for it, and docs/benchmarks.md from the figures.
bench: $(VENV)-bench/.bench
	$(VENV)-bench/bin/python benchmarks/run_all.py --page docs/benchmarks.md

check: $(VENV)/.check
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy evaluator_schema serialization runtime testing
	$(BIN)/lint-imports

# The pages of docs/ as a site in build/docs; a warning or a broken link is an error.
docs: $(VENV)/.docs
	$(BIN)/python -m sphinx --quiet --fail-on-warning --keep-going --fresh-env --write-all docs build/docs

# A wheel and an sdist are built; the wheel goes into an environment that holds nothing else, and is used there.
wheel-test: $(VENV)/.check
	rm -rf build dist $(VENV)-wheel
	$(BIN)/python -m build --outdir dist .
	$(BIN)/python tests/packaging/distribution_contents.py dist
	$(BIN)/python tests/packaging/type_completeness.py dist
	$(PYTHON) -m venv $(VENV)-wheel
	$(VENV)-wheel/bin/python -m pip install --quiet --constraint constraints.txt dist/*.whl
	cd dist && ../$(VENV)-wheel/bin/python ../tests/packaging/wheel_roundtrip.py

# One virtual environment; each mark says which extras it holds.
$(VENV)/.python:
	$(PYTHON) -m venv $(VENV)
	touch $@

$(VENV)/.demo $(VENV)/.demo-transformer $(VENV)/.test $(VENV)/.clusters $(VENV)/.check $(VENV)/.docs: $(VENV)/.python pyproject.toml constraints.txt
	$(PIP) --editable '.[$(@:$(VENV)/.%=%)]'
	touch $@

$(VENV)-nni/.integrations $(VENV)-bench/.bench: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(@D)
	$(@D)/bin/python -m pip install --quiet --constraint constraints.txt --editable '.[$(@F:.%=%)]'
	touch $@

clean:
	rm -rf $(VENV) $(VENV)-nni $(VENV)-bench $(VENV)-wheel build dist *.egg-info
