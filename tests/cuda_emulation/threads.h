/* threads.h: the threads of one block, as fibers that take turns; inside the emulation only.
 *
 * Every thread of a block has its own stack and runs until it reaches a barrier or a warp function, where another takes
 * over. Blocks run one after another, all on the caller's thread.
 */
#ifndef LANCE_EMULATION_THREADS_H
#define LANCE_EMULATION_THREADS_H

#include <functional>

#include "cuda_runtime.h"

/* Run one block to its end. Ends the program with a message when its threads wait for each other for ever. */
void emulated_run_block(const char *kernel, dim3 grid, dim3 block, uint3 number, size_t shared_bytes,
                        const std::function<void()> &body);

#endif
