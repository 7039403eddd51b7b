# Makefile: builds everything in build/; sources are found by folder, so a new file needs no new rule.
#   make            lanced, lancectl and the tests' tools
#   make unit       build and run the C unit tests        SAN=address|undefined|thread builds in build-SAN
#   BUILD=DIR       another build folder

CC ?= gcc
SAN ?=
BUILD ?= build$(if $(SAN),-$(SAN))

CFLAGS ?= -O2 -g
BASE_FLAGS = -std=c11 -D_GNU_SOURCE -I. -Wall -Wextra -Werror -pthread -MMD -MP \
             $(if $(SAN),-fsanitize=$(SAN) -fno-omit-frame-pointer -fno-sanitize-recover=all)
KERNEL_FLAGS = -O3 -fno-math-errno -fno-trapping-math
LIBS = -lnng -lcjson -lpng -lpcre2-8 -lutf8proc -lm -ldl

PROTOCOL_OBJECTS = $(patsubst %.c,$(BUILD)/%.o,$(wildcard protocol/*.c))
KERNELS_OBJECTS  = $(patsubst %.c,$(BUILD)/%.o,$(wildcard kernels/*.c kernels/cpu/*.c))
ENGINE_OBJECTS   = $(patsubst %.c,$(BUILD)/%.o,$(wildcard daemon/lance*.c daemon/model/*.c))
DAEMON_OBJECTS   = $(patsubst %.c,$(BUILD)/%.o,$(filter-out $(wildcard daemon/lance*.c),$(wildcard daemon/*.c)))
# Every folder of tools/ is one program; so is every folder of tests/tools/.
TOOLS       = $(patsubst tools/%/main.c,$(BUILD)/%,$(wildcard tools/*/main.c))
TEST_TOOLS  = $(patsubst tests/tools/%/main.c,$(BUILD)/tests/tools/%,$(wildcard tests/tools/*/main.c))
UNIT_TESTS  = $(patsubst tests/unit/%.c,$(BUILD)/tests/unit/%,$(wildcard tests/unit/test_*.c))

LIBRARIES = $(BUILD)/libengine.a $(BUILD)/libkernels.a $(BUILD)/libprotocol.a

all: $(LIBRARIES) $(if $(wildcard daemon/main.c),$(BUILD)/lanced) $(TOOLS) $(TEST_TOOLS)

$(BUILD)/libprotocol.a: $(PROTOCOL_OBJECTS)
$(BUILD)/libkernels.a: $(KERNELS_OBJECTS)
$(BUILD)/libengine.a: $(ENGINE_OBJECTS)
$(BUILD)/%.a:
	@mkdir -p $(@D)
	@rm -f $@
	ar rcs $@ $^

$(BUILD)/%_avx2.o: BASE_FLAGS += -mavx2 -mfma -mf16c
$(BUILD)/kernels/%.o: BASE_FLAGS += $(KERNEL_FLAGS)

$(BUILD)/%.o: %.c
	@mkdir -p $(@D)
	$(CC) $(CFLAGS) $(BASE_FLAGS) -c $< -o $@

$(BUILD)/lanced: $(DAEMON_OBJECTS) $(LIBRARIES)
	$(CC) $(CFLAGS) $(BASE_FLAGS) $^ -o $@ $(LIBS)

# A program of tools/NAME or tests/tools/NAME is linked from the folder's own sources.
.SECONDEXPANSION:
$(TOOLS): $(BUILD)/%: $$(patsubst %.c,$(BUILD)/%.o,$$(wildcard tools/$$*/*.c)) $(LIBRARIES)
	$(CC) $(CFLAGS) $(BASE_FLAGS) $^ -o $@ $(LIBS)
$(TEST_TOOLS): $(BUILD)/tests/tools/%: $$(patsubst %.c,$(BUILD)/%.o,$$(wildcard tests/tools/$$*/*.c)) $(LIBRARIES)
	$(CC) $(CFLAGS) $(BASE_FLAGS) $^ -o $@ $(LIBS)
$(UNIT_TESTS): $(BUILD)/tests/unit/%: $(BUILD)/tests/unit/%.o $(LIBRARIES)
	$(CC) $(CFLAGS) $(BASE_FLAGS) $^ -o $@ -lcmocka $(LIBS)

unit: $(UNIT_TESTS)
	@failed=0; for t in $(UNIT_TESTS); do echo "== $$t"; ./$$t || failed=1; done; exit $$failed

clean:
	rm -rf build build-*

.PHONY: all unit clean
.SECONDARY:
-include $(shell find $(BUILD) -name '*.d' 2>/dev/null)
