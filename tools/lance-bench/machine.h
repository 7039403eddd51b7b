/* machine.h: what this machine can do at best, measured: the bounds that lance-bench compares operators with. */
#ifndef LANCE_BENCH_MACHINE_H
#define LANCE_BENCH_MACHINE_H

#include <stddef.h>

/* Multiply-adds as the CPU backend called `backend` does them, with nothing else between: float32 in registers of its
 * width, bf16 dot products, or tiles. On `threads` threads at once, in GFLOP/s (two operations each); best of the
 * rounds that fit in `seconds`. */
double machine_gflops(int threads, double seconds, const char *backend);

/* Reading a set of `set_bytes` again and again on `threads` threads at once, each its share, in GB/s; the best round.
 * Of a set that fits into the caches their rate, as it bounds an operator whose tensors do. 0: memory far larger than
 * the caches. Answers 0 when there is no memory to try. */
double machine_read_gbs(int threads, double seconds, size_t set_bytes);

#endif
