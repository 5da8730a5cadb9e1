# Two commands do everything on a fresh Debian machine with Python 3.11, git and make:
#   make demo   the main job, with embedded defaults
#   make test   every check, with the real peers
# and one looks for faults that no test knows yet:
#   make fuzz   100,000 damaged PDU streams, data sets and requests; COUNT=… SEED=… for others
# and one makes pictures to look at:
#   make sheets one contact sheet per modality: source, what the model saw, what came back

PYTHON ?= python3
VENV := .venv
PEERS := orthanc orthanc-dicomweb dcmtk openjph-tools dicom3tools pixelmed-apps default-jre-headless redis-server \
  postgresql eatmydata dcm2niix

.PHONY: demo test soak fuzz sheets lock clean

demo: $(VENV)/.run
	$(VENV)/bin/pacs-ai demo

# Many tests wait, for a peer or a time-out: half as many workers again as processors.
WORKERS = $(shell expr $$(nproc) \* 3 / 2)

test: $(VENV)/.test peers
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(VENV)/bin/codespell pacs_ai worker listener docs README.md CHANGELOG.md
	$(VENV)/bin/pytest -m "not soak" -n $(WORKERS) --dist loadfile

# pytest's own log keeps every record with its traceback and all that lies behind it: a gigabyte here.
soak: $(VENV)/.test
	$(VENV)/bin/pytest -m soak -p no:logging --timeout 7200

COUNT := 100000
SEED := 1
fuzz: $(VENV)/.test
	$(VENV)/bin/pytest tests/fuzz -m soak -p no:logging --timeout 28800 --fuzz-count $(COUNT) --fuzz-seed $(SEED)

sheets: $(VENV)/.test
	$(VENV)/bin/pytest tests/end_to_end/test_contact_sheets.py --sheets sheets
	@echo "open the pictures in ./sheets and look at them"

# Everything is installed from locks with hashes; the project itself needs nothing further.
$(VENV)/.run: requirements/run.txt pyproject.toml
	test -x $(VENV)/bin/python || $(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install -q --disable-pip-version-check --require-hashes -r requirements/run.txt
	$(VENV)/bin/python -m pip install -q --disable-pip-version-check --no-deps --no-build-isolation -e .
	touch $@

$(VENV)/.test: requirements/test.txt $(VENV)/.run
	$(VENV)/bin/python -m pip install -q --disable-pip-version-check --require-hashes -r requirements/test.txt
	touch $@

.PHONY: peers
peers:
	@bash tests/peers/install.sh $(PEERS)

lock:
	bash requirements/lock.sh

clean:
	rm -rf $(VENV) demo-output sheets build *.egg-info .mypy_cache .pytest_cache .ruff_cache
