/* machine_memory.h: how much memory jobs may take when the command line does not say. Plain functions; any thread. */
#ifndef LANCE_MACHINE_MEMORY_H
#define LANCE_MACHINE_MEMORY_H

#include <stdint.h>

#include "base/error.h"

struct machine_memory {
    uint64_t total_bytes;
    uint64_t available_bytes; /* without swapping, page cache counted as free */
};

/* What this process can count on: /proc/meminfo, or less where its control group, or one that it lies in, allows
 * less; in the unified hierarchy, the older one, or both (hybrid). `root` is "" but in tests, which have their own
 * /proc and /sys below it. Zeros when the system does not say. ERROR_NO_MEMORY: nothing is known. */
int machine_memory_read(struct machine_memory *out, const char *root, struct error *error);

/* What is left for jobs beside `weight_bytes` that are yet to be loaded: the available memory without the weights
 * and a reserve of an eighth of the machine (at least 256 MiB, but at most a quarter) for requests, kept results,
 * scratch memory and other programs. 1 byte, which no job fits into, when nothing is left; 0 (no limit) when the
 * machine's memory is not known. */
uint64_t machine_memory_for_jobs(const struct machine_memory *machine, uint64_t weight_bytes);

/* The same on a device with `available_bytes` of its own left once the weights are there: without a reserve of a
 * sixteenth (at least 256 MiB, but at most a quarter) for the backend's scratch memory and other programs. */
uint64_t device_memory_for_jobs(uint64_t available_bytes);

#endif
