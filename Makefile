# Everything the book needs, from a machine that has only Python and make:
#   make book   make test   make lab   make notebooks   make results   make bench   make picture   make clean
# PYTHON chooses the interpreter that the virtual environment is made from: make book PYTHON=python3.12

PYTHON ?= python3
BIN := .venv/bin

# The stamp bears the checksum of what was installed, so that a changed pin installs anew and new file times alone do not.
# It is written last: an install that fails leaves none.
INSTALLED := .venv/installed-$(shell cat requirements.txt pyproject.toml | cksum | cut -d ' ' -f 1)

PACKAGE := $(shell find lazy_helpers -name '*.py' -o -name '*.mjs' -o -name '*.css')
NOTEBOOKS := $(wildcard book/*.ipynb)
SOURCES := _config.yml _toc.yml $(shell find book -type f -not -path '*/.*' -not -name '*.pyc') $(filter lazy_helpers/panels/%,$(PACKAGE))

.PHONY: book test lab notebooks results bench picture clean

book: _build/book.stamp
	@echo "The book: file://$(CURDIR)/_build/html/index.html"

test: $(INSTALLED)
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 --dist loadfile \
	    --nbval --nbval-sanitize-with tests/nbval_sanitize.cfg tests $(NOTEBOOKS)

lab: $(INSTALLED)
	cd book && ../$(BIN)/jupyter lab setting.ipynb

notebooks: $(NOTEBOOKS:book/%.ipynb=_build/executed/%.stamp)

results: $(INSTALLED)
	@$(BIN)/python -m lazy_helpers status

bench: $(INSTALLED)
	$(BIN)/python -m pip install -q -r benchmarks/requirements.txt
	$(BIN)/python benchmarks/bench.py

picture: _build/book.stamp
	$(BIN)/python book/picture.py

clean:
	rm -rf .venv _build

# --all: an incremental build does not repeat the warnings of pages that it leaves alone, and would pass with them.
_build/book.stamp: $(INSTALLED) $(SOURCES)
	$(BIN)/jupyter-book build . --all -W -n --keep-going
	@touch $@

_build/executed/%.stamp: book/%.ipynb book/execute.py $(PACKAGE) $(wildcard book/results/*) $(INSTALLED)
	$(BIN)/python book/execute.py $<
	@mkdir -p $(@D) && touch $@

$(INSTALLED):
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	    { echo "Python 3.11 or newer is needed, $(PYTHON) is older or missing: try make PYTHON=python3.11"; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' || \
	    { echo "$(PYTHON) cannot make virtual environments (Debian, Ubuntu: apt install python3-venv)"; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install -r requirements.txt -e .
	@rm -f .venv/installed-* && touch $@
