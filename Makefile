# Two commands do all the set-up on a fresh Debian or Ubuntu machine: `make demo` and `make test`.
BUILD ?= build
JOBS ?= $(shell nproc)
CMAKE_FLAGS ?=
export CMAKE_BUILD_PARALLEL_LEVEL = $(JOBS)

# Where scripts/install_dependencies.sh puts NVRTC on machines without a CUDA toolkit.
VENV_NVRTC = $(firstword $(wildcard .venv/lib/python3*/site-packages/nvidia/cu13/lib))
ifndef TILEWRIGHT_NVRTC
ifneq ($(VENV_NVRTC),)
export TILEWRIGHT_NVRTC = $(abspath $(VENV_NVRTC))
endif
endif

.PHONY: demo test build dependencies benchmark gpu lint format sanitize mutation fuzz clean

## demo: install what is missing, build, and attend over a real video's tokens (on the GPU, else in the emulator)
demo: build
	$(MAKE) --no-print-directory run-demo

# A second make: it sees an NVRTC that the first one has just installed.
.PHONY: run-demo run-test
run-demo:
	./$(BUILD)/tilewright demo --output $(BUILD)/demo

## test: install what is missing, build, run all tests; the last line is "N passed, N failed"
test: build
	$(MAKE) --no-print-directory run-test

run-test:
	scripts/run_tests.sh $(BUILD) $(JOBS)

build: dependencies
	cmake -S . -B $(BUILD) $(CMAKE_FLAGS)
	cmake --build $(BUILD)

dependencies:
	scripts/install_dependencies.sh

## benchmark: the CPU side's costs (cache, host path, emulator)
benchmark: dependencies
	cmake -S . -B $(BUILD) -DTILEWRIGHT_BENCHMARKS=ON $(CMAKE_FLAGS)
	cmake --build $(BUILD)
	for program in $(BUILD)/benchmarks/benchmark_*; do test -x $$program -a -f $$program && $$program || exit 1; done

## gpu: build, check and time everything on a machine with a GPU
gpu: build
	tests/gpu/run.sh $(BUILD)

## sanitize: all that can run under the address and undefined-behaviour sanitizers, and the thread sanitizer: hours.
## scripts/test_sanitized.sh names the parts
sanitize: dependencies
	JOBS=$(JOBS) scripts/test_sanitized.sh $(BUILD)-sanitize whole

## mutation: switch on one mutant of the kernels after the other; fuzz: feed the parsers what nobody would write
mutation: build
	tests/mutation/mutate.py --judge $(BUILD)/tests/mutation/mutation_judge --jobs $(JOBS)

fuzz:
	scripts/fuzz.sh $(BUILD)/fuzz 60

## lint: clang-format and clang-tidy; format: let clang-format correct
lint: build
	scripts/check_format.sh
	run-clang-tidy -quiet -p $(BUILD) '^$(CURDIR)/(src|tools)/' > $(BUILD)/clang-tidy.log || (cat $(BUILD)/clang-tidy.log; exit 1)

format:
	scripts/check_format.sh --fix

clean:
	rm -rf $(BUILD) $(BUILD)-sanitize
