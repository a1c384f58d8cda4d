# Every target sets up what it needs: a virtual environment in .venv, and a Docker engine where none answers.
VENV   := .venv
PYTHON := $(VENV)/bin/python
ENGINE := python3 setup/engine.py run --

SECONDS_EACH ?= 150

.PHONY: demo test unit lint fuzz bench bench-backend gpu-test endurance shell clean help venv

help:
	@echo "make demo    build the shipped example, verify it, push it, serve it, and ask it"
	@echo "make test    every check and test, those with a real engine included"
	@echo "make unit    the checks and tests that need no engine"
	@echo "make fuzz    ten minutes of hostile input for everything that reads files (SECONDS_EACH=150)"
	@echo "make bench           how fast the daily loop is, beside a Dockerfile written by hand (BENCH=\"--rows check,build\")"
	@echo "make bench-backend   how fast the embedded backend is, beside Triton's own Python backend"
	@echo "make gpu-test        the GPU example, packed for a machine with a GPU, and proven here as far as this one has one"
	@echo "make endurance       ten minutes of requests of all kinds, with 32 clients"
	@echo "make shell   a shell in which python -m builder and docker work, whatever the machine has"
	@echo "make clean   remove what was set up and built here, and the engine that was installed for it"

demo: venv
	$(ENGINE) $(PYTHON) setup/demo.py

test: lint
	$(ENGINE) $(PYTHON) -m pytest

unit: lint
	$(PYTHON) -m pytest tests/unit

lint: venv
	$(PYTHON) -m ruff check .
	$(PYTHON) -m ruff format --check .
	$(PYTHON) -m mypy

fuzz: venv
	for harness in tests/fuzz/fuzz_*.py; do PYTHONPATH=. $(PYTHON) $$harness --seconds $(SECONDS_EACH) || exit 1; done
	FUZZ_SECONDS=$(SECONDS_EACH) $(PYTHON) -m pytest -q tests/unit/test_fuzz_cli.py

bench: venv
	$(ENGINE) $(PYTHON) -m bench.daily $(BENCH)

bench-backend: venv
	$(ENGINE) $(PYTHON) -m bench.backend $(BENCH)

gpu-test: venv
	$(ENGINE) $(PYTHON) -m bench.gpu $(GPU_TEST)

endurance: venv
	ENDURANCE_SECONDS=600 $(ENGINE) $(PYTHON) -m pytest -q tests/integration/test_endurance.py

# How the shell's last command ended is no failure of make's; that the setup failed is.
shell: venv
	@PATH="$(CURDIR)/$(VENV)/bin:$$PATH" $(ENGINE) sh -c ' \
		echo "python -m builder and docker work here; the engine stops with the last shell"; \
		"$${SHELL:-sh}" || true'

clean:
	python3 setup/engine.py clean
	rm -rf $(VENV) .builder .mypy_cache .ruff_cache .pytest_cache .hypothesis

# Not a file's rule: the script itself tells, and soon, whether there is anything to do.
venv:
	@python3 setup/venv.py $(VENV) requirements.lock
