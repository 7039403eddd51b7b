/* product.h: the blocked matrix product that linear.c and conv.c share.
 *
 * out [rows, columns] += left [rows, depth] * right [depth, columns], float32. The caller
 * describes the factors by functions that bring a block into packed form (micro.h): that
 * is where weights are decoded and convolution inputs gathered, block by block, in
 * cache. The result depends neither on the threads nor on how the work is cut.
 */
#ifndef LANCE_CPU_PRODUCT_H
#define LANCE_CPU_PRODUCT_H

#include "kernels/cpu/cpu.h"

struct product {
    int rows, columns;
    int depth_first, depth_end; /* the part of the depth that is summed */
    float *out;                 /* [rows, columns] */
    const float *bias;          /* [columns] or NULL */
    bool add;                   /* add to out, or overwrite it */
    bool split_rows;            /* cut the work by rows rather than by columns: right is cheap, left is not */

    const void *context;
    /* Strips of tile_rows rows (the last may be shorter) of left's rows [row, row+rows) at depths
     * [first, first+depth), one after the other. */
    void (*left)(const void *context, const struct micro *micro, int row, int rows, int first, int depth,
                 float *strips);
    /* Panels of right for columns [column, column+columns), a multiple of 16 but for the last ones, at those depths.
     * Returns where they are, `buffer` or elsewhere, and their distance in floats. */
    const float *(*right)(const void *context, const struct micro *micro, int column, int columns, int first,
                          int depth, float *buffer, size_t *distance);
    /* For few rows: adds to out the product of one strip and the 16 columns from `column` on at those depths, without
     * panels; false: it cannot. NULL: never. */
    bool (*direct)(const void *context, const struct micro *micro, int column, int first, int depth, int rows,
                   const float *strip, float *out, size_t out_row);
};

void product_run(struct cpu *cpu, const struct product *product);

#endif
