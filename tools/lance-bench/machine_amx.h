/* machine_amx.h: the rate of tile products, for machine.c: a file of its own, compiled with those instructions. */
#ifndef LANCE_BENCH_MACHINE_AMX_H
#define LANCE_BENCH_MACHINE_AMX_H

/* A round of tile products on this thread; the operations that were done. */
double machine_tiles(void);

#endif
