/* cudnn.c: see cudnn.h. The few functions, types and numbers of cuDNN's public backend interface that are used are
 * declared here and in cudnn_numbers.h, so that nothing of it is needed to compile.
 *
 * The library takes a graph of operations, each described by attributes, offers engines for it, the best first, and
 * turns an engine into a plan. Attention can be described in two ways:
 *   as one operation     cuDNN 9.15 and later
 *   as its parts         product, scale, mask, softmax step by step, product: engines know this pattern in all of
 *                        version 9
 * The first is tried before the second. All tensors have the dimensions [1, heads, rows, head_dim] and strides
 * to fit: rows of several heads beside each other are read and written where they lie, and fewer key heads
 * than query heads are shared.
 *
 * Making a plan compiles a kernel, which takes the better part of a second. So that prompts of any length share plans,
 * a plan is for a number of keys that is rounded up, and each execution says how many of them are there.
 *
 * The first engine that can be made into a plan is taken, by the library's rules and not by measuring: the same shape
 * gets the same engine each time. Engines whose results depend on the order in which blocks finish are not taken. */
#include "kernels/cuda/cudnn.h"

#include <dlfcn.h>
#include <float.h>
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/cuda/cudnn_numbers.h"
#include "kernels/cuda/library.h"

typedef int status; /* 0: success */
typedef void *descriptor;

enum {
    LEAST_VERSION = 90800, ONE_OPERATION_VERSION = 91500,
    MINUS_INFINITY_VERSION = 91000, /* before, masked scores are the lowest finite number */
    BROKEN_FROM = 91000, BROKEN_TO = 91001, /* attention in bf16 is known to be wrong there */
    PLANS = 64, ENGINES = 16, NOTES = 16, DESCRIPTORS = 128,
};

/* Tensors with memory of their own, which an execution names by number, and those inside a graph. */
enum tensor_id {
    QUERIES = 1, KEYS, VALUES, RESULT, ROW_COUNT, KEY_COUNT, SCALE, MASKED_SCORE,
    SCORES, SCALED, ROW, COLUMN, ROW_THERE, KEY_THERE, BOTH_THERE, MASKED,
    MAXIMUM, BELOW_MAXIMUM, EXPONENTIALS, SUM, LOGARITHM, STATISTICS, WEIGHTS,
};

/* Everything a plan depends on. */
struct key {
    int q_rows, keys, heads, kv_heads, head_dim, q_stride, kv_stride, out_stride;
};

struct cudnn_plan {
    struct key key;
    bool used, possible, proven, one_operation;
    descriptor execution;
    size_t workspace_bytes;
    uint64_t number, last_used;
};

struct cudnn {
    void *library, *companions[2], *handle;
    size_t version;
    struct cudnn_plan plans[PLANS];
    uint64_t clock;
    bool starved; /* it had no memory since cudnn_starved was last asked */
    int refused;  /* shapes */
    char complaint[500], told[500];
    size_t (*get_version)(void);
    size_t (*get_cuda_version)(void);
    status (*create)(void **);
    status (*destroy)(void *);
    status (*set_stream)(void *, void *);
    const char *(*error_name)(status);
    void (*last_error)(char *, size_t);
    status (*make)(int type, descriptor *);
    status (*unmake)(descriptor);
    status (*set)(descriptor, int attribute, int type, int64_t count, const void *);
    status (*get)(descriptor, int attribute, int type, int64_t wanted, int64_t *count, void *);
    status (*finalize)(descriptor);
    status (*execute)(void *, descriptor plan, descriptor variables);
};

/* ---- finding the library ---- */
static bool find_functions(struct cudnn *c)
{
    const struct library_function functions[] = {
        {&c->get_version, "cudnnGetVersion"},
        {&c->get_cuda_version, "cudnnGetCudartVersion"},
        {&c->create, "cudnnCreate"},
        {&c->destroy, "cudnnDestroy"},
        {&c->set_stream, "cudnnSetStream"},
        {&c->error_name, "cudnnGetErrorString"},
        {&c->last_error, "cudnnGetLastErrorString"},
        {&c->make, "cudnnBackendCreateDescriptor"},
        {&c->unmake, "cudnnBackendDestroyDescriptor"},
        {&c->set, "cudnnBackendSetAttribute"},
        {&c->get, "cudnnBackendGetAttribute"},
        {&c->finalize, "cudnnBackendFinalize"},
        {&c->execute, "cudnnBackendExecute"},
    };
    return library_functions(c->library, functions, sizeof functions / sizeof *functions);
}

/* The library ends the program when one of these two, which it opens itself when it needs them, is not to be found: so
 * they are opened before anything else is asked. cuBLASLt is there already if cublas.c found it. */
static bool find_companions(struct cudnn *c)
{
    Dl_info where;
    void *inside;
    memcpy(&inside, &c->create, sizeof inside);
    const char *end = dladdr(inside, &where) ? strrchr(where.dli_fname, '/') : NULL;
    if (!end)
        return false;
    const int length = (int)(end - where.dli_fname);
    char path[4096], name[64];
    if (snprintf(path, sizeof path, "%.*s/libcudnn_graph.so.9", length, where.dli_fname) >= (int)sizeof path ||
        !(c->companions[0] = library_open_file(path)))
        return false;
    snprintf(name, sizeof name, "libcublasLt.so.%zu", c->get_cuda_version() / 1000);
    if ((c->companions[1] = library_open_file(name)))
        return true;
    static const char *const places[] = {"", "/../../*/lib"}; /* as other Python packages lie beside it */
    for (size_t i = 0; i < sizeof places / sizeof *places && !c->companions[1]; i++)
        if (snprintf(path, sizeof path, "%.*s%s/%s", length, where.dli_fname, places[i], name) < (int)sizeof path)
            c->companions[1] = library_open_matching(path);
    return c->companions[1] != NULL;
}

struct cudnn *cudnn_open(void)
{
    static const struct library_place place = {"LANCED_CUDNN", {"libcudnn.so.9", NULL}, "libcudnn.so.9"};
    struct cudnn *c = calloc(1, sizeof *c);
    if (!c)
        return NULL;
    c->library = library_open(&place);
    if (find_functions(c) && find_companions(c)) {
        c->version = c->get_version();
        if (c->version >= LEAST_VERSION && (c->version < BROKEN_FROM || c->version > BROKEN_TO) &&
            c->create(&c->handle) == 0)
            return c;
        c->handle = NULL;
    }
    cudnn_close(c);
    return NULL;
}

static void forget(struct cudnn *c, struct cudnn_plan *plan)
{
    if (plan->execution)
        c->unmake(plan->execution);
    *plan = (struct cudnn_plan){0};
}

void cudnn_close(struct cudnn *c)
{
    if (!c)
        return;
    for (int i = 0; i < PLANS; i++)
        if (c->plans[i].used)
            forget(c, &c->plans[i]);
    if (c->handle)
        c->destroy(c->handle);
    library_close(c->library);
    library_close(c->companions[0]);
    library_close(c->companions[1]);
    free(c);
}

/* ---- descriptors ----
 * A workshop is where descriptors are made for one plan or one execution. After a failure nothing more is done. */
struct workshop {
    struct cudnn *library;
    descriptor made[DESCRIPTORS], operations[DESCRIPTORS];
    int made_count, operation_count;
    status failed;
};

/* The library's answer, looked at: a want of memory is no property of a shape, and is told by the error's name. */
static status heard(struct cudnn *c, status answer)
{
    if (answer && strstr(c->error_name(answer), "ALLOC"))
        c->starved = true;
    return answer;
}

static descriptor make(struct workshop *w, int type)
{
    descriptor made = NULL;
    if (!w->failed && w->made_count == DESCRIPTORS)
        w->failed = -1;
    if (!w->failed && !(w->failed = heard(w->library, w->library->make(type, &made))))
        w->made[w->made_count++] = made;
    return made;
}

static void set(struct workshop *w, descriptor to, int attribute, int type, int64_t count, const void *values)
{
    if (!w->failed)
        w->failed = heard(w->library, w->library->set(to, attribute, type, count, values));
}

static void set_number(struct workshop *w, descriptor to, int attribute, int64_t value)
{
    set(w, to, attribute, CUDNN_TYPE_INT64, 1, &value);
}

static void set_descriptor(struct workshop *w, descriptor to, int attribute, descriptor value)
{
    set(w, to, attribute, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &value);
}

/* `value` is a C enum of the library's. */
static void set_choice(struct workshop *w, descriptor to, int attribute, int type, int value)
{
    set(w, to, attribute, type, 1, &value);
}

static void finalize(struct workshop *w, descriptor what)
{
    if (!w->failed)
        w->failed = heard(w->library, w->library->finalize(what));
}

static void close_workshop(struct workshop *w)
{
    while (w->made_count > 0)
        w->library->unmake(w->made[--w->made_count]);
}

/* ---- tensors and operations ---- */
enum place { IN_MEMORY, INSIDE, BY_VALUE };

static descriptor tensor(struct workshop *w, enum tensor_id id, int data_type, enum place place,
                         const int64_t dimensions[4], const int64_t strides[4])
{
    const bool yes = true;
    descriptor t = make(w, CUDNN_BACKEND_TENSOR_DESCRIPTOR);
    set_number(w, t, CUDNN_ATTR_TENSOR_UNIQUE_ID, id);
    set_choice(w, t, CUDNN_ATTR_TENSOR_DATA_TYPE, CUDNN_TYPE_DATA_TYPE, data_type);
    set_number(w, t, CUDNN_ATTR_TENSOR_BYTE_ALIGNMENT, 16);
    set(w, t, CUDNN_ATTR_TENSOR_DIMENSIONS, CUDNN_TYPE_INT64, 4, dimensions);
    set(w, t, CUDNN_ATTR_TENSOR_STRIDES, CUDNN_TYPE_INT64, 4, strides);
    if (place == INSIDE)
        set(w, t, CUDNN_ATTR_TENSOR_IS_VIRTUAL, CUDNN_TYPE_BOOLEAN, 1, &yes);
    if (place == BY_VALUE)
        set(w, t, CUDNN_ATTR_TENSOR_IS_BY_VALUE, CUDNN_TYPE_BOOLEAN, 1, &yes);
    finalize(w, t);
    return t;
}

/* Rows of several heads beside each other. */
static descriptor rows_tensor(struct workshop *w, enum tensor_id id, int heads, int rows, int head_dim, int stride)
{
    const int64_t dimensions[] = {1, heads, rows, head_dim};
    const int64_t strides[] = {(int64_t)rows * stride, head_dim, stride, 1};
    return tensor(w, id, CUDNN_DATA_BFLOAT16, IN_MEMORY, dimensions, strides);
}

/* One number, of the host's (BY_VALUE) or the device's, given at each execution. */
static descriptor number_tensor(struct workshop *w, enum tensor_id id, int data_type, enum place place)
{
    const int64_t one[] = {1, 1, 1, 1};
    return tensor(w, id, data_type, place, one, one);
}

/* [heads, rows, width] inside the graph; width is that of the scores, or 1. */
static descriptor score_tensor(struct workshop *w, enum tensor_id id, int data_type, const struct key *k, int64_t width)
{
    const int64_t dimensions[] = {1, k->heads, k->q_rows, width};
    const int64_t strides[] = {k->heads * k->q_rows * width, k->q_rows * width, width, 1};
    return tensor(w, id, data_type, INSIDE, dimensions, strides);
}

static void add_operation(struct workshop *w, descriptor operation)
{
    finalize(w, operation);
    if (!w->failed)
        w->operations[w->operation_count++] = operation;
}

/* y = a b, of which `rows` rows and `inner` (one of the two that `which` says) are there. */
static void product(struct workshop *w, descriptor a, descriptor b, descriptor y, descriptor rows, int which,
                    descriptor inner)
{
    descriptor how = make(w, CUDNN_BACKEND_MATMUL_DESCRIPTOR);
    set_choice(w, how, CUDNN_ATTR_MATMUL_COMP_TYPE, CUDNN_TYPE_DATA_TYPE, CUDNN_DATA_FLOAT);
    finalize(w, how);
    descriptor operation = make(w, CUDNN_BACKEND_OPERATION_MATMUL_DESCRIPTOR);
    set_descriptor(w, operation, CUDNN_ATTR_OPERATION_MATMUL_ADESC, a);
    set_descriptor(w, operation, CUDNN_ATTR_OPERATION_MATMUL_BDESC, b);
    set_descriptor(w, operation, CUDNN_ATTR_OPERATION_MATMUL_CDESC, y);
    set_descriptor(w, operation, CUDNN_ATTR_OPERATION_MATMUL_DESC, how);
    set_descriptor(w, operation, CUDNN_ATTR_OPERATION_MATMUL_GEMM_M_OVERRIDE_DESC, rows);
    set_descriptor(w, operation, which, inner);
    add_operation(w, operation);
}

/* y = MODE(x, b) for each element, computed as `math` says. What is NULL is left out; `chosen` says where y is x and
 * where b. `axis` is the dimension along which y counts; 0 for none. */
struct pointwise {
    int mode, math;
    descriptor x, b, chosen, y;
    int64_t axis;
};

static void pointwise(struct workshop *w, struct pointwise p)
{
    descriptor how = make(w, CUDNN_BACKEND_POINTWISE_DESCRIPTOR);
    set_choice(w, how, CUDNN_ATTR_POINTWISE_MODE, CUDNN_TYPE_POINTWISE_MODE, p.mode);
    set_choice(w, how, CUDNN_ATTR_POINTWISE_MATH_PREC, CUDNN_TYPE_DATA_TYPE, p.math);
    if (p.axis)
        set_number(w, how, CUDNN_ATTR_POINTWISE_AXIS, p.axis);
    finalize(w, how);
    descriptor operation = make(w, CUDNN_BACKEND_OPERATION_POINTWISE_DESCRIPTOR);
    set_descriptor(w, operation, CUDNN_ATTR_OPERATION_POINTWISE_PW_DESCRIPTOR, how);
    set_descriptor(w, operation, CUDNN_ATTR_OPERATION_POINTWISE_XDESC, p.x);
    if (p.b)
        set_descriptor(w, operation, CUDNN_ATTR_OPERATION_POINTWISE_BDESC, p.b);
    if (p.chosen)
        set_descriptor(w, operation, CUDNN_ATTR_OPERATION_POINTWISE_TDESC, p.chosen);
    set_descriptor(w, operation, CUDNN_ATTR_OPERATION_POINTWISE_YDESC, p.y);
    add_operation(w, operation);
}

static void unary(struct workshop *w, int mode, descriptor x, descriptor y)
{
    pointwise(w, (struct pointwise){.mode = mode, .math = CUDNN_DATA_FLOAT, .x = x, .y = y});
}

static void binary(struct workshop *w, int mode, descriptor x, descriptor b, descriptor y)
{
    pointwise(w, (struct pointwise){.mode = mode, .math = CUDNN_DATA_FLOAT, .x = x, .b = b, .y = y});
}

static void compare(struct workshop *w, int mode, descriptor x, descriptor b, descriptor y)
{
    pointwise(w, (struct pointwise){.mode = mode, .math = CUDNN_DATA_BOOLEAN, .x = x, .b = b, .y = y});
}

static void index_along(struct workshop *w, int64_t axis, descriptor x, descriptor y)
{
    pointwise(w, (struct pointwise){
                     .mode = CUDNN_POINTWISE_GEN_INDEX, .math = CUDNN_DATA_INT32, .x = x, .y = y, .axis = axis});
}

/* y = x reduced along the dimensions in which y is 1. */
static void reduction(struct workshop *w, int mode, descriptor x, descriptor y)
{
    descriptor how = make(w, CUDNN_BACKEND_REDUCTION_DESCRIPTOR);
    set_choice(w, how, CUDNN_ATTR_REDUCTION_OPERATOR, CUDNN_TYPE_REDUCTION_OPERATOR_TYPE, mode);
    set_choice(w, how, CUDNN_ATTR_REDUCTION_COMP_TYPE, CUDNN_TYPE_DATA_TYPE, CUDNN_DATA_FLOAT);
    finalize(w, how);
    descriptor operation = make(w, CUDNN_BACKEND_OPERATION_REDUCTION_DESCRIPTOR);
    set_descriptor(w, operation, CUDNN_ATTR_OPERATION_REDUCTION_XDESC, x);
    set_descriptor(w, operation, CUDNN_ATTR_OPERATION_REDUCTION_YDESC, y);
    set_descriptor(w, operation, CUDNN_ATTR_OPERATION_REDUCTION_DESC, how);
    add_operation(w, operation);
}

/* ---- the two graphs ---- */
static void one_operation(struct workshop *w, const struct key *k)
{
    descriptor q = rows_tensor(w, QUERIES, k->heads, k->q_rows, k->head_dim, k->q_stride);
    descriptor keys = rows_tensor(w, KEYS, k->kv_heads, k->keys, k->head_dim, k->kv_stride);
    descriptor values = rows_tensor(w, VALUES, k->kv_heads, k->keys, k->head_dim, k->kv_stride);
    descriptor result = rows_tensor(w, RESULT, k->heads, k->q_rows, k->head_dim, k->out_stride);
    descriptor row_count = number_tensor(w, ROW_COUNT, CUDNN_DATA_INT32, IN_MEMORY);
    descriptor key_count = number_tensor(w, KEY_COUNT, CUDNN_DATA_INT32, IN_MEMORY);
    descriptor scale = number_tensor(w, SCALE, CUDNN_DATA_FLOAT, BY_VALUE);
    descriptor operation = make(w, CUDNN_BACKEND_OPERATION_SDPA_FWD_DESCRIPTOR);
    set_descriptor(w, operation, CUDNN_ATTR_OPERATION_SDPA_FWD_QDESC, q);
    set_descriptor(w, operation, CUDNN_ATTR_OPERATION_SDPA_FWD_KDESC, keys);
    set_descriptor(w, operation, CUDNN_ATTR_OPERATION_SDPA_FWD_VDESC, values);
    set_descriptor(w, operation, CUDNN_ATTR_OPERATION_SDPA_FWD_ODESC, result);
    set_descriptor(w, operation, CUDNN_ATTR_OPERATION_SDPA_FWD_SCALEDESC, scale);
    set_descriptor(w, operation, CUDNN_ATTR_OPERATION_SDPA_FWD_SEQ_LEN_QDESC, row_count);
    set_descriptor(w, operation, CUDNN_ATTR_OPERATION_SDPA_FWD_SEQ_LEN_KVDESC, key_count);
    add_operation(w, operation);
}

/* Scores of rows and keys that are not there become minus infinity. */
static descriptor mask(struct workshop *w, const struct key *k, descriptor scores, descriptor rows, descriptor keys)
{
    descriptor row = score_tensor(w, ROW, CUDNN_DATA_INT32, k, k->keys);
    descriptor column = score_tensor(w, COLUMN, CUDNN_DATA_INT32, k, k->keys);
    descriptor row_there = score_tensor(w, ROW_THERE, CUDNN_DATA_BOOLEAN, k, k->keys);
    descriptor key_there = score_tensor(w, KEY_THERE, CUDNN_DATA_BOOLEAN, k, k->keys);
    descriptor both = score_tensor(w, BOTH_THERE, CUDNN_DATA_BOOLEAN, k, k->keys);
    descriptor masked = score_tensor(w, MASKED, CUDNN_DATA_FLOAT, k, k->keys);
    descriptor infinity = number_tensor(w, MASKED_SCORE, CUDNN_DATA_FLOAT, BY_VALUE);
    index_along(w, 2, scores, row);
    index_along(w, 3, scores, column);
    compare(w, CUDNN_POINTWISE_CMP_LT, row, rows, row_there);
    compare(w, CUDNN_POINTWISE_CMP_LT, column, keys, key_there);
    compare(w, CUDNN_POINTWISE_LOGICAL_AND, row_there, key_there, both);
    pointwise(w, (struct pointwise){.mode = CUDNN_POINTWISE_BINARY_SELECT, .math = CUDNN_DATA_FLOAT, .x = scores,
                                    .b = infinity, .chosen = both, .y = masked});
    return masked;
}

static void its_parts(struct workshop *w, const struct key *k)
{
    const int64_t transposed[] = {1, k->kv_heads, k->head_dim, k->keys};
    const int64_t transposed_strides[] = {(int64_t)k->keys * k->kv_stride, k->head_dim, 1, k->kv_stride};
    descriptor q = rows_tensor(w, QUERIES, k->heads, k->q_rows, k->head_dim, k->q_stride);
    descriptor keys = tensor(w, KEYS, CUDNN_DATA_BFLOAT16, IN_MEMORY, transposed, transposed_strides);
    descriptor values = rows_tensor(w, VALUES, k->kv_heads, k->keys, k->head_dim, k->kv_stride);
    descriptor result = rows_tensor(w, RESULT, k->heads, k->q_rows, k->head_dim, k->out_stride);
    descriptor row_count = number_tensor(w, ROW_COUNT, CUDNN_DATA_INT32, IN_MEMORY);
    descriptor key_count = number_tensor(w, KEY_COUNT, CUDNN_DATA_INT32, IN_MEMORY);
    descriptor scale = number_tensor(w, SCALE, CUDNN_DATA_FLOAT, BY_VALUE);
    descriptor scores = score_tensor(w, SCORES, CUDNN_DATA_FLOAT, k, k->keys);
    descriptor scaled = score_tensor(w, SCALED, CUDNN_DATA_FLOAT, k, k->keys);
    product(w, q, keys, scores, row_count, CUDNN_ATTR_OPERATION_MATMUL_GEMM_N_OVERRIDE_DESC, key_count);
    binary(w, CUDNN_POINTWISE_MUL, scores, scale, scaled);
    scaled = mask(w, k, scaled, row_count, key_count);
    descriptor maximum = score_tensor(w, MAXIMUM, CUDNN_DATA_FLOAT, k, 1);
    descriptor below = score_tensor(w, BELOW_MAXIMUM, CUDNN_DATA_FLOAT, k, k->keys);
    descriptor exponentials = score_tensor(w, EXPONENTIALS, CUDNN_DATA_FLOAT, k, k->keys);
    descriptor sum = score_tensor(w, SUM, CUDNN_DATA_FLOAT, k, 1);
    descriptor logarithm = score_tensor(w, LOGARITHM, CUDNN_DATA_FLOAT, k, 1);
    descriptor statistics = score_tensor(w, STATISTICS, CUDNN_DATA_FLOAT, k, 1);
    descriptor weights = score_tensor(w, WEIGHTS, CUDNN_DATA_BFLOAT16, k, k->keys);
    reduction(w, CUDNN_REDUCE_TENSOR_MAX, scaled, maximum);
    binary(w, CUDNN_POINTWISE_SUB, scaled, maximum, below);
    unary(w, CUDNN_POINTWISE_EXP, below, exponentials);
    reduction(w, CUDNN_REDUCE_TENSOR_ADD, exponentials, sum);
    unary(w, CUDNN_POINTWISE_LOG, sum, logarithm);      /* nobody reads these two: */
    binary(w, CUDNN_POINTWISE_ADD, maximum, logarithm, statistics); /* they are part of the pattern */
    binary(w, CUDNN_POINTWISE_DIV, exponentials, sum, weights);
    product(w, weights, values, result, row_count, CUDNN_ATTR_OPERATION_MATMUL_GEMM_K_OVERRIDE_DESC, key_count);
}

/* ---- plans ---- */
static bool depends_on_order(struct workshop *w, descriptor configuration)
{
    int64_t count = 0;
    int notes[NOTES] = {0};
    descriptor engine = make(w, CUDNN_BACKEND_ENGINE_DESCRIPTOR);
    if (w->failed ||
        w->library->get(configuration, CUDNN_ATTR_ENGINECFG_ENGINE, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &count,
                        &engine) != 0 ||
        w->library->get(engine, CUDNN_ATTR_ENGINE_NUMERICAL_NOTE, CUDNN_TYPE_NUMERICAL_NOTE, NOTES, &count, notes) != 0)
        return false; /* the engine does not say */
    for (int i = 0; i < NOTES && i < count; i++)
        if (notes[i] == CUDNN_NUMERICAL_NOTE_NONDETERMINISTIC)
            return true;
    return false;
}

/* The execution plan of one engine, or NULL. */
static descriptor plan_of(struct workshop *w, descriptor configuration, size_t *workspace_bytes)
{
    struct cudnn *c = w->library;
    descriptor plan = NULL;
    int64_t bytes = 0, count = 0;
    if (depends_on_order(w, configuration) || heard(c, c->make(CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR, &plan)) != 0)
        return NULL;
    if (c->set(plan, CUDNN_ATTR_EXECUTION_PLAN_HANDLE, CUDNN_TYPE_HANDLE, 1, &c->handle) == 0 &&
        c->set(plan, CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &configuration) == 0 &&
        heard(c, c->finalize(plan)) == 0 &&
        c->get(plan, CUDNN_ATTR_EXECUTION_PLAN_WORKSPACE_SIZE, CUDNN_TYPE_INT64, 1, &count, &bytes) == 0 &&
        bytes >= 0) {
        *workspace_bytes = (size_t)bytes;
        return plan;
    }
    c->unmake(plan);
    return NULL;
}

/* A plan for the operations of a workshop, from the engines that a rule of the library's proposes. */
static descriptor choose(struct workshop *w, descriptor graph, int rule, size_t *workspace_bytes)
{
    descriptor engines[ENGINES], plan = NULL;
    int64_t count = 0;
    descriptor proposals = make(w, CUDNN_BACKEND_ENGINEHEUR_DESCRIPTOR);
    set_descriptor(w, proposals, CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH, graph);
    set_choice(w, proposals, CUDNN_ATTR_ENGINEHEUR_MODE, CUDNN_TYPE_HEUR_MODE, rule);
    finalize(w, proposals);
    for (int i = 0; i < ENGINES; i++)
        engines[i] = make(w, CUDNN_BACKEND_ENGINECFG_DESCRIPTOR);
    if (!w->failed)
        w->failed = w->library->get(proposals, CUDNN_ATTR_ENGINEHEUR_RESULTS, CUDNN_TYPE_BACKEND_DESCRIPTOR, ENGINES,
                                    &count, engines);
    /* The next would give other bytes. */
    for (int i = 0; i < ENGINES && i < count && !w->failed && !w->library->starved && !plan; i++)
        plan = plan_of(w, engines[i], workspace_bytes);
    return plan;
}

/* A plan from one of the two descriptions; NULL with the library's words in `why`. */
static descriptor plan_from(struct cudnn *c, const struct key *k,
                            void (*describe)(struct workshop *, const struct key *), size_t *workspace_bytes, char *why,
                            size_t size)
{
    static const int rules[] = {CUDNN_HEUR_MODE_A, CUDNN_HEUR_MODE_FALLBACK};
    descriptor plan = NULL;
    for (size_t i = 0; i < sizeof rules / sizeof *rules && !plan && !c->starved; i++) {
        struct workshop w = {.library = c};
        describe(&w, k);
        descriptor graph = make(&w, CUDNN_BACKEND_OPERATIONGRAPH_DESCRIPTOR);
        set(&w, graph, CUDNN_ATTR_OPERATIONGRAPH_HANDLE, CUDNN_TYPE_HANDLE, 1, &c->handle);
        set(&w, graph, CUDNN_ATTR_OPERATIONGRAPH_OPS, CUDNN_TYPE_BACKEND_DESCRIPTOR, w.operation_count, w.operations);
        finalize(&w, graph);
        plan = choose(&w, graph, rules[i], workspace_bytes);
        if (!plan) {
            char details[200] = "";
            c->last_error(details, sizeof details);
            details[sizeof details - 1] = '\0';
            snprintf(why, size, "%s %s", w.failed > 0 ? c->error_name(w.failed) : "no engine takes it", details);
        }
        close_workshop(&w);
    }
    return plan;
}

static void build(struct cudnn *c, struct cudnn_plan *plan)
{
    char why[400] = "";
    if (c->version >= ONE_OPERATION_VERSION)
        plan->execution = plan_from(c, &plan->key, one_operation, &plan->workspace_bytes, why, sizeof why);
    plan->one_operation = plan->execution != NULL;
    if (!plan->execution && !c->starved)
        plan->execution = plan_from(c, &plan->key, its_parts, &plan->workspace_bytes, why, sizeof why);
    plan->possible = plan->execution != NULL;
    if (!plan->possible && !c->starved)
        cudnn_refuse(c, plan, why);
}

static struct key key_of(const struct cudnn_attention *a)
{
    return (struct key){a->q_rows,   a->most_keys, a->heads,     a->kv_heads,
                        a->head_dim, a->q_stride,  a->kv_stride, a->out_stride};
}

struct cudnn_plan *cudnn_plan_find(struct cudnn *c, const struct cudnn_attention *a)
{
    const struct key key = key_of(a);
    for (int i = 0; i < PLANS; i++)
        if (c->plans[i].used && memcmp(&c->plans[i].key, &key, sizeof key) == 0) {
            c->plans[i].last_used = ++c->clock;
            return &c->plans[i];
        }
    return NULL;
}

struct cudnn_plan *cudnn_plan_make(struct cudnn *c, const struct cudnn_attention *a)
{
    struct cudnn_plan *plan = &c->plans[0];
    for (int i = 1; i < PLANS; i++)
        if (c->plans[i].last_used < plan->last_used)
            plan = &c->plans[i];
    forget(c, plan);
    c->clock++;
    *plan = (struct cudnn_plan){.key = key_of(a), .used = true, .number = c->clock, .last_used = c->clock};
    c->starved = false;
    build(c, plan);
    if (plan->possible || !c->starved)
        return plan;
    forget(c, plan);
    return NULL;
}

bool cudnn_plan_possible(const struct cudnn_plan *plan) { return plan->possible; }
size_t cudnn_plan_workspace(const struct cudnn_plan *plan) { return plan->workspace_bytes; }
uint64_t cudnn_plan_number(const struct cudnn_plan *plan) { return plan->number; }
bool cudnn_plan_proven(const struct cudnn_plan *plan) { return plan->proven; }
void cudnn_plan_prove(struct cudnn_plan *plan) { plan->proven = true; }

void cudnn_refuse(struct cudnn *c, struct cudnn_plan *plan, const char *why)
{
    const struct key *k = &plan->key;
    plan->possible = false;
    c->refused++;
    snprintf(c->complaint, sizeof c->complaint,
             "cuDNN does not do attention of %d rows over %d keys (%d heads, %d of keys, of %d dimensions): %s",
             k->q_rows, k->keys, k->heads, k->kv_heads, k->head_dim, why);
}

int cudnn_refused(const struct cudnn *c) { return c->refused; }

bool cudnn_starved(struct cudnn *c)
{
    const bool starved = c->starved;
    c->starved = false;
    return starved;
}

const char *cudnn_complaint(struct cudnn *c)
{
    snprintf(c->told, sizeof c->told, "%s", c->complaint);
    c->complaint[0] = '\0';
    return c->told;
}

const char *cudnn_run(struct cudnn *c, struct cudnn_plan *plan, const struct cudnn_attention *a, void *workspace,
                      void *stream)
{
    float scale = a->scale, masked = c->version >= MINUS_INFINITY_VERSION ? -INFINITY : -FLT_MAX;
    const int64_t ids[] = {QUERIES, KEYS, VALUES, RESULT, ROW_COUNT, KEY_COUNT, SCALE, MASKED_SCORE};
    const void *const memory[] = {a->q, a->k, a->v, a->out, a->row_count, a->key_count, &scale, &masked};
    const int64_t count = plan->one_operation ? 7 : 8; /* it has no number for masked scores */
    struct workshop w = {.library = c};
    descriptor variables = make(&w, CUDNN_BACKEND_VARIANT_PACK_DESCRIPTOR);
    set(&w, variables, CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS, CUDNN_TYPE_VOID_PTR, count, memory);
    set(&w, variables, CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS, CUDNN_TYPE_INT64, count, ids);
    set(&w, variables, CUDNN_ATTR_VARIANT_PACK_WORKSPACE, CUDNN_TYPE_VOID_PTR, 1, &workspace);
    finalize(&w, variables);
    if (!w.failed)
        w.failed = heard(c, c->set_stream(c->handle, stream));
    if (!w.failed)
        w.failed = heard(c, c->execute(c->handle, plan->execution, variables));
    close_workshop(&w);
    return !w.failed ? NULL : w.failed > 0 ? c->error_name(w.failed) : "too many descriptors";
}
