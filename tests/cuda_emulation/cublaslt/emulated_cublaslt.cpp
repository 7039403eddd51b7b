/* emulated_cublaslt.cpp: a libcublasLt for tests, which does on the emulated card the products of bf16 matrices that
 * its descriptors say: column-major, out = op(a) b + bias (+ c), of which op may transpose.
 *
 * What it does not prove: that the real library takes a shape, or how fast it is.
 *
 * For tests: EMULATED_CUBLASLT_FAULT makes one thing fail: choose (no algorithm), choose-memory, multiply,
 * multiply-memory, record. emulated_cublaslt_products counts. */
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "cuda_runtime.h"

#define EXPORTED extern "C" __attribute__((visibility("default")))

namespace {

/* The library's public numbers. */
enum { SUCCESS = 0, ALLOC_FAILED = 3, INVALID_VALUE = 7, EXECUTION_FAILED = 13, NOT_SUPPORTED = 15 };
enum { COMPUTE_F32 = 68, TYPE_F32 = 0, TYPE_BF16 = 14, TRANSPOSED = 1, EPILOGUE_BIAS = 4 };
enum { DESC_TRANSPOSE_A = 3, DESC_TRANSPOSE_B = 4, DESC_EPILOGUE = 7, DESC_BIAS_POINTER = 8 };
typedef int status;

int products;

struct operation {
    int32_t transposes_a, epilogue;
    const uint16_t *bias;
};

struct layout {
    int64_t rows, columns, stride;
};

struct heuristic {
    uint64_t algorithm[8];
    size_t workspace_bytes;
    status state;
    float waves;
    int reserved[4];
};

bool has_fault(const char *name)
{
    const char *fault = getenv("EMULATED_CUBLASLT_FAULT");
    return fault && !strcmp(fault, name);
}

float value_of(uint16_t bits)
{
    const uint32_t wide = (uint32_t)bits << 16;
    float value;
    memcpy(&value, &wide, sizeof value);
    return value;
}

uint16_t rounded(float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return value == value ? (uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16) : 0x7fc0;
}

struct product {
    operation what;
    float alpha, beta;
    const uint16_t *a, *b, *c;
    uint16_t *out;
    layout a_layout, b_layout, c_layout, out_layout;
};

void multiply(const product &p)
{
    const int64_t depth = p.b_layout.rows, a_row = p.what.transposes_a ? p.a_layout.stride : 1;
    const int64_t a_step = p.what.transposes_a ? 1 : p.a_layout.stride;
    for (int64_t column = 0; column < p.out_layout.columns; column++)
        for (int64_t row = 0; row < p.out_layout.rows; row++) {
            float sum = 0.0f;
            for (int64_t k = 0; k < depth; k++)
                sum += value_of(p.a[row * a_row + k * a_step]) * value_of(p.b[column * p.b_layout.stride + k]);
            sum *= p.alpha;
            if (p.beta != 0.0f)
                sum += p.beta * value_of(p.c[column * p.c_layout.stride + row]);
            if (p.what.epilogue == EPILOGUE_BIAS)
                sum += value_of(p.what.bias[row]);
            p.out[column * p.out_layout.stride + row] = rounded(sum);
        }
}

bool fits(const operation &what, const layout &a, const layout &b, const layout &out)
{
    const int64_t rows = what.transposes_a ? a.columns : a.rows, depth = what.transposes_a ? a.rows : a.columns;
    return rows == out.rows && depth == b.rows && b.columns == out.columns && a.stride >= a.rows &&
           b.stride >= b.rows && out.stride >= out.rows;
}

} // namespace

EXPORTED int emulated_cublaslt_products() { return products; }

EXPORTED status cublasLtCreate(void **handle)
{
    *handle = new int(0);
    return SUCCESS;
}

EXPORTED status cublasLtDestroy(void *handle)
{
    delete static_cast<int *>(handle);
    return SUCCESS;
}

EXPORTED status cublasLtMatmulDescCreate(void **out, int compute, int scale)
{
    if (compute != COMPUTE_F32 || scale != TYPE_F32)
        return NOT_SUPPORTED;
    *out = new operation();
    return SUCCESS;
}

EXPORTED status cublasLtMatmulDescDestroy(void *descriptor)
{
    delete static_cast<operation *>(descriptor);
    return SUCCESS;
}

EXPORTED status cublasLtMatmulDescSetAttribute(void *descriptor, int attribute, const void *value, size_t bytes)
{
    operation *o = static_cast<operation *>(descriptor);
    if (attribute == DESC_TRANSPOSE_A && bytes == sizeof o->transposes_a) {
        memcpy(&o->transposes_a, value, bytes);
        return o->transposes_a == TRANSPOSED || o->transposes_a == 0 ? SUCCESS : INVALID_VALUE;
    }
    if (attribute == DESC_EPILOGUE && bytes == sizeof o->epilogue)
        memcpy(&o->epilogue, value, bytes);
    else if (attribute == DESC_BIAS_POINTER && bytes == sizeof o->bias)
        memcpy(&o->bias, value, bytes);
    else
        return INVALID_VALUE;
    return SUCCESS;
}

EXPORTED status cublasLtMatrixLayoutCreate(void **out, int type, uint64_t rows, uint64_t columns, int64_t stride)
{
    if (type != TYPE_BF16)
        return NOT_SUPPORTED;
    *out = new layout{(int64_t)rows, (int64_t)columns, stride};
    return SUCCESS;
}

EXPORTED status cublasLtMatrixLayoutDestroy(void *descriptor)
{
    delete static_cast<layout *>(descriptor);
    return SUCCESS;
}

EXPORTED status cublasLtMatmulPreferenceCreate(void **out)
{
    *out = new int(0);
    return SUCCESS;
}

EXPORTED status cublasLtMatmulPreferenceDestroy(void *preference)
{
    delete static_cast<int *>(preference);
    return SUCCESS;
}

EXPORTED status cublasLtMatmulPreferenceSetAttribute(void *, int, const void *, size_t bytes)
{
    return bytes == sizeof(uint32_t) || bytes == sizeof(uint64_t) ? SUCCESS : INVALID_VALUE;
}

EXPORTED status cublasLtMatmulAlgoGetHeuristic(void *, void *descriptor, void *a, void *b, void *, void *out, void *,
                                               int wanted, heuristic *found, int *count)
{
    *count = 0;
    if (has_fault("choose"))
        return NOT_SUPPORTED;
    if (has_fault("choose-memory"))
        return ALLOC_FAILED;
    if (wanted < 1 || !fits(*static_cast<operation *>(descriptor), *static_cast<layout *>(a), *static_cast<layout *>(b),
                            *static_cast<layout *>(out)))
        return INVALID_VALUE;
    *found = heuristic();
    *count = 1;
    return SUCCESS;
}

EXPORTED status cublasLtMatmul(void *, void *descriptor, const void *alpha, const void *a, void *a_layout,
                               const void *b, void *b_layout, const void *beta, const void *c, void *c_layout,
                               void *out, void *out_layout, const void *, void *workspace, size_t workspace_bytes,
                               void *stream)
{
    emulated_stream_head *head = static_cast<emulated_stream_head *>(stream);
    const cudaStream_t on = static_cast<cudaStream_t>(stream);
    if (has_fault("multiply") || (has_fault("record") && head->is_recorded(on)))
        return EXECUTION_FAILED;
    if (has_fault("multiply-memory"))
        return ALLOC_FAILED;
    const product p = {*static_cast<operation *>(descriptor),
                       *static_cast<const float *>(alpha),
                       *static_cast<const float *>(beta),
                       static_cast<const uint16_t *>(a),
                       static_cast<const uint16_t *>(b),
                       static_cast<const uint16_t *>(c),
                       static_cast<uint16_t *>(out),
                       *static_cast<layout *>(a_layout),
                       *static_cast<layout *>(b_layout),
                       *static_cast<layout *>(c_layout),
                       *static_cast<layout *>(out_layout)};
    products++;
    head->enqueue(on, [=] {
        memset(workspace, 0xff, workspace_bytes);
        multiply(p);
    });
    return SUCCESS;
}
