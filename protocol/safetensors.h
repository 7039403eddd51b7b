/* safetensors.h: reading and writing the safetensors format.
 *
 * One parser serves checkpoints on disk and messages on the wire, so it treats its
 * input as hostile: everything is validated before anything is used or allocated
 * (header size within the limit, JSON of the expected form, known dtypes, every
 * integer range-checked, offsets in order without overlap or gap, the whole buffer
 * covered, shape x dtype size = byte length, no duplicate names).
 *
 * A parsed file borrows the caller's buffer (safetensors_parse) or owns a read-only
 * mapping (safetensors_open); tensor data is never copied. Not thread-safe while
 * being parsed; a parsed object is immutable and may be read by any thread.
 */
#ifndef LANCE_SAFETENSORS_H
#define LANCE_SAFETENSORS_H

#include <cjson/cJSON.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

enum dtype {
    DTYPE_BOOL, DTYPE_U8, DTYPE_I8, DTYPE_F8_E4M3, DTYPE_F8_E5M2,
    DTYPE_I16, DTYPE_U16, DTYPE_F16, DTYPE_BF16,
    DTYPE_I32, DTYPE_U32, DTYPE_F32,
    DTYPE_I64, DTYPE_U64, DTYPE_F64,
    DTYPE_COUNT
};

enum { TENSOR_MAX_DIMENSIONS = 8 };

/* One tensor. `name` and `data` belong to the object the view came from. */
struct tensor_view {
    const char *name;
    enum dtype dtype;
    int dimensions;
    uint64_t shape[TENSOR_MAX_DIMENSIONS];
    const void *data;  /* row-major, little-endian; not necessarily aligned */
    uint64_t bytes;
};

struct safetensors;

/* For qsort and bsearch, by their names: of views, and of pointers to views. */
int tensor_compare_names(const void *a, const void *b);
int tensor_compare_names_at(const void *a, const void *b);

size_t dtype_bytes(enum dtype dtype);
const char *dtype_name(enum dtype dtype); /* "F32", "BF16", ... as in the format */

/* The dtype of that name; false: there is none. NULL is allowed. */
bool dtype_of_name(const char *name, enum dtype *dtype);

/* Number of elements of a view (1 for a scalar). */
uint64_t tensor_elements(const struct tensor_view *tensor);

/* Whether the view has exactly this dtype and shape. */
bool tensor_is(const struct tensor_view *tensor, enum dtype dtype, int dimensions, const uint64_t *shape);

/* Widen element values to float32: F32, F16, BF16 and F64 tensors; anything else is
 * ERROR_BAD_FILE. `out` holds tensor_elements(tensor) floats. */
int tensor_to_float(const struct tensor_view *tensor, float *out, struct error *error);

/* Read "dtype" and "shape" of an object into a view, and how many bytes that makes. Returns whether they are such. */
bool tensor_describe(struct tensor_view *tensor, const cJSON *entry);

/* Parse `bytes` bytes at `data`, which must outlive the object. `what` names the input
 * in messages. Errors: ERROR_BAD_FILE, ERROR_NO_MEMORY. */
int safetensors_parse(struct safetensors **out, const void *data, uint64_t bytes, const char *what,
                      struct error *error);

/* Map a file read-only and parse it. Errors also: ERROR_IO. */
int safetensors_open(struct safetensors **out, const char *path, struct error *error);

void safetensors_close(struct safetensors *file); /* NULL is allowed */

size_t safetensors_count(const struct safetensors *file);
const struct tensor_view *safetensors_at(const struct safetensors *file, size_t index); /* file order */
const struct tensor_view *safetensors_find(const struct safetensors *file, const char *name); /* or NULL */
const char *safetensors_metadata(const struct safetensors *file, const char *key);            /* or NULL */

/* Serialise `count` tensors and `metadata_count` key/value pairs into one freshly
 * malloc'ed buffer (*out, *out_bytes), which the caller frees. Tensor data starts
 * 8-byte aligned. Tensors are written in the given order. */
int safetensors_write(void **out, uint64_t *out_bytes, const struct tensor_view *tensors, size_t count,
                      const char *const *metadata_keys, const char *const *metadata_values,
                      size_t metadata_count, struct error *error);

/* What such a buffer begins with, for a file whose tensors are written one by one: tensor i's bytes start where those
 * of the one before it end, the first's right behind the header. The tensors' `data` is not looked at. */
int safetensors_header(void **out, uint64_t *out_bytes, const struct tensor_view *tensors, size_t count,
                       const char *const *metadata_keys, const char *const *metadata_values, size_t metadata_count,
                       struct error *error);

#endif
