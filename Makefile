# Makefile: builds everything in build/; sources are found by folder, so a new file needs no new rule.
#   make                lanced, lancectl and the tests' tools
#   make demo           installs what is missing, builds, shows all seven tasks with a 4-bit form of the demo model
#   make demo-scores    the same tasks scored at length on every weight form: demo/scores.md, 15 minutes on two cores
#   make quant-report   every quantised form of the demo model made anew and compared with bf16: demo/out/quant
#   make test           installs what is missing, builds, runs the tests; ends with "N passed, N failed, N skipped"
#   make test-deep      the same for sanitizers, clang, nvcc, the emulated card and long forms; .ci/run runs both
#   make faults         allocations and calls that fail and limits that are low, at every place and level; leaks
#   make valgrind       a job of every task with lanced under valgrind
#   make who-waits      who waits how long for a daemon that is busy
#   make journal-cost   what a journal adds to a job's time; STATE=DIR is where its state folder is made
#   make soak           1,000 mixed jobs by four clients that cancel, hang up and change models; in build/soak
#   make chaos          the daemon killed 200 times under load, and the power gone at 100 moments: nothing accepted is
#                       lost; some 8 minutes
#   make unit           build and run the C unit tests
#   make check-golden GOLDEN=DIR    compare every recorded case of DIR with the official results
#   make fidelity GOLDEN=DIR        the same, and its results as docs/fidelity.md
#   make compare BASE=DIR           whether every task and weight form gives the bytes that another tree's build gives
#   make test-comfyui COMFYUI=DIR   the nodes in a real ComfyUI
#   make test-farm      lance-farm on a real Slurm and a real OpenJobDescription, installed for it, and its other tests
#   make farm-report    the same at length, measured: the figures and the timeline of docs/farm.md, in build/farm
#   make fuzz MINUTES=N whatever reads bytes from outside, given inputs that libFuzzer makes up, so many minutes in all
#                       (clang, libclang-rt-14-dev)
#   make bench          how fast each operator is on this machine, and what a request and its payload cost
#   make bench-wire     the latter alone: between the Python client and lanced
#   make bench-peers    the CPU's operators beside PyTorch's and llama.cpp's, which it installs into build/peers
#   make install        what is built, into PREFIX (/usr/local), under DESTDIR if given, with manual pages and a
#                       systemd service
#   make man            the manual pages alone, of what the programs' help says, in build/man
#   make uninstall      takes it out again, with the same PREFIX and DESTDIR
#   make parameters     the engine's table of parameters to what is kept of it in protocol/: parameters.json,
#                       known_parameters.c, PROTOCOL.md
#   make version        protocol/version.h to the files that cannot read it
#   make arm64-digests  the CPU's operators for 64-bit ARM, by a cross compiler, for tests (build/arm64)
#   make cuda           the CUDA backend, liblanced_cuda.so, which lanced loads when there is a card (needs nvcc)
#   make cuda-model     what the CUDA backend's machine code and its accesses tell without a card, into docs/cuda.md
#   make gpu-check      checks and measures the CUDA backend on this machine's card: docs/gpu-results
#   make gpu-bundle     what gpu-check runs, in build/gpu, for a machine with a driver and Python alone
#   make clean          remove what was built (.venv stays)
#   make help           this list
# Variables:
#   CC, CFLAGS          the C compiler, gcc or clang, and its options (-O2 -g)
#   BUILD=DIR           another folder than build/; the CUDA backend goes into build/ all the same
#   SAN=address,undefined|thread    a sanitizer build, in a folder of its own
#   JOBS=N              how much demo, test and the like build at a time (as there are cores)
#   NVCC, CUDA_ARCHS="90 120"       the CUDA compiler, and to build for some cards only
#   COMFYUI_PYTHON=FILE a Python that has what ComfyUI requires (that of a venv in COMFYUI)
#   BESIDE=DIR          for bench-wire: another tree that is built, measured in turn
#   GPU_CHECK, BENCH_PEERS, FUZZ    options for tools/gpu_check.py, tools/bench_peers.py, tests/fuzz/run.py

# What a plain `make` builds, whichever rule stands first below.
.DEFAULT_GOAL = all

ifeq ($(origin CC),default)
CC = gcc
endif
SAN ?=
comma = ,
space = $(subst ,, )
BUILD ?= build$(if $(SAN),-$(subst $(comma),-,$(SAN)))
PREFIX ?= /usr/local
JOBS ?= $(shell nproc 2>/dev/null || echo 2)

CFLAGS ?= -O2 -g
BASE_FLAGS = -std=c11 -ffp-contract=off -D_GNU_SOURCE -I. -Wall -Wextra -Werror -pthread -MMD -MP \
             $(if $(SAN),-fsanitize=$(SAN) -fno-omit-frame-pointer -fno-sanitize-recover=all)
KERNEL_FLAGS = -O3 -fno-math-errno -fno-trapping-math
MEDIA_LIBS = -lavformat -lavcodec -lswscale -lavutil -ljpeg -lwebpdemux -lwebp -ltiff -lavif -lheif
# The CUDA plugin takes error_set and error_prefix from the program that loads it.
LIBS = -Wl,--as-needed -Wl,--export-dynamic-symbol=error_set -Wl,--export-dynamic-symbol=error_prefix \
       -lnng -lcjson -lpng -lpcre2-8 -lutf8proc -lsqlite3 -lz -lm -ldl

BASE_OBJECTS     = $(patsubst %.c,$(BUILD)/%.o,$(wildcard base/*.c))
PROTOCOL_OBJECTS = $(patsubst %.c,$(BUILD)/%.o,$(wildcard protocol/*.c))
KERNELS_OBJECTS  = $(patsubst %.c,$(BUILD)/%.o,$(wildcard kernels/*.c kernels/cpu/*.c))
GOLDEN_OBJECTS   = $(patsubst %.c,$(BUILD)/%.o,$(wildcard tests/golden/*.c))
ENGINE_OBJECTS   = $(patsubst %.c,$(BUILD)/%.o,$(wildcard $(addsuffix /*.c,daemon/engine daemon/engine/* \
                       daemon/engine/model/*)))
SERVER_OBJECTS   = $(patsubst %.c,$(BUILD)/%.o,$(filter-out daemon/main.c,$(wildcard $(addsuffix /*.c,daemon \
                       daemon/jobs daemon/journal daemon/service))))
# Every folder of tools/ is one program; so is every folder of tests/tools/.
TOOLS       = $(patsubst tools/%/main.c,$(BUILD)/%,$(wildcard tools/*/main.c))
TEST_TOOLS  = $(patsubst tests/tools/%/main.c,$(BUILD)/tests/%,$(wildcard tests/tools/*/main.c))
UNIT_TESTS  = $(patsubst tests/unit/%.c,$(BUILD)/tests/unit/%,$(wildcard tests/unit/test_*.c))
ALL_OBJECTS = $(BASE_OBJECTS) $(GOLDEN_OBJECTS) $(PROTOCOL_OBJECTS) $(KERNELS_OBJECTS) $(ENGINE_OBJECTS) \
              $(SERVER_OBJECTS) $(BUILD)/daemon/main.o $(EMULATED_OBJECTS) \
              $(patsubst %.c,$(BUILD)/%.o,$(wildcard $(addsuffix /*.c,tools/* tools/*/* tests/tools/* tests/unit \
                  tests/fuzz)))

# kernels/cuda twice: by nvcc for cards, and by a plain C++ compiler for tests that run it on the CPU
# (tests/cuda_emulation).
CUDA_SOURCES      = $(wildcard kernels/cuda/*.cu kernels/cuda/*.c)
CUDA_BUILD       ?= build/cuda
CUDA_OBJECTS      = $(patsubst %,$(CUDA_BUILD)/%.o,$(notdir $(CUDA_SOURCES)))
EMULATED_OBJECTS  = $(patsubst %,$(BUILD)/emulated/%.o,$(notdir $(CUDA_SOURCES) $(wildcard tests/cuda_emulation/*.cpp)))
EMULATED_PLUGIN   = $(BUILD)/tests/liblanced_cuda_emulated.so

# tools/media (pictures and videos as files) is no program of its own: lancectl and lance-quant are linked with it.
MEDIA_OBJECTS = $(patsubst %.c,$(BUILD)/%.o,$(wildcard tools/media/*.c))
# The parts of the tools, apart from each program's main.c, for their unit tests; but lance-quant's, of which two have
# lancectl's names.
TOOLS_OBJECTS = $(patsubst %.c,$(BUILD)/%.o,$(filter-out %/main.c tools/lance-quant/%,$(wildcard tools/*/*.c \
                    tools/*/*/*.c)))

# lancectl is a client as any other: nothing of the engine.
CLIENT_LIBRARIES = $(BUILD)/libmedia.a $(BUILD)/libprotocol.a $(BUILD)/libbase.a
LIBRARIES = $(BUILD)/libengine.a $(BUILD)/libkernels.a $(BUILD)/libprotocol.a $(BUILD)/libbase.a
# What tests of the engine share (model folders made of recorded ones), and the parts of the tools.
TEST_LIBRARIES = $(BUILD)/libgolden.a $(BUILD)/libtools.a $(BUILD)/libserver.a $(LIBRARIES)
PROGRAMS  = $(BUILD)/lanced $(TOOLS)
# Preloaded by tests, they make allocations of a program fail, or what it asks the system and nng for.
FAILING = $(BUILD)/tests/libfailing_memory.so $(BUILD)/tests/libfailing_calls.so
# The same: it writes down what a program does to its files.
RECORDED_WRITES = $(BUILD)/tests/librecorded_writes.so

# The tokenizer of the recorded cases is kept compressed.
RECORDED_TOKENIZER = $(addprefix tests/golden/data/tiny/downloads/Lance_3B/,vocab.json merges.txt)
$(RECORDED_TOKENIZER): %: %.gz
	gzip -dc $< >$@.part && mv $@.part $@

# The archive in ComfyUI's registry comes without the tests.
# lanced with LeakSanitizer, which a library that is preloaded can stand before where it is gcc's.
LEAK_TELLING = $(BUILD)/tests/leak-telling-lanced
FOR_TESTS = $(TEST_TOOLS) $(LEAK_TELLING) $(FAILING) $(RECORDED_WRITES) $(RECORDED_TOKENIZER)
all: $(LIBRARIES) $(PROGRAMS) $(if $(wildcard tests),$(FOR_TESTS))

$(BUILD)/libbase.a: $(BASE_OBJECTS)
$(BUILD)/libprotocol.a: $(PROTOCOL_OBJECTS)
$(BUILD)/libkernels.a: $(KERNELS_OBJECTS)
$(BUILD)/libengine.a: $(ENGINE_OBJECTS)
$(BUILD)/libserver.a: $(SERVER_OBJECTS)
$(BUILD)/libtools.a: $(TOOLS_OBJECTS)
$(BUILD)/libmedia.a: $(MEDIA_OBJECTS)
$(BUILD)/libgolden.a: $(GOLDEN_OBJECTS)
$(BUILD)/%.a:
	@mkdir -p $(@D)
	@rm -f $@
	ar rcs $@ $^

ifneq ($(filter x86_64%,$(shell $(CC) -dumpmachine 2>/dev/null)),)
$(BUILD)/%_avx2.o: BASE_FLAGS += -mavx2 -mfma -mf16c
$(BUILD)/%_avx512.o: BASE_FLAGS += -mavx2 -mfma -mf16c -mavx512f -mavx512bw -mavx512dq -mavx512vl -mavx512vnni
$(BUILD)/%_amx.o: BASE_FLAGS += -mavx512f -mavx512bw -mavx512vl -mavx512bf16 -mamx-tile -mamx-bf16
$(BUILD)/%/bf16_avx512.o: BASE_FLAGS += -mavx512bf16
endif
ifneq ($(filter aarch64% arm64%,$(shell $(CC) -dumpmachine 2>/dev/null)),)
$(BUILD)/%_neon_dot.o: BASE_FLAGS += -march=armv8.2-a+dotprod
endif
$(BUILD)/kernels/%.o: BASE_FLAGS += $(KERNEL_FLAGS)
# Loops over every pixel.
$(BUILD)/daemon/engine/model/finite.o: BASE_FLAGS += $(KERNEL_FLAGS)
$(addprefix $(BUILD)/tools/,random-checkpoint/values.o \
    $(addprefix lance-quant/,codes.o quadratic.o row_codes.o search.o)): \
    BASE_FLAGS += $(KERNEL_FLAGS)
# A job's state is taken up by the same sources alone (daemon/engine/build.h).
ENGINE_SOURCES := $(sort $(wildcard kernels/cuda/* $(addsuffix /*.[ch],base protocol kernels kernels/* \
                      daemon/engine daemon/engine/* daemon/engine/model/*)))
$(BUILD)/daemon/engine/build.o: \
    BASE_FLAGS += -DENGINE_SOURCES='"$(firstword $(shell cat $(ENGINE_SOURCES) | sha256sum))"'
$(BUILD)/daemon/engine/build.o: $(ENGINE_SOURCES)

$(BUILD)/%.o: %.c | $(BUILD)/headers
	@mkdir -p $(@D)
	$(CC) $(CFLAGS) $(BASE_FLAGS) -c $< -o $@

# One message for all missing libraries, before anything is compiled.
$(BUILD)/headers: tools/required_headers.c
	@command -v $(firstword $(CC)) >/dev/null || { \
	    echo "The compiler $(CC) is missing. On Debian: apt-get install gcc libc6-dev" >&2; exit 1; }
	@$(CC) -E $< -o /dev/null || { echo "(or let 'make demo' install everything that is missing)" >&2; exit 1; }
	@mkdir -p $(@D)
	@touch $@

$(FAILING): tests/faults/failing.c tests/faults/failing.h
$(FAILING) $(RECORDED_WRITES): $(BUILD)/tests/lib%.so: tests/faults/%.c
	@mkdir -p $(@D)
	$(CC) $(CFLAGS) -std=c11 -D_GNU_SOURCE -I. -Wall -Wextra -Werror -fno-builtin -fPIC -shared $(filter %.c,$^) -o $@ -ldl

$(BUILD)/lanced: $(BUILD)/daemon/main.o $(BUILD)/libserver.a $(LIBRARIES)
	$(CC) $(CFLAGS) $(BASE_FLAGS) $^ -o $@ $(LIBS)

$(LEAK_TELLING): $(BUILD)/daemon/main.o $(BUILD)/libserver.a $(LIBRARIES)
	@mkdir -p $(@D)
	$(CC) $(CFLAGS) $(BASE_FLAGS) $^ -o $@ $(if $(SAN)$(findstring clang,$(CC)),,-fsanitize=leak) $(LIBS)

# A program of tools/NAME or tests/tools/NAME is linked from the folder's own sources.
define program # path of the program, folder of its sources, libraries
$(1): $(patsubst %.c,$(BUILD)/%.o,$(wildcard $(2)/*.c $(2)/*/*.c)) $(3)
	$$(CC) $$(CFLAGS) $$(BASE_FLAGS) $$(filter %.o %.a,$$^) -o $$@ $$(LIBS)
endef
libraries_of = $(if $(filter %/lancectl,$(1)),$(CLIENT_LIBRARIES),\
                   $(if $(filter %/print-parameters,$(1)),$(BUILD)/libserver.a) \
                   $(if $(filter %/lance-quant,$(1)),$(BUILD)/libmedia.a) $(LIBRARIES))
$(foreach tool,$(TOOLS),$(eval $(call program,$(tool),tools/$(notdir $(tool)),$(call libraries_of,$(tool)))))
$(foreach tool,$(TEST_TOOLS),$(eval $(call program,$(tool),tests/tools/$(notdir $(tool)),$(TEST_LIBRARIES))))
# Between the daemon and the engine stand functions of this program's own.
$(BUILD)/tests/poisoned-lanced: \
    LIBS += $(addprefix -Wl$(comma)--wrap=,lance_job_start lance_job_resume lance_job_step)
$(BUILD)/lancectl $(BUILD)/lance-quant $(UNIT_TESTS): LIBS += $(MEDIA_LIBS)
# Linear algebra, for the quantiser alone.
$(BUILD)/lance-quant: LIBS += -lopenblas
$(UNIT_TESTS): $(BUILD)/tests/unit/%: $(BUILD)/tests/unit/%.o $(TEST_LIBRARIES) | $(RECORDED_TOKENIZER)
	$(CC) $(CFLAGS) $(BASE_FLAGS) $^ -o $@ -lcmocka $(LIBS)

# ---- 64-bit ARM ----
# The CPU's operators for ARM, by Debian's cross compiler, to be run under qemu-user where no such processor is:
# tests/e2e/test_neon.py compares their bytes with x86's.
ARM64_CC ?= aarch64-linux-gnu-gcc
ARM64 = $(BUILD)/arm64
ARM64_DIGESTS = $(ARM64)/operator-digests
ARM64_OBJECTS = $(patsubst %.c,$(ARM64)/%.o,$(wildcard kernels/cpu/*.c tests/tools/operator-digests/*.c) \
                    base/error.c base/sha256.c tests/arm64/utf8_line.c)
arm64-digests: $(ARM64_DIGESTS)

$(ARM64_DIGESTS): $(ARM64_OBJECTS)
	$(ARM64_CC) -static -pthread $^ -o $@ -lm

$(ARM64)/%_neon_dot.o: ARM64_FLAGS = -march=armv8.2-a+dotprod
$(ARM64)/%.o: %.c
	@mkdir -p $(@D)
	$(ARM64_CC) -O2 $(filter-out -fsanitize% -m%,$(BASE_FLAGS)) $(KERNEL_FLAGS) $(ARM64_FLAGS) -c $< -o $@

# ---- the table of parameters ----
# What clients and documents have of daemon/engine/parameters.c; tests/e2e/test_parameters.py compares.
parameters: $(BUILD)/print-parameters
	$< json > $(BUILD)/parameters.json && cp $(BUILD)/parameters.json protocol/parameters.json
	$< c > $(BUILD)/known_parameters.c && cp $(BUILD)/known_parameters.c protocol/known_parameters.c
	$< markdown > $(BUILD)/parameters.md
	sed -i -e '/^<!-- parameters: begin/,/^<!-- parameters: end/{//!d}' \
	    -e '/^<!-- parameters: begin/r $(BUILD)/parameters.md' protocol/PROTOCOL.md

# ---- the version ----
# protocol/version.h as Python, and for ComfyUI's registry; tests/python/test_version.py compares.
LANCED_VERSION   = $(shell sed -n 's/^.define LANCED_VERSION "\(.*\)"$$/\1/p' protocol/version.h)
PROTOCOL_VERSION = $(shell sed -n 's/^enum { PROTOCOL_VERSION = \(.*\) };$$/\1/p' protocol/version.h)
version:
	sed -i -e 's/^VERSION = .*/VERSION = "$(LANCED_VERSION)"/' \
	    -e 's/^PROTOCOL_VERSION = .*/PROTOCOL_VERSION = $(PROTOCOL_VERSION)/' protocol/python/lanced_client/version.py
	sed -i 's/^version = .*/version = "$(LANCED_VERSION)"/' pyproject.toml tools/lance-farm/pyproject.toml

# ---- CUDA ----
NVCC ?= nvcc
CUDA_ARCHS ?= 80 86 89 90 100 120
# Machine code for each card, and PTX for those without. No kernel has a path of its own for newer cards, so that all
# machine code comes from one PTX: the slow half of compiling is done once. CUDA_PTX=120 CUDA_ARCHS=120, say, to
# compare.
CUDA_PTX ?= 80
CUDA_CODE = $(subst $(space),$(comma),$(CUDA_ARCHS:%=sm_%) compute_$(CUDA_PTX))
CUDA_TARGETS = -gencode 'arch=compute_$(CUDA_PTX),code=[$(CUDA_CODE)]'
NVCC_FLAGS = -std=c++17 -O3 -I. -lineinfo --compress-mode=size -MMD -MP \
             -Xcompiler -fPIC,-fvisibility=hidden,-Wall,-Wextra,-Wno-unused-parameter

CUDA_PLUGIN = build/liblanced_cuda.so

cuda: $(CUDA_PLUGIN)

$(CUDA_PLUGIN): $(CUDA_OBJECTS)
	$(NVCC) -shared -cudart static -Xcompiler -static-libstdc++,-static-libgcc $(CUDA_TARGETS) $^ -o $@ -ldl

$(CUDA_BUILD)/%.cu.o: kernels/cuda/%.cu $(CUDA_BUILD)/nvcc
	$(NVCC) $(NVCC_FLAGS) $(CUDA_TARGETS) -c $< -o $@

$(CUDA_BUILD)/%.c.o: kernels/cuda/%.c | $(BUILD)/headers
	@mkdir -p $(@D)
	$(CC) $(CFLAGS) $(BASE_FLAGS) -fPIC -fvisibility=hidden -c $< -o $@

# Changes with the compiler and the list of cards, so that everything is compiled again.
$(CUDA_BUILD)/nvcc: FORCE
	@command -v $(NVCC) >/dev/null || { \
	    echo "The CUDA compiler $(NVCC) is missing: install the CUDA Toolkit, or name it with NVCC=" >&2; exit 1; }
	@mkdir -p $(@D)
	@echo "$(NVCC) $(CUDA_ARCHS) $(CUDA_PTX)" | cmp -s - $@ || echo "$(NVCC) $(CUDA_ARCHS) $(CUDA_PTX)" > $@

# The same sources for the CPU, for tests. No strict aliasing: the CUDA language has none.
CXX = $(if $(findstring clang,$(CC)),clang++,g++)
EMULATED_FLAGS = -O2 -g -std=c++17 -fPIC -fvisibility=hidden -fno-strict-aliasing -DCUDA_EMULATION \
                 -Itests/cuda_emulation $(filter-out -std=c11,$(BASE_FLAGS)) -Wno-unknown-pragmas

# For the thread sanitizer, accesses stay as wide as the source has them: no structure is taken apart, nothing joined.
$(BUILD)/emulated/%.cu.o: kernels/cuda/%.cu
	@mkdir -p $(@D)
	$(CXX) $(EMULATED_FLAGS) $(if $(findstring thread,$(SAN)),-fno-tree-sra -fno-tree-vectorize) -x c++ -c $< -o $@

# The thread sanitizer is to see what kernels do, not what the emulation does for them (tests/cuda_emulation/races.h).
EMULATION_FLAGS = $(if $(findstring thread,$(SAN)),\
                      $(filter-out -fsanitize=%,$(EMULATED_FLAGS)) -DEMULATION_FINDS_RACES,$(EMULATED_FLAGS))

$(BUILD)/emulated/%.cpp.o: tests/cuda_emulation/%.cpp
	@mkdir -p $(@D)
	$(CXX) $(EMULATION_FLAGS) -c $< -o $@

$(BUILD)/emulated/%.c.o: kernels/cuda/%.c
	@mkdir -p $(@D)
	$(CC) $(CFLAGS) $(BASE_FLAGS) -fPIC -fvisibility=hidden -c $< -o $@

$(EMULATED_PLUGIN): $(EMULATED_OBJECTS)
	@mkdir -p $(@D)
	$(CXX) $(EMULATED_FLAGS) -shared $^ -o $@ -ldl

# With SAN=thread: the same kernels, whose every access calls a function, and a recorder in the sanitizer's place.
ACCESSES_PLUGIN = $(BUILD)/tests/liblanced_cuda_accesses.so
ACCESSES_FLAGS = $(filter-out -fsanitize=%,$(EMULATED_FLAGS)) -DEMULATION_RECORDS_ACCESSES
$(BUILD)/accesses/%.cpp.o: tests/cuda_emulation/%.cpp
	@mkdir -p $(@D)
	$(CXX) $(ACCESSES_FLAGS) -c $< -o $@

$(ACCESSES_PLUGIN): $(patsubst $(BUILD)/emulated/%.cpp.o,$(BUILD)/accesses/%.cpp.o,$(EMULATED_OBJECTS))
	@mkdir -p $(@D)
	$(CXX) $(ACCESSES_FLAGS) -shared $^ -o $@ -ldl

# A library for the emulated card to find, with the files that the real one has beside it.
EMULATED_CUDNN = $(BUILD)/tests/cudnn/libcudnn.so.9
$(EMULATED_CUDNN): tests/cuda_emulation/cudnn/emulated_cudnn.cpp tests/cuda_emulation/cuda_runtime.h \
                   kernels/cuda/cudnn_numbers.h
	@mkdir -p $(@D)
	$(CXX) $(filter-out -MMD -MP,$(EMULATION_FLAGS)) -shared $< -o $@
	@ln -sf $(@F) $(@D)/libcudnn_graph.so.9
	@ln -sf $(@F) $(@D)/libcublasLt.so.13

EMULATED_CUBLASLT = $(BUILD)/tests/cublaslt/libcublasLt.so.12
$(EMULATED_CUBLASLT): tests/cuda_emulation/cublaslt/emulated_cublaslt.cpp tests/cuda_emulation/cuda_runtime.h
	@mkdir -p $(@D)
	$(CXX) $(filter-out -MMD -MP,$(EMULATION_FLAGS)) -shared $< -o $@

STALE_PLUGIN = $(BUILD)/tests/liblanced_cuda_stale.so
$(STALE_PLUGIN): tests/cuda_emulation/stale/stale_plugin.c
	@mkdir -p $(@D)
	$(CC) $(CFLAGS) $(filter-out -MMD -MP,$(BASE_FLAGS)) -fPIC -shared $< -o $@

CUDA_TESTS = $(filter $(BUILD)/tests/unit/test_cuda_%,$(UNIT_TESTS))
$(CUDA_TESTS): | $(EMULATED_PLUGIN) $(STALE_PLUGIN) $(EMULATED_CUDNN) $(EMULATED_CUBLASLT)

# ---- a machine with a card ----
# The programs of gpu-check with the libraries they need, to be copied to a machine that has a driver and Python alone.
# Of the tests, those that a card can take.
EMULATED_ALONE = $(addprefix %/test_cuda_,cublas cudnn lost memory plugin)
GPU_PROGRAMS = $(filter-out $(EMULATED_ALONE),$(CUDA_TESTS)) \
               $(addprefix $(BUILD)/,tests/check-golden lance-bench random-checkpoint)
gpu-bundle: $(GPU_PROGRAMS) $(CUDA_PLUGIN)
	rm -rf build/gpu
	mkdir -p build/gpu/lib
	cp $(GPU_PROGRAMS) $(CUDA_PLUGIN) build/gpu
	ldd $(GPU_PROGRAMS) | awk '$$2 == "=>" && $$3 ~ /^\// { print $$3 }' | sort -u | \
	    grep -Ev '/(libc|libm|libdl|libpthread|librt)\.so' | xargs cp -t build/gpu/lib

cuda-model: $(CUDA_PLUGIN) $(BUILD)/lance-bench $(BUILD)/random-checkpoint $(EMULATED_PLUGIN) $(EMULATED_CUDNN) \
            $(EMULATED_CUBLASLT)
	@python3 tools/cuda_model.py --install
	@$(MAKE) -s --no-print-directory $(PARALLEL) SAN=thread build-thread/tests/liblanced_cuda_accesses.so
	@python3 tools/cuda_accesses.py
	@python3 tools/cuda_expected.py

# Everything checked and measured on this machine's card; GPU_CHECK="--golden DIR" for more recorded results.
gpu-check:
	@if command -v $(NVCC) >/dev/null; then $(MAKE) -s --no-print-directory $(PARALLEL) gpu-bundle; fi
	@python3 tools/gpu_check.py $(GPU_CHECK)

# ---- tests ----
unit: $(UNIT_TESTS)
	@failed=0; for t in $(UNIT_TESTS); do echo "== $$t"; ./$$t || failed=1; done; exit $$failed

# Built but not run: for tests/run, and for compiling everything with another compiler.
unit-programs: $(UNIT_TESTS)
objects: $(ALL_OBJECTS)

# Every case recorded in GOLDEN; one line per case and stage, then "N passed, N failed".
check-golden: $(BUILD)/tests/check-golden $(RECORDED_TOKENIZER)
	@[ -n "$(GOLDEN)" ] || { echo "usage: make $@ GOLDEN=DIR (tests/golden/data comes along)" >&2; exit 2; }
	@$< "$(GOLDEN)"

# The table of docs/fidelity.md anew.
fidelity: $(BUILD)/tests/check-golden $(RECORDED_TOKENIZER)
	@[ -n "$(GOLDEN)" ] || { echo "usage: make $@ GOLDEN=DIR (tests/golden/data comes along)" >&2; exit 2; }
	@$< "$(GOLDEN)" > $(BUILD)/golden.txt; status=$$?; [ $$status -le 1 ] || exit $$status; \
	 python3 tests/golden/fidelity.py < $(BUILD)/golden.txt > $(BUILD)/fidelity.md && \
	 mv $(BUILD)/fidelity.md docs/fidelity.md && \
	 tail -n 1 $(BUILD)/golden.txt && exit $$status

# Pixels, latents, tokens and texts of this build beside those of the tree in BASE, which is built; some seconds.
compare: all
	@[ -n "$(BASE)" ] || { echo "usage: make compare BASE=DIR (a tree of another commit, built)" >&2; exit 2; }
	@.venv/bin/python tests/compare_builds.py "$(BASE)"

# Programs that any input may be given to: tests/fuzz/README.md. Here they run over given files, for make test; in
# build-fuzz/ with libFuzzer, which looks for inputs of its own.
FUZZERS = $(patsubst tests/fuzz/%.c,$(BUILD)/tests/fuzz/%,$(wildcard tests/fuzz/fuzz_*.c))
FUZZ_DRIVER = $(BUILD)/tests/fuzz/replay.o
fuzz-programs: $(FUZZERS)
$(FUZZERS): LIBS += $(MEDIA_LIBS)
$(FUZZERS): %: %.o $(filter %.o,$(FUZZ_DRIVER)) $(TEST_LIBRARIES)
	$(CC) $(CFLAGS) $(BASE_FLAGS) $^ $(filter-out %.o,$(FUZZ_DRIVER)) -o $@ $(LIBS)
MINUTES ?= 10
# libFuzzer is not told each comparison of the loops over every byte: that would be half of the time, and it learns
# nothing from them.
ifneq ($(findstring fuzzer,$(SAN)),)
$(addprefix $(BUILD)/base/,json.o json_print.o utf8.o sha256.o) \
$(patsubst %.c,$(BUILD)/%.o,$(wildcard daemon/engine/model/tokenizer/*.c)) \
$(addprefix $(BUILD)/,base/bicubic.o daemon/engine/model/checkpoint/zip.o tools/media/still_pixels.o): \
    BASE_FLAGS += -fno-sanitize-coverage=trace-cmp
endif
# No target multiplies anything, and clang takes minutes to optimise the kernels with sanitizers.
fuzz:
	@$(MAKE) -s --no-print-directory $(PARALLEL) CC=clang CFLAGS="-O1 -g -DBLOBS_PIECE_BITS=6 -DCLIP_SIDE_BITS=8" \
	    KERNEL_FLAGS=-O0 SAN=fuzzer-no-link,address,undefined BUILD=build-fuzz FUZZ_DRIVER=-fsanitize=fuzzer fuzz-programs
	@python3 tests/fuzz/run.py --minutes $(MINUTES) $(FUZZ)

# -jN for the makes below, unless the caller's make already shares its own jobs with them.
PARALLEL = $(if $(findstring jobserver,$(MAKEFLAGS)),,-j$(JOBS))

# What each of them runs stands at the top of tests/run.py.
test-deep: TEST_RUN = --deep
test test-deep:
	@sh tools/setup.sh $(if $(TEST_RUN),test-deep,test)
	@[ -z "$(COMFYUI)" ] || sh tools/setup.sh comfyui
	@COMFYUI="$(COMFYUI)" COMFYUI_PYTHON="$(COMFYUI_PYTHON)" .venv/bin/python tests/run.py --jobs $(JOBS) $(TEST_RUN)

# Where memory, threads or processes are short, and where allocations or calls fail: every level, every call site and
# every call, some 10 minutes.
faults:
	@sh tools/setup.sh test
	@$(MAKE) -s --no-print-directory $(PARALLEL) all
	@PYTHONPATH=protocol/python:tests/support .venv/bin/python -m failing
	@PYTHONPATH=protocol/python:tests/support .venv/bin/python -m failing --what calls
	@PYTHONPATH=protocol/python:tests/support .venv/bin/python -m limits

# A job of every task, with lanced under valgrind: minutes.
valgrind:
	@sh tools/setup.sh test
	@$(MAKE) -s --no-print-directory $(PARALLEL) all
	@LANCED_BUILD=$(BUILD) PYTHONPATH=protocol/python:tests/support .venv/bin/python -m under_valgrind

# A thousand mixed jobs by four clients: what became of them, and the daemon's memory meanwhile, in build/soak.
soak:
	@sh tools/setup.sh test
	@$(MAKE) -s --no-print-directory $(PARALLEL) all
	@PYTHONPATH=protocol/python:tests/support .venv/bin/python -m soak

# Questions beside films, and one client beside another: who waits how long.
who-waits:
	@sh tools/setup.sh test
	@$(MAKE) -s --no-print-directory $(PARALLEL) all
	@PYTHONPATH=.:protocol/python:tests/support .venv/bin/python -m who_waits

# What a journal adds to a job's time.
journal-cost: STATE ?= $(BUILD)
journal-cost: JOBS ?= 200
journal-cost:
	@sh tools/setup.sh test
	@$(MAKE) -s --no-print-directory $(PARALLEL) all
	@PYTHONPATH=.:protocol/python:tests/support .venv/bin/python -m journal_cost $(STATE) $(JOBS)

# The journal: ends of the process, and of the machine.
chaos:
	@sh tools/setup.sh test
	@$(MAKE) -s --no-print-directory $(PARALLEL) all
	@KILLS=200 POWER_LOSSES=100 PYTHONPATH=protocol/python:tests/support \
	    .venv/bin/python -m pytest -c tests/pytest.ini -q -s tests/e2e/test_journal.py tests/e2e/test_power_loss.py

# The nodes in a real ComfyUI: COMFYUI is its checkout, COMFYUI_PYTHON a Python that has what ComfyUI requires (default:
# that of a venv in the checkout). Screenshots and the measured figures go into build/comfyui/.
test-comfyui:
	@[ -n "$(COMFYUI)" ] || { echo "usage: make test-comfyui COMFYUI=DIR [COMFYUI_PYTHON=FILE]" >&2; exit 2; }
	@sh tools/setup.sh comfyui
	@$(MAKE) -s --no-print-directory $(PARALLEL) all
	@COMFYUI="$(COMFYUI)" COMFYUI_PYTHON="$(COMFYUI_PYTHON)" \
	    .venv/bin/python -m pytest -c tests/pytest.ini -v tests/comfyui

# lance-farm with real schedulers, each test skipped by name where one cannot be installed.
test-farm farm-report:
	@sh tools/setup.sh farm
	@$(MAKE) -s --no-print-directory $(PARALLEL) all
	@if [ $@ = test-farm ]; then .venv/bin/python -m pytest -c tests/pytest.ini -v tests/farm; \
	 else PYTHONPATH=tools/lance-farm:protocol/python:tests/support .venv/bin/python tests/farm/report.py; fi

demo demo-scores:
	@sh tools/setup.sh demo
	@$(MAKE) -q --no-print-directory all >/dev/null 2>&1 || echo "building lanced"
	@$(MAKE) -s --no-print-directory $(PARALLEL) all
	@PYTHONPATH=protocol/python .venv/bin/python -m demo.$(if $(filter demo,$@),demo,measure)

# Every quantised form of the demo model, made anew and compared; QUANT_REPORT="--ablation".
.PHONY: quant-report
quant-report:
	@sh tools/setup.sh demo
	@$(MAKE) -s --no-print-directory $(PARALLEL) all
	@.venv/bin/python -m demo.quant_report $(QUANT_REPORT)

# How fast each operator is on this machine, at the shapes of the real model; then bench-wire.
bench: $(BUILD)/lance-bench
	@$<
	@echo
	@$(MAKE) -s --no-print-directory bench-wire

bench-peers: $(BUILD)/lance-bench
	@python3 tools/bench_peers.py $(BENCH_PEERS)

# What a request and its payload cost between the Python client and lanced with the demo model. BESIDE=DIR: and those of
# another tree that is built, in turn.
bench-wire:
	@sh tools/setup.sh demo
	@$(MAKE) -s --no-print-directory $(PARALLEL) all
	@PYTHONPATH=protocol/python .venv/bin/python tools/wire_bench.py --start $(if $(BESIDE),--beside $(BESIDE))

# ---- install ----
BINARY_DIR = $(DESTDIR)$(PREFIX)/bin
PLUGIN_DIR = $(DESTDIR)$(PREFIX)/lib/lanced
DATA_DIR = $(DESTDIR)$(PREFIX)/share/lanced
DATA_FILES = $(addprefix protocol/,nodes.json core_nodes.json other_packs.json)
DOC_DIR = $(DESTDIR)$(PREFIX)/share/doc/lanced
DOC_FILES = README.md LICENSE protocol/PROTOCOL.md $(addprefix docs/images/,demo.png farm-timeline.svg soak.svg) \
            tools/systemd/lanced.service \
            $(addprefix docs/,lanced.md operations.md lancectl.md farm.md nodes.md checkpoints.md quantisation.md \
                memory.md fidelity.md LANCE.md cuda.md)
INSTALLED = $(BUILD)/lanced $(BUILD)/lancectl $(BUILD)/lance-quant
MAN_DIR = $(DESTDIR)$(PREFIX)/share/man/man1
# A system service: systemd looks into /usr/local/lib as into /usr/lib.
UNIT = $(DESTDIR)$(PREFIX)/lib/systemd/system/lanced.service
SYSUSERS = $(DESTDIR)$(PREFIX)/lib/sysusers.d/lanced.conf
TMPFILES = $(DESTDIR)$(PREFIX)/lib/tmpfiles.d/lanced.conf

# Manual pages, of what the programs' own help says. That of lance-farm needs a Python, as lance-farm does.
MAN_PAGES = $(addprefix $(BUILD)/man/,lanced.1 lancectl.1 lance-quant.1 \
                $(if $(shell command -v python3),lance-farm.1))
FARM = COLUMNS=120 PYTHONPATH=tools/lance-farm python3 -m lance_farm
FARM_COMMANDS = prepare submit status cancel retry collect worker
man: $(MAN_PAGES)
page = @mkdir -p $(@D) && sh tools/man/page.sh $(basename $(@F)) $(LANCED_VERSION)
$(BUILD)/man/lanced.1: $(BUILD)/lanced tools/man/page.sh
	$(page) "the Lance daemon" "$< --help" > $@
$(BUILD)/man/lancectl.1: $(BUILD)/lancectl tools/man/page.sh
	$(page) "pictures, videos and answers from the Lance daemon, on the command line" "$< help" > $@
$(BUILD)/man/lance-quant.1: $(BUILD)/lance-quant tools/man/page.sh
	$(page) "4-bit checkpoints of Lance" "$< help" > $@
$(BUILD)/man/lance-farm.1: $(wildcard tools/lance-farm/lance_farm/*.py) tools/man/page.sh
	$(page) "a saved workflow on many machines" "$(FARM) --help" \
	    $(foreach command,$(FARM_COMMANDS),"$(FARM) $(command) --help") > $@

install: all man
	install -d $(BINARY_DIR) $(MAN_DIR)
	install -m 755 $(INSTALLED) $(BINARY_DIR)
	install -m 644 $(MAN_PAGES) $(MAN_DIR)
	install -d $(dir $(UNIT) $(SYSUSERS) $(TMPFILES))
	sed 's|/usr/local|$(PREFIX)|' tools/systemd/lanced.service > $(UNIT)
	install -m 644 tools/systemd/sysusers.conf $(SYSUSERS)
	install -m 644 tools/systemd/tmpfiles.conf $(TMPFILES)
	@if [ -e build/liblanced_cuda.so ]; then install -D -m 755 build/liblanced_cuda.so $(PLUGIN_DIR)/liblanced_cuda.so; fi
	install -d $(DATA_DIR)
	install -m 644 $(DATA_FILES) $(DATA_DIR)
	@for file in $(DOC_FILES); do install -D -m 644 $$file $(DOC_DIR)/$$file; done
	@sed 's|/usr/local|$(PREFIX)|' docs/lanced.service > $(DOC_DIR)/docs/lanced.service
	@echo "documents are in $(DOC_DIR)"

uninstall:
	rm -f $(addprefix $(BINARY_DIR)/,$(notdir $(INSTALLED))) $(UNIT) $(SYSUSERS) $(TMPFILES) \
	    $(addprefix $(MAN_DIR)/,$(notdir $(MAN_PAGES)))
	rm -rf $(DOC_DIR) $(PLUGIN_DIR) $(DATA_DIR)

help:
	@sed -n '/^#/!q; s/^# \?//p' Makefile

clean:
	rm -rf build build-* demo/out $(RECORDED_TOKENIZER)

FORCE:
.PHONY: FORCE all parameters version arm64-digests cuda cuda-model gpu-bundle gpu-check unit unit-programs objects \
        check-golden compare fidelity fuzz fuzz-programs test test-deep faults valgrind \
        soak chaos who-waits journal-cost \
        test-comfyui test-farm farm-report demo demo-scores bench bench-peers bench-wire man install uninstall clean \
        help
.SECONDARY:
-include $(shell find $(BUILD) -name '*.d' 2>/dev/null)
