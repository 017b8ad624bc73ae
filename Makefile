# The front door: every target only spells a CMake preset or a script.  "make help" lists them.
.DEFAULT_GOAL := all
JOBS ?= $(shell nproc)
PREFIX ?= /usr/local
FUZZ_S ?= 30
WERROR := $(if $(CI),ON,OFF)
CONFIGURE = cmake --preset $(1) -DFM_WERROR=$(WERROR) >/dev/null
BUILD = cmake --build --preset $(1) -j $(JOBS)

all: ## build the release: build/fmamba and both libraries (the default)
	@$(call CONFIGURE,release)
	@$(call BUILD,release)

help: ## print this list
	@sed -n 's/^\([a-z0-9-]*\):[^#]*## /\1	/p' $(MAKEFILE_LIST) | expand -t 16

deps: ## install the Debian packages that are missing
	@scripts/deps

try: deps all ## build, then let the shipped model tell a story
	@./build/fmamba generate --echo -p "Once upon a time" -n 100

train-tales: deps all ## train the model that ships from TALES=DIR (40 to 80 minutes on two cores; goes on where it stopped)
	@scripts/train-tales

test: deps tidy all ## style, unit, kernel, golden, command-line, install and fuzz tests
	ctest --test-dir build --output-on-failure -j2

test-slow: all ## the tests that take minutes
	ctest --test-dir build -C slow -L slow --output-on-failure

test-oracles: all ## ask transformers, llama.cpp, tokenizers, gguf ... again, in an environment outside the tree
	@tests/oracles/run

check-asan: ## all tests under the address and undefined-behaviour sanitizers
	@$(call CONFIGURE,asan)
	@$(call BUILD,asan)
	ctest --preset asan -LE 'fuzz30|install|tidy'

check-tsan: ## all tests under the thread sanitizer
	@$(call CONFIGURE,tsan)
	@$(call BUILD,tsan)
	ctest --preset tsan -LE 'fuzz30|install|tidy'

check-clang: ## all tests, built by clang
	@$(call CONFIGURE,clang)
	@$(call BUILD,clang)
	ctest --preset clang -LE 'fuzz30|install|tidy'

arm64: ## cross-build for 64-bit ARM and check its kernels under qemu
	@$(call CONFIGURE,arm64)
	@$(call BUILD,arm64)
	ctest --preset arm64

ratchet-record: all ## count the instructions of the fixed runs again and write them down
	@python3 tests/ratchet/ratchet.py build/fmamba cc --record

bench: all ## measure this machine
	@bench/run

fmt: ## let clang-format rewrite the sources
	@git ls-files -co --exclude-standard '*.c' '*.h' | xargs clang-format -i

tidy: ## check the style (under a second)
	@python3 tests/tidy.py

fuzz: ## every fuzz target for FUZZ_S seconds (30), two at a time
	@tests/fuzz/run $(FUZZ_S)

fuzz-long: ## every fuzz target for half an hour
	@tests/fuzz/run 1800

cover: ## lines covered by the tests, folder by folder
	@$(call CONFIGURE,coverage)
	@$(call BUILD,coverage)
	@find build-coverage -name '*.gcda' -delete
	ctest --preset coverage -LE 'fuzz30|install|tidy|symbols'
	@python3 tools/cover.py build-coverage

install: ## install below PREFIX (/usr/local), honouring DESTDIR
	@$(call CONFIGURE,release) -DCMAKE_INSTALL_PREFIX=$(PREFIX)
	@$(call BUILD,release)
	@cmake --install build

clean: ## remove every build folder
	@rm -rf build build-*

.PHONY: all help deps try train-tales test test-slow test-oracles check-asan \
    check-tsan check-clang arm64 ratchet-record bench fmt tidy \
    fuzz fuzz-long cover install clean
