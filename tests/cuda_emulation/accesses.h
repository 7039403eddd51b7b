/* accesses.h: what the emulation tells the recorder of accesses (accesses.cpp): launches, blocks, where lanes of a warp
 * meet, and what the emulation reads and writes for a kernel. Nothing in other builds.
 *
 * EMULATION_RECORDS_ACCESSES is defined when the kernels, but not the emulation, are compiled for the thread sanitizer
 * and linked without it: the recorder then has the functions that every access of a kernel calls. */
#ifndef LANCE_EMULATION_ACCESSES_H
#define LANCE_EMULATION_ACCESSES_H

#include "cuda_runtime.h"

#ifdef EMULATION_RECORDS_ACCESSES
/* Whether accesses are recorded: LANCED_EMULATION_ACCESSES=FILE. Then only some blocks of a launch run, and none of a
 * launch that was seen before. */
bool accesses_recorded();

/* A launch begins; whether block `number` of it (counted from 0) is to run. */
void accesses_launch(const void *kernel, const char *name, dim3 grid, dim3 block, size_t shared_bytes);
bool accesses_wanted(unsigned long number);

/* A block begins, with its dynamic shared memory, and ends. */
void accesses_block(const void *shared, size_t shared_bytes);
void accesses_block_ends();

/* `thread` goes on, alone or behind a meeting of its warp; all threads of the block have met. */
void accesses_thread(unsigned thread);
void accesses_warp_met(unsigned thread);
void accesses_block_met();

/* What the emulation does for the running thread. `caller` is the address in the kernel. */
void accesses_copy(const void *shared, const void *global, size_t bytes, bool valid, const void *caller);
void accesses_matrix_row(const void *shared, const void *caller);

/* The card's memory, where it lies and until when. */
void accesses_memory(const void *memory, size_t bytes);
void accesses_memory_gone(const void *memory);
#else
static inline bool accesses_recorded() { return false; }
static inline void accesses_launch(const void *, const char *, dim3, dim3, size_t) {}
static inline bool accesses_wanted(unsigned long) { return true; }
static inline void accesses_block(const void *, size_t) {}
static inline void accesses_block_ends() {}
static inline void accesses_thread(unsigned) {}
static inline void accesses_warp_met(unsigned) {}
static inline void accesses_block_met() {}
static inline void accesses_copy(const void *, const void *, size_t, bool, const void *) {}
static inline void accesses_matrix_row(const void *, const void *) {}
static inline void accesses_memory(const void *, size_t) {}
static inline void accesses_memory_gone(const void *) {}
#endif

#endif
