# What a developer types. Everything is built under build/ and .venv/, nothing outside the tree but Debian packages
# that are missing (tests/setup/system_packages.sh). PYTHON=... chooses the interpreter, 3.11 or newer.

ifndef PYTHON
PYTHON := $(shell command -v python3.11 || command -v python3)
endif
VENV := .venv
PY := $(VENV)/bin/python
MESON := $(VENV)/bin/meson
STAMPS := build/stamps
SOURCES := $(shell find native ffverbs etcd_registry -type f \( -name '*.[ch]' -o -name '*.py' -o -name '*.pyi' -o -name '*.proto' \
	-o -name meson.build \)) \
	meson.build meson.options pyproject.toml $(wildcard README.md)

# plain: what users get and benchmarks measure; faults: with the points at which crash tests let a process die.
MESON_plain :=
MESON_faults := -Dfaults=true
MESON_asan := -Dfaults=true -Db_sanitize=address,undefined -Db_lundef=false -Dpython=false
MESON_tsan := -Db_sanitize=thread -Db_lundef=false -Dpython=false
# What libFuzzer comes with.
MESON_fuzz := -Dtests=false -Dwerror=false -Dfuzz=true -Db_sanitize=address,undefined -Db_lundef=false -Dpython=false -Doptimization=1
build/fuzz/build.ninja: export CC = clang

# The tools of the environment (ninja, which meson calls by name) come first.
export PATH := $(CURDIR)/$(VENV)/bin:$(PATH)

.DEFAULT_GOAL := help
.PHONY: help build faults demo test bench bench-micro bench-full lint native-test native-plain native-faults native-asan native-tsan clean
.DELETE_ON_ERROR:
.SECONDARY:

help:  ## show this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1@\2/p' $(firstword $(MAKEFILE_LIST)) | sort | column -t -s @

$(STAMPS)/%.packages: tests/setup/system_packages.sh
	@mkdir -p $(STAMPS)
	@tests/setup/system_packages.sh $* build
	@touch $@

$(VENV)/bin/python: | $(STAMPS)/build.packages
	@test -n "$(PYTHON)" && $(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "ffverbs needs Python 3.11 or newer: set PYTHON=/path/to/python3.11" >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV)

# The development environment: the tools, and this tree itself as the installed package.
$(STAMPS)/venv: pyproject.toml tests/setup/requirements.py | $(VENV)/bin/python
	@echo "preparing $(VENV)"
	@$(PY) tests/setup/requirements.py build runtime router test > $(STAMPS)/requirements.txt
	@$(PY) -m pip install --quiet --disable-pip-version-check -r $(STAMPS)/requirements.txt
	@echo "$(CURDIR)" > "$$($(PY) -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/ffverbs-tree.pth"
	@printf '#!%s\nfrom ffverbs.cli import main\n\nmain()\n' "$(CURDIR)/$(PY)" > $(VENV)/bin/ffverbs
	@chmod +x $(VENV)/bin/ffverbs
	@touch $@

build/%/build.ninja: Makefile | $(STAMPS)/test.packages $(STAMPS)/venv
	@$(MESON) setup --reconfigure build/$* -Dtests=true -Dwerror=true $(MESON_$*) > build/$*-setup.log || { cat build/$*-setup.log; exit 1; }
	@touch $@

build: build/plain/build.ninja  ## build the engine and put what was generated into the tree
	@$(MESON) compile -C build/plain > build/plain-compile.log || { cat build/plain-compile.log; exit 1; }
	@for module in build/plain/native/ffi/_ffv*.so; do \
		cmp -s $$module ffverbs/$${module##*/} || \
			{ cp $$module ffverbs/.new_$${module##*/} && mv ffverbs/.new_$${module##*/} ffverbs/$${module##*/}; }; \
	done
	@for module in build/plain/native/ffi/_wire*.so; do \
		cmp -s $$module router/$${module##*/} || \
			{ cp $$module router/.new_$${module##*/} && mv router/.new_$${module##*/} router/$${module##*/}; }; \
	done
	@cmp -s build/plain/native/libffv_sockets.so ffverbs/libffv_sockets.so || \
		{ cp build/plain/native/libffv_sockets.so ffverbs/.new_sockets.so && mv ffverbs/.new_sockets.so ffverbs/libffv_sockets.so; }
	@for stub in rpc_pb2.py rpc_pb2.pyi; do \
		cmp -s build/plain/etcd_registry/$$stub etcd_registry/$$stub || \
			{ cp build/plain/etcd_registry/$$stub etcd_registry/.new_$$stub && \
			mv etcd_registry/.new_$$stub etcd_registry/$$stub; }; \
	done

# The packages over an engine with fault points: this tree's Python files, and those extensions beside them.
FAULTS_PACKAGE := build/faults/package
faults: build/faults/build.ninja
	@$(MESON) compile -C build/faults > build/faults-compile.log || { cat build/faults-compile.log; exit 1; }
	@rm -rf $(FAULTS_PACKAGE) && mkdir -p $(FAULTS_PACKAGE)/ffverbs $(FAULTS_PACKAGE)/router
	@for entry in ffverbs/* router/*; do \
		case $$entry in *.so|*__pycache__) ;; *) ln -s ../../../../$$entry $(FAULTS_PACKAGE)/$${entry%/*}/ ;; esac; \
	done
	@cp build/faults/native/ffi/_ffv*.so build/faults/native/libffv_sockets.so $(FAULTS_PACKAGE)/ffverbs/
	@cp build/faults/native/ffi/_wire*.so $(FAULTS_PACKAGE)/router/

# What a user gets: the package built and installed into an environment of its own, away from this tree.
$(STAMPS)/demo: $(SOURCES) | $(STAMPS)/build.packages $(VENV)/bin/python
	@echo "building and installing ffverbs into build/demo-venv"
	@$(PYTHON) -m venv build/demo-venv
	@build/demo-venv/bin/python -m pip install --quiet --disable-pip-version-check --force-reinstall .
	@touch $@

demo: $(STAMPS)/demo  ## install ffverbs into an environment of its own and run the demo
	@mkdir -p build/demo && cd build/demo && $(CURDIR)/build/demo-venv/bin/python -m ffverbs.demo

test: build faults $(STAMPS)/lab.packages  ## lint, C tests (plain, ASan+UBSan, TSan), Python tests, rdma-core's own tests
	@$(PY) tests/run_all.py

$(STAMPS)/bench: pyproject.toml | $(STAMPS)/venv $(STAMPS)/bench.packages
	@$(PY) tests/setup/requirements.py bench > $(STAMPS)/bench-requirements.txt
	@$(PY) -m pip install --quiet --disable-pip-version-check -r $(STAMPS)/bench-requirements.txt
	@touch $@

# Without the lab's packages all but real RDMA is measured.
bench: build $(STAMPS)/bench  ## measure ffverbs and its peers in one run (about a quarter of an hour)
	@$(MAKE) --no-print-directory $(STAMPS)/lab.packages || echo "real RDMA will not be measured" >&2
	@$(PY) -m benchmarks
	@$(PY) -m benchmarks.sweep
	@$(PY) -m benchmarks.offered
	@$(PY) -m benchmarks.scaling
	@$(PY) -m benchmarks.rdma

# Saved in build/micro on this machine; each run is compared with the last one there, and, in empty cffi calls, with the
# committed baseline. FAIL=mean:20% makes a run slower than the last fail, WORSE=50 one that takes 50 % more than the
# baseline; BASELINE=1 writes that from all runs in build/micro: commit it with the reason.
MICRO := $(PY) -m pytest benchmarks/micro -o addopts=--import-mode=importlib -o timeout=600 --benchmark-only \
	--benchmark-storage=build/micro --benchmark-autosave --benchmark-sort=name \
	--benchmark-columns=min,median,iqr,rounds

bench-micro: build $(STAMPS)/bench  ## microbenchmarks of each layer, compared with the last run and a baseline
	@mkdir -p build/micro
	@$(MICRO) $(if $(wildcard build/micro/*/*.json),--benchmark-compare) $(if $(FAIL),--benchmark-compare-fail=$(FAIL))
	@$(PY) -m benchmarks.micro_ratios $(if $(BASELINE),--update) $(if $(WORSE),--worse $(WORSE)) build/micro

bench-full: build $(STAMPS)/bench  ## the same with every message size (about two hours)
	@$(MAKE) --no-print-directory $(STAMPS)/lab.packages || echo "real RDMA will not be measured" >&2
	@$(PY) -m benchmarks --rounds 15 --minutes 60
	@$(PY) -m benchmarks.sweep --full
	@$(PY) -m benchmarks.offered --full
	@$(PY) -m benchmarks.scaling --full
	@$(PY) -m benchmarks.rdma --full

lint: build  ## ruff, mypy, import-linter
	@$(PY) tests/run_all.py lint

native-test: native-plain native-faults native-asan native-tsan  ## the C tests, plain and under both sanitizers

native-plain native-faults native-asan native-tsan: native-%: build/%/build.ninja
	@$(PY) tests/run_all.py native-$*

clean:  ## remove everything that was built
	rm -rf build $(VENV) ffverbs/_ffv*.so etcd_registry/rpc_pb2.py* .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
	find ffverbs etcd_registry tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +
