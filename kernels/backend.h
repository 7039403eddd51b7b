/* backend.h: choosing the backend, as `--backend`, `--isa`, `--precision` and `--threads` of the programs do. */
#ifndef LANCE_KERNELS_BACKEND_H
#define LANCE_KERNELS_BACKEND_H

#include "kernels/kernels.h"

enum backend { BACKEND_AUTO, BACKEND_CPU, BACKEND_CUDA };

/* "auto", "cpu", "cuda"; -1 for anything else. */
int backend_of(const char *name);

/* The largest instruction set that the CPU backend may use: a processor without it gets the best that it has. */
enum isa {
    ISA_AUTO, ISA_PORTABLE, ISA_AVX2, ISA_AVX512, ISA_AVX512_BF16, ISA_AMX,
    ISA_AVX512_BF16_EMULATED, ISA_AMX_EMULATED /* the bf16 of those in plain C: the same bytes anywhere, slowly */
};

#define ISA_NAMES "auto, portable, avx2, avx512, avx512-bf16 or amx"

/* One of ISA_NAMES, or of the last two with -emulated; -1 for anything else. */
int isa_of(const char *name);

/* What products, attention and convolutions on the CPU round their factors to; sums are always float32. A card has bf16
 * only. DEFAULT is float32 that nobody asked for. AUTO is bf16 where the processor has AMX, or an AVX512-BF16 that a
 * short measurement finds much faster than float32. */
enum precision { PRECISION_DEFAULT, PRECISION_FLOAT32, PRECISION_BF16, PRECISION_AUTO };

/* "float32", "bf16", "auto"; -1 for anything else. */
int precision_of(const char *name);

struct backend_options {
    enum backend backend;
    enum isa isa;   /* AUTO: what the environment variable LANCED_ISA names, or else no limit */
    enum precision precision;
    int threads;    /* of the CPU backend; 0: one per core */
};

/* Open a backend. AUTO is CUDA where its plugin and a card are there, else the CPU; then `why_not_cuda` (which may be
 * NULL) says why, its code being ERROR_NOT_FOUND when there is just no plugin; it is empty, with code 0, otherwise.
 * Errors: those of kernels_cpu_open and kernels_cuda_load; ERROR_BAD_REQUEST when LANCED_ISA names nothing known, or
 * the instruction set asked for has no bf16. */
int backend_open(struct kernels **out, const struct backend_options *options, struct error *why_not_cuda,
                 struct error *error);

/* How many times as fast products would be than on `k`, which backend_open has opened with these options, in the bf16
 * that AUTO would take: measured in some ten milliseconds of one thread. 0 where the options decide on bf16 or against
 * it, or AUTO would not take it. */
double backend_bf16_gain(struct kernels *k, const struct backend_options *options);

#endif
