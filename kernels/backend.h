/* backend.h: choosing the backend, as `--backend auto|cpu|cuda` of the programs does. */
#ifndef LANCE_KERNELS_BACKEND_H
#define LANCE_KERNELS_BACKEND_H

#include "kernels/kernels.h"

enum backend { BACKEND_AUTO, BACKEND_CPU, BACKEND_CUDA };

/* "auto", "cpu", "cuda"; -1 for anything else. */
int backend_of(const char *name);

/* Open a backend. AUTO is CUDA where its plugin and a card are there, else the CPU; then `why_not_cuda` (which may be NULL)
 * says why, its code being ERROR_NOT_FOUND when there is just no plugin; it is empty, with code 0, otherwise. `threads`
 * are the CPU backend's, 0: one per core. Errors: those of kernels_cpu_open and kernels_cuda_load. */
int backend_open(struct kernels **out, enum backend choice, int threads, struct error *why_not_cuda, struct error *error);

#endif
