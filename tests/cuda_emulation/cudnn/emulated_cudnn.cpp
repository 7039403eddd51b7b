/* emulated_cudnn.cpp: a libcudnn.so.9 for tests, which does on the emulated card what the
 * descriptors say that it is given.
 *
 * Descriptors are checked against what cuDNN's header documents: which attributes each kind has, their types and
 * counts, which must be there, what must be finalized first. A graph is executed operation by operation from its
 * tensors' dimensions, strides and numbers. So wrong strides, a forgotten or swapped tensor, a mask the wrong way
 * round, or a pointer under the wrong number give wrong results here as there.
 *
 * What it does not prove: that the real library has an engine for the graph, or how fast it is; that was tried with
 * real libraries (docs/cuda.md). Broadcasting and what lies behind the given counts follow the documentation as we read
 * it; where it says nothing, the values are NaN.
 *
 * For tests: EMULATED_CUDNN_VERSION is the version that it says to be; EMULATED_CUDNN_FAULT makes one thing fail:
 * create, engines (none), order (engines that depend on the order of blocks), plan, plan-memory, execute,
 * execute-memory, record, result (wrong in some rows). emulated_cudnn_plans and _executions count. */
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <map>
#include <memory>
#include <vector>

#include "cuda_runtime.h"
#include "kernels/cuda/cudnn_numbers.h"

#define EXPORTED extern "C" __attribute__((visibility("default")))

namespace {

enum { SUCCESS = 0, NOT_INITIALIZED = 1001, BAD_PARAM = 2000, NOT_FINALIZED = 2004, NOT_SUPPORTED = 3000,
    NO_MEMORY = 4004,
       EXECUTION_FAILED = 5000 };
typedef int status;

int plans, executions;
char last_error[200];

status fail(status code, const char *why)
{
    snprintf(last_error, sizeof last_error, "%s", why);
    return code;
}

bool has_fault(const char *name)
{
    const char *fault = getenv("EMULATED_CUDNN_FAULT");
    return fault && !strcmp(fault, name);
}

/* ---- descriptors ---- */
struct object;
typedef std::shared_ptr<object> reference;

struct attribute {
    int64_t count = 0;
    std::vector<unsigned char> bytes;
    std::vector<reference> references;
};

struct object {
    int kind = 0;
    bool finalized = false;
    std::map<int, attribute> attributes;

    bool has(int name) const { return attributes.count(name) != 0; }
    template <typename T> T value(int name, size_t i = 0) const
    {
        T result;
        memcpy(&result, attributes.at(name).bytes.data() + i * sizeof(T), sizeof(T));
        return result;
    }
    const reference &to(int name, size_t i = 0) const { return attributes.at(name).references[i]; }
};

/* What may be set: kind of descriptor, attribute, its type, how many, whether it must be there; for a
 * descriptor, of which kind. */
const struct rule {
    int kind, name, type;
    int64_t least, most;
    bool required;
    int refers_to;
} rules[] = {
    {CUDNN_BACKEND_TENSOR_DESCRIPTOR, CUDNN_ATTR_TENSOR_UNIQUE_ID, CUDNN_TYPE_INT64, 1, 1, true, -1},
    {CUDNN_BACKEND_TENSOR_DESCRIPTOR, CUDNN_ATTR_TENSOR_DATA_TYPE, CUDNN_TYPE_DATA_TYPE, 1, 1, true, -1},
    {CUDNN_BACKEND_TENSOR_DESCRIPTOR, CUDNN_ATTR_TENSOR_BYTE_ALIGNMENT, CUDNN_TYPE_INT64, 1, 1, true, -1},
    {CUDNN_BACKEND_TENSOR_DESCRIPTOR, CUDNN_ATTR_TENSOR_DIMENSIONS, CUDNN_TYPE_INT64, 4, 4, true, -1},
    {CUDNN_BACKEND_TENSOR_DESCRIPTOR, CUDNN_ATTR_TENSOR_STRIDES, CUDNN_TYPE_INT64, 4, 4, true, -1},
    {CUDNN_BACKEND_TENSOR_DESCRIPTOR, CUDNN_ATTR_TENSOR_IS_VIRTUAL, CUDNN_TYPE_BOOLEAN, 1, 1, false, -1},
    {CUDNN_BACKEND_TENSOR_DESCRIPTOR, CUDNN_ATTR_TENSOR_IS_BY_VALUE, CUDNN_TYPE_BOOLEAN, 1, 1, false, -1},
    {CUDNN_BACKEND_MATMUL_DESCRIPTOR, CUDNN_ATTR_MATMUL_COMP_TYPE, CUDNN_TYPE_DATA_TYPE, 1, 1, true, -1},
    {CUDNN_BACKEND_OPERATION_MATMUL_DESCRIPTOR, CUDNN_ATTR_OPERATION_MATMUL_DESC, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, 1,
     true,
     CUDNN_BACKEND_MATMUL_DESCRIPTOR},
    {CUDNN_BACKEND_OPERATION_MATMUL_DESCRIPTOR, CUDNN_ATTR_OPERATION_MATMUL_ADESC, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1,
     1, true,
     CUDNN_BACKEND_TENSOR_DESCRIPTOR},
    {CUDNN_BACKEND_OPERATION_MATMUL_DESCRIPTOR, CUDNN_ATTR_OPERATION_MATMUL_BDESC, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1,
     1, true,
     CUDNN_BACKEND_TENSOR_DESCRIPTOR},
    {CUDNN_BACKEND_OPERATION_MATMUL_DESCRIPTOR, CUDNN_ATTR_OPERATION_MATMUL_CDESC, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1,
     1, true,
     CUDNN_BACKEND_TENSOR_DESCRIPTOR},
    {CUDNN_BACKEND_OPERATION_MATMUL_DESCRIPTOR, CUDNN_ATTR_OPERATION_MATMUL_GEMM_M_OVERRIDE_DESC,
     CUDNN_TYPE_BACKEND_DESCRIPTOR,
     1, 1, false, CUDNN_BACKEND_TENSOR_DESCRIPTOR},
    {CUDNN_BACKEND_OPERATION_MATMUL_DESCRIPTOR, CUDNN_ATTR_OPERATION_MATMUL_GEMM_N_OVERRIDE_DESC,
     CUDNN_TYPE_BACKEND_DESCRIPTOR,
     1, 1, false, CUDNN_BACKEND_TENSOR_DESCRIPTOR},
    {CUDNN_BACKEND_OPERATION_MATMUL_DESCRIPTOR, CUDNN_ATTR_OPERATION_MATMUL_GEMM_K_OVERRIDE_DESC,
     CUDNN_TYPE_BACKEND_DESCRIPTOR,
     1, 1, false, CUDNN_BACKEND_TENSOR_DESCRIPTOR},
    {CUDNN_BACKEND_POINTWISE_DESCRIPTOR, CUDNN_ATTR_POINTWISE_MODE, CUDNN_TYPE_POINTWISE_MODE, 1, 1, true, -1},
    {CUDNN_BACKEND_POINTWISE_DESCRIPTOR, CUDNN_ATTR_POINTWISE_MATH_PREC, CUDNN_TYPE_DATA_TYPE, 1, 1, true, -1},
    {CUDNN_BACKEND_POINTWISE_DESCRIPTOR, CUDNN_ATTR_POINTWISE_AXIS, CUDNN_TYPE_INT64, 1, 1, false, -1},
    {CUDNN_BACKEND_OPERATION_POINTWISE_DESCRIPTOR, CUDNN_ATTR_OPERATION_POINTWISE_PW_DESCRIPTOR,
     CUDNN_TYPE_BACKEND_DESCRIPTOR,
     1, 1, true, CUDNN_BACKEND_POINTWISE_DESCRIPTOR},
    {CUDNN_BACKEND_OPERATION_POINTWISE_DESCRIPTOR, CUDNN_ATTR_OPERATION_POINTWISE_XDESC,
     CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, 1,
     true, CUDNN_BACKEND_TENSOR_DESCRIPTOR},
    {CUDNN_BACKEND_OPERATION_POINTWISE_DESCRIPTOR, CUDNN_ATTR_OPERATION_POINTWISE_BDESC,
     CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, 1,
     false, CUDNN_BACKEND_TENSOR_DESCRIPTOR},
    {CUDNN_BACKEND_OPERATION_POINTWISE_DESCRIPTOR, CUDNN_ATTR_OPERATION_POINTWISE_TDESC,
     CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, 1,
     false, CUDNN_BACKEND_TENSOR_DESCRIPTOR},
    {CUDNN_BACKEND_OPERATION_POINTWISE_DESCRIPTOR, CUDNN_ATTR_OPERATION_POINTWISE_YDESC,
     CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, 1,
     true, CUDNN_BACKEND_TENSOR_DESCRIPTOR},
    {CUDNN_BACKEND_REDUCTION_DESCRIPTOR, CUDNN_ATTR_REDUCTION_OPERATOR, CUDNN_TYPE_REDUCTION_OPERATOR_TYPE, 1, 1,
     true, -1},
    {CUDNN_BACKEND_REDUCTION_DESCRIPTOR, CUDNN_ATTR_REDUCTION_COMP_TYPE, CUDNN_TYPE_DATA_TYPE, 1, 1, true, -1},
    {CUDNN_BACKEND_OPERATION_REDUCTION_DESCRIPTOR, CUDNN_ATTR_OPERATION_REDUCTION_DESC, CUDNN_TYPE_BACKEND_DESCRIPTOR,
     1, 1,
     true, CUDNN_BACKEND_REDUCTION_DESCRIPTOR},
    {CUDNN_BACKEND_OPERATION_REDUCTION_DESCRIPTOR, CUDNN_ATTR_OPERATION_REDUCTION_XDESC,
     CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, 1,
     true, CUDNN_BACKEND_TENSOR_DESCRIPTOR},
    {CUDNN_BACKEND_OPERATION_REDUCTION_DESCRIPTOR, CUDNN_ATTR_OPERATION_REDUCTION_YDESC,
     CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, 1,
     true, CUDNN_BACKEND_TENSOR_DESCRIPTOR},
    {CUDNN_BACKEND_OPERATION_SDPA_FWD_DESCRIPTOR, CUDNN_ATTR_OPERATION_SDPA_FWD_QDESC, CUDNN_TYPE_BACKEND_DESCRIPTOR,
     1, 1,
     true, CUDNN_BACKEND_TENSOR_DESCRIPTOR},
    {CUDNN_BACKEND_OPERATION_SDPA_FWD_DESCRIPTOR, CUDNN_ATTR_OPERATION_SDPA_FWD_KDESC, CUDNN_TYPE_BACKEND_DESCRIPTOR,
     1, 1,
     true, CUDNN_BACKEND_TENSOR_DESCRIPTOR},
    {CUDNN_BACKEND_OPERATION_SDPA_FWD_DESCRIPTOR, CUDNN_ATTR_OPERATION_SDPA_FWD_VDESC, CUDNN_TYPE_BACKEND_DESCRIPTOR,
     1, 1,
     true, CUDNN_BACKEND_TENSOR_DESCRIPTOR},
    {CUDNN_BACKEND_OPERATION_SDPA_FWD_DESCRIPTOR, CUDNN_ATTR_OPERATION_SDPA_FWD_ODESC, CUDNN_TYPE_BACKEND_DESCRIPTOR,
     1, 1,
     true, CUDNN_BACKEND_TENSOR_DESCRIPTOR},
    {CUDNN_BACKEND_OPERATION_SDPA_FWD_DESCRIPTOR, CUDNN_ATTR_OPERATION_SDPA_FWD_SCALEDESC,
     CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, 1,
     false, CUDNN_BACKEND_TENSOR_DESCRIPTOR},
    {CUDNN_BACKEND_OPERATION_SDPA_FWD_DESCRIPTOR, CUDNN_ATTR_OPERATION_SDPA_FWD_SEQ_LEN_QDESC,
     CUDNN_TYPE_BACKEND_DESCRIPTOR, 1,
     1, true, CUDNN_BACKEND_TENSOR_DESCRIPTOR},
    {CUDNN_BACKEND_OPERATION_SDPA_FWD_DESCRIPTOR, CUDNN_ATTR_OPERATION_SDPA_FWD_SEQ_LEN_KVDESC,
     CUDNN_TYPE_BACKEND_DESCRIPTOR,
     1, 1, true, CUDNN_BACKEND_TENSOR_DESCRIPTOR},
    {CUDNN_BACKEND_OPERATIONGRAPH_DESCRIPTOR, CUDNN_ATTR_OPERATIONGRAPH_HANDLE, CUDNN_TYPE_HANDLE, 1, 1, true, -1},
    {CUDNN_BACKEND_OPERATIONGRAPH_DESCRIPTOR, CUDNN_ATTR_OPERATIONGRAPH_OPS, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, 50,
     true, -1},
    {CUDNN_BACKEND_ENGINEHEUR_DESCRIPTOR, CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, 1,
     true,
     CUDNN_BACKEND_OPERATIONGRAPH_DESCRIPTOR},
    {CUDNN_BACKEND_ENGINEHEUR_DESCRIPTOR, CUDNN_ATTR_ENGINEHEUR_MODE, CUDNN_TYPE_HEUR_MODE, 1, 1, true, -1},
    {CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR, CUDNN_ATTR_EXECUTION_PLAN_HANDLE, CUDNN_TYPE_HANDLE, 1, 1, true, -1},
    {CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR, CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG, CUDNN_TYPE_BACKEND_DESCRIPTOR,
     1, 1,
     true, CUDNN_BACKEND_ENGINECFG_DESCRIPTOR},
    {CUDNN_BACKEND_VARIANT_PACK_DESCRIPTOR, CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS, CUDNN_TYPE_INT64, 1, 50, true, -1},
    {CUDNN_BACKEND_VARIANT_PACK_DESCRIPTOR, CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS, CUDNN_TYPE_VOID_PTR, 1, 50, true,
     -1},
    {CUDNN_BACKEND_VARIANT_PACK_DESCRIPTOR, CUDNN_ATTR_VARIANT_PACK_WORKSPACE, CUDNN_TYPE_VOID_PTR, 1, 1, true, -1},
};

enum { WORKSPACE_BYTES = 256 };

size_t size_of(int type)
{
    switch (type) {
    case CUDNN_TYPE_BOOLEAN: return 1;
    case CUDNN_TYPE_INT64:
    case CUDNN_TYPE_VOID_PTR:
    case CUDNN_TYPE_HANDLE:
    case CUDNN_TYPE_BACKEND_DESCRIPTOR: return 8;
    default: return 4; /* enums */
    }
}

reference &object_of(void *descriptor)
{
    return *static_cast<reference *>(descriptor);
}

/* ---- tensors ---- */
struct tensor {
    int64_t id, dimension[4], stride[4];
    int type;
    bool is_virtual, by_value;

    explicit tensor(const reference &o)
    {
        id = o->value<int64_t>(CUDNN_ATTR_TENSOR_UNIQUE_ID);
        type = o->value<int>(CUDNN_ATTR_TENSOR_DATA_TYPE);
        is_virtual = o->has(CUDNN_ATTR_TENSOR_IS_VIRTUAL) && o->value<bool>(CUDNN_ATTR_TENSOR_IS_VIRTUAL);
        by_value = o->has(CUDNN_ATTR_TENSOR_IS_BY_VALUE) && o->value<bool>(CUDNN_ATTR_TENSOR_IS_BY_VALUE);
        for (size_t i = 0; i < 4; i++) {
            dimension[i] = o->value<int64_t>(CUDNN_ATTR_TENSOR_DIMENSIONS, i);
            stride[i] = o->value<int64_t>(CUDNN_ATTR_TENSOR_STRIDES, i);
        }
    }
    size_t elements() const /* from the first to the last */
    {
        int64_t last = 0;
        for (int i = 0; i < 4; i++)
            last += (dimension[i] - 1) * stride[i];
        return static_cast<size_t>(last + 1);
    }
};

float bf16_rounded(float x)
{
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    bits = (bits + 0x7fff + (bits >> 16 & 1)) & 0xffff0000u;
    memcpy(&x, &bits, sizeof x);
    return x == x ? x : NAN;
}

/* A tensor with its memory. */
struct view : tensor {
    std::vector<float> *inside; /* of a virtual one */
    void *memory;               /* of any other; the host's of one by value */

    /* A dimension of 1 is shared by all. */
    float load(const int64_t (&at)[4]) const
    {
        int64_t place = 0;
        for (int i = 0; i < 4; i++)
            place += (dimension[i] == 1 ? 0 : at[i]) * stride[i];
        if (is_virtual)
            return (*inside)[static_cast<size_t>(place)];
        if (type == CUDNN_DATA_FLOAT)
            return static_cast<const float *>(memory)[place];
        if (type == CUDNN_DATA_INT32)
            return static_cast<float>(static_cast<const int32_t *>(memory)[place]);
        uint32_t bits = static_cast<uint32_t>(static_cast<const uint16_t *>(memory)[place]) << 16;
        float value;
        memcpy(&value, &bits, sizeof value);
        return value;
    }

    void store(const int64_t (&at)[4], float value) const
    {
        int64_t place = 0;
        for (int i = 0; i < 4; i++)
            place += at[i] * stride[i];
        if (type == CUDNN_DATA_BFLOAT16)
            value = bf16_rounded(value);
        if (is_virtual) {
            (*inside)[static_cast<size_t>(place)] = value;
            return;
        }
        uint32_t bits;
        memcpy(&bits, &value, sizeof bits);
        static_cast<uint16_t *>(memory)[place] = static_cast<uint16_t>(bits >> 16);
    }
};

/* Everything of one execution. */
struct machine {
    std::map<int64_t, void *> memory;
    std::map<int64_t, std::vector<float>> inside;

    view operator()(const reference &o)
    {
        const tensor t(o);
        view result{t, nullptr, nullptr};
        if (t.is_virtual) {
            result.inside = &inside[t.id];
            result.inside->resize(t.elements(), NAN);
        } else {
            result.memory = memory.at(t.id);
        }
        return result;
    }

    int64_t number(const object &o, int name, int64_t otherwise)
    {
        return o.has(name) ? static_cast<int64_t>((*this)(o.to(name)).load({0, 0, 0, 0})) : otherwise;
    }
};

template <typename Work> void for_each(const tensor &t, Work work)
{
    int64_t at[4];
    for (at[0] = 0; at[0] < t.dimension[0]; at[0]++)
        for (at[1] = 0; at[1] < t.dimension[1]; at[1]++)
            for (at[2] = 0; at[2] < t.dimension[2]; at[2]++)
                for (at[3] = 0; at[3] < t.dimension[3]; at[3]++)
                    work(at);
}

void product(machine &m, const object &o)
{
    const view a = m(o.to(CUDNN_ATTR_OPERATION_MATMUL_ADESC)), b = m(o.to(CUDNN_ATTR_OPERATION_MATMUL_BDESC)),
        y = m(o.to(CUDNN_ATTR_OPERATION_MATMUL_CDESC));
    const int64_t rows = m.number(o, CUDNN_ATTR_OPERATION_MATMUL_GEMM_M_OVERRIDE_DESC, y.dimension[2]);
    const int64_t columns = m.number(o, CUDNN_ATTR_OPERATION_MATMUL_GEMM_N_OVERRIDE_DESC, y.dimension[3]);
    const int64_t depth = m.number(o, CUDNN_ATTR_OPERATION_MATMUL_GEMM_K_OVERRIDE_DESC, a.dimension[3]);
    for_each(y, [&](const int64_t(&at)[4]) {
        double sum = 0.0;
        const int64_t head_a = at[1] / (y.dimension[1] / a.dimension[1]),
                      head_b = at[1] / (y.dimension[1] / b.dimension[1]);
        for (int64_t k = 0; k < depth; k++)
            sum += static_cast<double>(a.load({at[0], head_a, at[2], k})) * b.load({at[0], head_b, k, at[3]});
        y.store(at, at[2] < rows && at[3] < columns ? static_cast<float>(sum) : NAN);
    });
}

float applied(int mode, float x, float b, float chosen)
{
    switch (mode) {
    case CUDNN_POINTWISE_ADD: return x + b;
    case CUDNN_POINTWISE_SUB: return x - b;
    case CUDNN_POINTWISE_MUL: return x * b;
    case CUDNN_POINTWISE_DIV: return x / b;
    case CUDNN_POINTWISE_EXP: return expf(x);
    case CUDNN_POINTWISE_LOG: return logf(x);
    case CUDNN_POINTWISE_CMP_LT: return x < b;
    case CUDNN_POINTWISE_LOGICAL_AND: return x != 0.0f && b != 0.0f;
    case CUDNN_POINTWISE_BINARY_SELECT: return chosen != 0.0f ? x : b;
    }
    return NAN;
}

void pointwise(machine &m, const object &o)
{
    const reference &how = o.to(CUDNN_ATTR_OPERATION_POINTWISE_PW_DESCRIPTOR);
    const int mode = how->value<int>(CUDNN_ATTR_POINTWISE_MODE);
    const view x = m(o.to(CUDNN_ATTR_OPERATION_POINTWISE_XDESC)), y = m(o.to(CUDNN_ATTR_OPERATION_POINTWISE_YDESC));
    const bool has_b = o.has(CUDNN_ATTR_OPERATION_POINTWISE_BDESC), has_t = o.has(CUDNN_ATTR_OPERATION_POINTWISE_TDESC);
    const view b = m(o.to(has_b ? CUDNN_ATTR_OPERATION_POINTWISE_BDESC : CUDNN_ATTR_OPERATION_POINTWISE_XDESC));
    const view t = m(o.to(has_t ? CUDNN_ATTR_OPERATION_POINTWISE_TDESC : CUDNN_ATTR_OPERATION_POINTWISE_XDESC));
    for_each(y, [&](const int64_t(&at)[4]) {
        if (mode == CUDNN_POINTWISE_GEN_INDEX) {
            y.store(at, static_cast<float>(at[how->value<int64_t>(CUDNN_ATTR_POINTWISE_AXIS)]));
            return;
        }
        y.store(at, applied(mode, x.load(at), has_b ? b.load(at) : NAN, has_t ? t.load(at) : NAN));
    });
}

/* Along the last dimension alone. */
void reduction(machine &m, const object &o)
{
    const int mode = o.to(CUDNN_ATTR_OPERATION_REDUCTION_DESC)->value<int>(CUDNN_ATTR_REDUCTION_OPERATOR);
    const view x = m(o.to(CUDNN_ATTR_OPERATION_REDUCTION_XDESC)), y = m(o.to(CUDNN_ATTR_OPERATION_REDUCTION_YDESC));
    for_each(y, [&](const int64_t(&at)[4]) {
        float result = mode == CUDNN_REDUCE_TENSOR_MAX ? -INFINITY : 0.0f;
        for (int64_t i = 0; i < x.dimension[3]; i++) {
            const float value = x.load({at[0], at[1], at[2], i});
            result =
                mode == CUDNN_REDUCE_TENSOR_MAX ? (value > result || value != value ? value : result) : result + value;
        }
        y.store(at, result);
    });
}

void attention(machine &m, const object &o)
{
    const view q = m(o.to(CUDNN_ATTR_OPERATION_SDPA_FWD_QDESC)), k = m(o.to(CUDNN_ATTR_OPERATION_SDPA_FWD_KDESC)),
        v = m(o.to(CUDNN_ATTR_OPERATION_SDPA_FWD_VDESC)), y = m(o.to(CUDNN_ATTR_OPERATION_SDPA_FWD_ODESC));
    const int64_t rows = m.number(o, CUDNN_ATTR_OPERATION_SDPA_FWD_SEQ_LEN_QDESC, q.dimension[2]);
    const int64_t keys = m.number(o, CUDNN_ATTR_OPERATION_SDPA_FWD_SEQ_LEN_KVDESC, k.dimension[2]);
    const bool scaled = o.has(CUDNN_ATTR_OPERATION_SDPA_FWD_SCALEDESC);
    const float scale = scaled ? m(o.to(CUDNN_ATTR_OPERATION_SDPA_FWD_SCALEDESC)).load({0, 0, 0, 0}) : 1.0f;
    std::vector<float> weight(static_cast<size_t>(keys));
    for (int64_t head = 0; head < q.dimension[1]; head++)
        for (int64_t row = 0; row < rows; row++) {
            const int64_t k_head = head / (q.dimension[1] / k.dimension[1]),
                          v_head = head / (q.dimension[1] / v.dimension[1]);
            float top = -INFINITY, sum = 0.0f;
            for (int64_t key = 0; key < keys; key++) {
                float dot = 0.0f;
                for (int64_t d = 0; d < q.dimension[3]; d++)
                    dot += q.load({0, head, row, d}) * k.load({0, k_head, key, d});
                weight[static_cast<size_t>(key)] = dot * scale;
                top = fmaxf(top, dot * scale);
            }
            for (float &w : weight) {
                w = expf(w - top);
                sum += w;
            }
            for (int64_t d = 0; d < v.dimension[3]; d++) {
                float value = 0.0f;
                for (int64_t key = 0; key < keys; key++)
                    value += bf16_rounded(weight[static_cast<size_t>(key)]) * v.load({0, v_head, key, d});
                y.store({0, head, row, d}, value / sum);
            }
        }
}

/* ---- graphs ---- */

/* The tensors of an operation, inputs before the output, which comes last. */
std::vector<reference> tensors_of(const object &o)
{
    std::vector<reference> inputs, output;
    for (const auto &entry : o.attributes)
        for (const reference &r : entry.second.references)
            if (r->kind == CUDNN_BACKEND_TENSOR_DESCRIPTOR) {
                const bool out = entry.first == CUDNN_ATTR_OPERATION_MATMUL_CDESC ||
                                 entry.first == CUDNN_ATTR_OPERATION_POINTWISE_YDESC ||
                                 entry.first == CUDNN_ATTR_OPERATION_REDUCTION_YDESC ||
                                 entry.first == CUDNN_ATTR_OPERATION_SDPA_FWD_ODESC;
                (out ? output : inputs).push_back(r);
            }
    inputs.insert(inputs.end(), output.begin(), output.end());
    return inputs;
}

/* What is virtual is written once, before it is read, and under one description. */
status check_graph(const object &graph)
{
    std::map<int64_t, reference> known;
    for (const reference &operation : graph.attributes.at(CUDNN_ATTR_OPERATIONGRAPH_OPS).references) {
        const std::vector<reference> tensors = tensors_of(*operation);
        for (size_t i = 0; i < tensors.size(); i++) {
            const tensor t(tensors[i]);
            const bool written = i + 1 == tensors.size();
            if (known.count(t.id) && known[t.id] != tensors[i])
                return fail(BAD_PARAM, "two tensors have one number");
            if (t.is_virtual && known.count(t.id) == written)
                return fail(BAD_PARAM, written ? "a virtual tensor is written twice"
                                               : "a virtual tensor is read before it is written");
            if (written && t.by_value)
                return fail(BAD_PARAM, "a number of the host's cannot be written");
            known[t.id] = tensors[i];
        }
    }
    return SUCCESS;
}

status check_tensor(const object &o)
{
    const reference r = std::make_shared<object>(o);
    const tensor t(r);
    for (int i = 0; i < 4; i++)
        if (t.dimension[i] <= 0 || t.stride[i] <= 0)
            return fail(BAD_PARAM, "dimensions and strides are positive");
    if (o.value<int64_t>(CUDNN_ATTR_TENSOR_BYTE_ALIGNMENT) % 4 || (t.is_virtual && t.by_value))
        return fail(BAD_PARAM, "alignment, or both virtual and by value");
    return SUCCESS;
}

/* Dimensions of 1 stretch. */
bool fits(int64_t part, int64_t whole)
{
    return part == whole || part == 1;
}

status check_operation(const object &o)
{
    if (o.kind == CUDNN_BACKEND_OPERATION_MATMUL_DESCRIPTOR) {
        const tensor a(o.to(CUDNN_ATTR_OPERATION_MATMUL_ADESC)), b(o.to(CUDNN_ATTR_OPERATION_MATMUL_BDESC)),
            y(o.to(CUDNN_ATTR_OPERATION_MATMUL_CDESC));
        if (a.dimension[3] != b.dimension[2] || a.dimension[2] != y.dimension[2] || b.dimension[3] != y.dimension[3] ||
            y.dimension[1] % a.dimension[1] || y.dimension[1] % b.dimension[1])
            return fail(BAD_PARAM, "the factors of a product do not fit");
    }
    if (o.kind == CUDNN_BACKEND_OPERATION_POINTWISE_DESCRIPTOR) {
        const std::vector<reference> tensors = tensors_of(o);
        const tensor y(tensors.back());
        for (const reference &r : tensors)
            for (int i = 0; i < 4; i++)
                if (!fits(tensor(r).dimension[i], y.dimension[i]))
                    return fail(BAD_PARAM, "the operands do not fit");
    }
    if (o.kind == CUDNN_BACKEND_OPERATION_SDPA_FWD_DESCRIPTOR) {
        const tensor q(o.to(CUDNN_ATTR_OPERATION_SDPA_FWD_QDESC)), k(o.to(CUDNN_ATTR_OPERATION_SDPA_FWD_KDESC)),
            v(o.to(CUDNN_ATTR_OPERATION_SDPA_FWD_VDESC)), y(o.to(CUDNN_ATTR_OPERATION_SDPA_FWD_ODESC));
        if (q.dimension[3] != k.dimension[3] || k.dimension[2] != v.dimension[2] || q.dimension[2] != y.dimension[2] ||
            q.dimension[1] != y.dimension[1] || v.dimension[3] != y.dimension[3] || q.dimension[1] % k.dimension[1])
            return fail(BAD_PARAM, "queries, keys, values and result do not fit");
    }
    return SUCCESS;
}

/* As the real one: no alignment, no count may be another than what the tensors were described with. */
status bind(machine &m, const object &graph, const object &variables)
{
    const size_t count = static_cast<size_t>(variables.attributes.at(CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS).count);
    if (variables.attributes.at(CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS).count != static_cast<int64_t>(count))
        return fail(BAD_PARAM, "as many pointers as numbers");
    for (size_t i = 0; i < count; i++)
        m.memory[variables.value<int64_t>(CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS, i)] =
            variables.value<void *>(CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS, i);
    size_t used = 0;
    std::map<int64_t, bool> seen;
    for (const reference &operation : graph.attributes.at(CUDNN_ATTR_OPERATIONGRAPH_OPS).references)
        for (const reference &r : tensors_of(*operation)) {
            const tensor t(r);
            if (t.is_virtual || seen[t.id])
                continue;
            seen[t.id] = true;
            used++;
            if (!m.memory.count(t.id) || !m.memory[t.id])
                return fail(BAD_PARAM, "a tensor has no pointer");
            if (!t.by_value && reinterpret_cast<uintptr_t>(m.memory[t.id]) % 16)
                return fail(2003, "a pointer is not aligned as it was said to be");
        }
    return used == count ? SUCCESS : fail(BAD_PARAM, "a pointer for no tensor");
}

void execute(machine &m, const object &graph)
{
    for (const reference &o : graph.attributes.at(CUDNN_ATTR_OPERATIONGRAPH_OPS).references)
        switch (o->kind) {
        case CUDNN_BACKEND_OPERATION_MATMUL_DESCRIPTOR: product(m, *o); break;
        case CUDNN_BACKEND_OPERATION_POINTWISE_DESCRIPTOR: pointwise(m, *o); break;
        case CUDNN_BACKEND_OPERATION_REDUCTION_DESCRIPTOR: reduction(m, *o); break;
        case CUDNN_BACKEND_OPERATION_SDPA_FWD_DESCRIPTOR: attention(m, *o); break;
        }
}

/* The last rows come out wrong. */
void spoil(machine &m, const object &graph)
{
    const view y = m(tensors_of(*graph.attributes.at(CUDNN_ATTR_OPERATIONGRAPH_OPS).references.back()).back());
    for (int64_t d = 0; d < y.dimension[3]; d++)
        for (int64_t row = y.dimension[2] - 20; row < y.dimension[2]; row++)
            y.store({0, y.dimension[1] - 1, row, d}, 0.5f);
}

struct handle {
    cudaStream_t stream = nullptr;
};

} // namespace

/* ---- the library's functions ---- */
EXPORTED int emulated_cudnn_plans(void) { return plans; }
EXPORTED int emulated_cudnn_executions(void) { return executions; }

EXPORTED size_t cudnnGetVersion(void)
{
    const char *version = getenv("EMULATED_CUDNN_VERSION");
    return version ? strtoull(version, nullptr, 10) : 92800;
}

EXPORTED size_t cudnnGetCudartVersion(void) { return 13000; }

EXPORTED status cudnnCreate(handle **out)
{
    if (has_fault("create"))
        return fail(NOT_INITIALIZED, "there is no card");
    *out = new handle;
    return SUCCESS;
}

EXPORTED status cudnnDestroy(handle *h)
{
    delete h;
    return SUCCESS;
}

EXPORTED status cudnnSetStream(handle *h, cudaStream_t stream)
{
    h->stream = stream;
    return SUCCESS;
}

EXPORTED const char *cudnnGetErrorString(status code)
{
    return code == NO_MEMORY ? "CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED" : "CUDNN_STATUS_EMULATED_ERROR";
}

EXPORTED void cudnnGetLastErrorString(char *message, size_t size)
{
    snprintf(message, size, "%s", last_error);
    last_error[0] = '\0';
}

EXPORTED status cudnnBackendCreateDescriptor(int kind, void **out)
{
    if (kind == CUDNN_BACKEND_OPERATION_SDPA_FWD_DESCRIPTOR && cudnnGetVersion() < 91500)
        return fail(NOT_SUPPORTED, "attention as one operation is younger");
    reference *made = new reference(std::make_shared<object>());
    (*made)->kind = kind;
    *out = made;
    return SUCCESS;
}

EXPORTED status cudnnBackendDestroyDescriptor(void *descriptor)
{
    delete static_cast<reference *>(descriptor);
    return SUCCESS;
}

EXPORTED status cudnnBackendSetAttribute(void *descriptor, int name, int type, int64_t count, const void *values)
{
    object &o = *object_of(descriptor);
    if (o.finalized)
        return fail(BAD_PARAM, "what is finalized stays as it is");
    for (const rule &r : rules) {
        if (r.kind != o.kind || r.name != name)
            continue;
        if (r.type != type || count < r.least || count > r.most || !values)
            return fail(BAD_PARAM, "an attribute's type or count");
        attribute &a = o.attributes[name];
        a = attribute();
        a.count = count;
        const unsigned char *bytes = static_cast<const unsigned char *>(values);
        a.bytes.assign(bytes, bytes + static_cast<size_t>(count) * size_of(type));
        for (int64_t i = 0; type == CUDNN_TYPE_BACKEND_DESCRIPTOR && i < count; i++) {
            const reference &to = object_of(static_cast<void *const *>(values)[i]);
            if (!to->finalized)
                return fail(NOT_FINALIZED, "a descriptor that is not finalized");
            if (r.refers_to >= 0 && to->kind != r.refers_to)
                return fail(BAD_PARAM, "a descriptor of another kind");
            a.references.push_back(to);
        }
        return SUCCESS;
    }
    return fail(BAD_PARAM, "no such attribute");
}

EXPORTED status cudnnBackendFinalize(void *descriptor)
{
    object &o = *object_of(descriptor);
    for (const rule &r : rules)
        if (r.kind == o.kind && r.required && !o.has(r.name))
            return fail(BAD_PARAM, "a required attribute is missing");
    status failed = o.kind == CUDNN_BACKEND_TENSOR_DESCRIPTOR           ? check_tensor(o)
                    : o.kind == CUDNN_BACKEND_OPERATIONGRAPH_DESCRIPTOR ? check_graph(o)
                                                                        : check_operation(o);
    if (o.kind == CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR) {
        if (has_fault("plan"))
            failed = fail(NOT_SUPPORTED, "no plan today");
        if (has_fault("plan-memory"))
            failed = fail(NO_MEMORY, "no memory for a plan");
        plans++;
    }
    o.finalized = !failed;
    return failed;
}

EXPORTED status cudnnBackendGetAttribute(void *descriptor, int name, int type, int64_t wanted, int64_t *count,
                                         void *values)
{
    const reference &o = object_of(descriptor);
    if (!o->finalized)
        return fail(NOT_FINALIZED, "a descriptor that is not finalized");
    if (o->kind == CUDNN_BACKEND_ENGINEHEUR_DESCRIPTOR && name == CUDNN_ATTR_ENGINEHEUR_RESULTS &&
        type == CUDNN_TYPE_BACKEND_DESCRIPTOR && wanted > 0) {
        *count = has_fault("engines") ? 0 : 1;
        if (*count) {
            object &engine = *object_of(static_cast<void **>(values)[0]);
            engine.attributes[CUDNN_ATTR_ENGINECFG_ENGINE].references = {o->to(CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH)};
            engine.finalized = true;
        }
        return SUCCESS;
    }
    if (o->kind == CUDNN_BACKEND_ENGINECFG_DESCRIPTOR && name == CUDNN_ATTR_ENGINECFG_ENGINE &&
        type == CUDNN_TYPE_BACKEND_DESCRIPTOR && wanted == 1) {
        object_of(*static_cast<void **>(values))->finalized = true;
        *count = 1;
        return SUCCESS;
    }
    if (o->kind == CUDNN_BACKEND_ENGINE_DESCRIPTOR && name == CUDNN_ATTR_ENGINE_NUMERICAL_NOTE &&
        type == CUDNN_TYPE_NUMERICAL_NOTE && wanted >= 1) {
        *static_cast<int *>(values) = has_fault("order") ? CUDNN_NUMERICAL_NOTE_NONDETERMINISTIC : 0;
        *count = 1;
        return SUCCESS;
    }
    if (o->kind == CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR && name == CUDNN_ATTR_EXECUTION_PLAN_WORKSPACE_SIZE &&
        type == CUDNN_TYPE_INT64 && wanted == 1) {
        *static_cast<int64_t *>(values) = WORKSPACE_BYTES;
        *count = 1;
        return SUCCESS;
    }
    return fail(BAD_PARAM, "nothing that can be asked");
}

EXPORTED status cudnnBackendExecute(handle *h, void *plan, void *variables)
{
    const reference &p = object_of(plan), &v = object_of(variables);
    if (!p->finalized || !v->finalized || p->value<handle *>(CUDNN_ATTR_EXECUTION_PLAN_HANDLE) != h || !h->stream)
        return fail(NOT_FINALIZED, "plan, variables or stream");
    emulated_stream_head *stream = static_cast<emulated_stream_head *>(static_cast<void *>(h->stream));
    if (has_fault("execute") || (has_fault("record") && stream->is_recorded(h->stream)))
        return fail(EXECUTION_FAILED, "the card does not want to");
    if (has_fault("execute-memory"))
        return fail(NO_MEMORY, "no memory for the kernel's code");
    const reference graph = p->to(CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG)->to(CUDNN_ATTR_ENGINECFG_ENGINE);
    std::shared_ptr<machine> m = std::make_shared<machine>();
    status failed = bind(*m, *graph, *v);
    if (failed)
        return failed;
    /* What the host gives by value is read now, the rest when the stream comes to it. */
    std::shared_ptr<std::map<int64_t, double>> by_value = std::make_shared<std::map<int64_t, double>>();
    for (const reference &operation : graph->attributes.at(CUDNN_ATTR_OPERATIONGRAPH_OPS).references)
        for (const reference &r : tensors_of(*operation))
            if (tensor(r).by_value) {
                double &copy = (*by_value)[tensor(r).id];
                memcpy(&copy, m->memory[tensor(r).id], sizeof(float));
                m->memory[tensor(r).id] = &copy;
            }
    unsigned char *workspace = v->value<unsigned char *>(CUDNN_ATTR_VARIANT_PACK_WORKSPACE);
    const bool wrong = has_fault("result");
    executions++;
    stream->enqueue(h->stream, [=] {
        memset(workspace, 0xff, WORKSPACE_BYTES);
        execute(*m, *graph);
        if (wrong)
            spoil(*m, *graph);
        by_value->size(); /* alive until here */
    });
    return SUCCESS;
}
