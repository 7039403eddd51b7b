/* bf16_avx512.h: the loops of bf16_avx512.c that bf16_amx.c takes too. */
#ifndef LANCE_CPU_BF16_AVX512_H
#define LANCE_CPU_BF16_AVX512_H

#include "kernels/cpu/bf16.h"

void bf16_avx512_round(const float *from, size_t n, size_t padded, bf16 *to);
void bf16_avx512_pack_columns(const float *const *source, size_t depth, bf16 *panel);
void bf16_avx512_pack_depth(const float *const *source, int count, int width, bf16 *panels, size_t panel_distance);
void bf16_avx512_decode(const struct linear_source *w, int row, int first, int depth, bf16 *to);
void bf16_avx512_store_transposed(const float *c, size_t c_row, int rows, int columns, const float *bias, bool add,
                                  float *out, size_t out_row);

#endif
