# Two commands: `make audit` and `make test`. Both need only Python 3.11+, git and make.

PYTHON ?= python3
BIN := $(CURDIR)/.venv/bin
STAMP := .venv/installed

export PATH := $(BIN):$(PATH)
export DO_NOT_TRACK := 1
export PREFECT_SERVER_ANALYTICS_ENABLED := false
export DVC_NO_ANALYTICS := 1

.PHONY: audit words test slow pages lint chromium .venv

audit: .venv
	dvc repro audit
	@for subject in before control after; do candling gate reports/tanks/$$subject || [ $$? -eq 1 ] || exit 1; done
	@echo "report: $(CURDIR)/reports/tanks/report.html"

words: .venv
	dvc repro words

test: .venv lint
	python -m pytest

slow: .venv
	python -m pytest -m slow

# The pages of what was audited here, in a real browser.
pages: .venv
	python -m pytest -m slow tests/report/test_page.py -k real_audit

# Debian's browser, for the tests of the report; without one they are skipped and say so.
chromium:
	@command -v chromium >/dev/null || { \
		sudo=$$( [ "$$(id -u)" -eq 0 ] || echo sudo ); \
		$$sudo apt-get update -qq && $$sudo apt-get install -y -qq --no-install-recommends chromium; }

lint: .venv
	ruff check .
	ruff format --check .
	mypy --strict candling flows tasks

.venv: $(STAMP)

# The lock names every package, so pip resolves nothing.
$(STAMP): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "candling needs Python 3.11 or newer; set PYTHON=…"; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@
