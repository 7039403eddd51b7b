/* cublas.c: see cublas.h. The few functions, types and numbers of cuBLASLt's public interface that are used are
 * declared here (they are the same in versions 11 to 13), so that nothing of it is needed to compile.
 *
 * The library's choice of algorithm for a shape is asked once and kept. Sums that several blocks add in the order in
 * which they finish are not allowed: the same product gives the same bytes each time. A shape that was refused stays so
 * for as long as the library is open: its plan is never given up for another one's. */
#include "kernels/cuda/cublas.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/cuda/library.h"

enum {
    COMPUTE_F32 = 68, TYPE_F32 = 0, TYPE_BF16 = 14,
    OPERATION_TRANSPOSED = 1,
    DESC_TRANSPOSE_A = 3, DESC_EPILOGUE = 7, DESC_BIAS_POINTER = 8,
    EPILOGUE_BIAS = 4,
    PREFERENCE_WORKSPACE = 1, PREFERENCE_REDUCTION = 3,
    PREFERENCE_ALIGNMENT_A = 5, PREFERENCE_ALIGNMENT_B = 6, PREFERENCE_ALIGNMENT_C = 7, PREFERENCE_ALIGNMENT_D = 8,
    REDUCTION_THROUGH_WORKSPACE = 2,
};

typedef int status;
enum { SUCCESS = 0, ALLOC_FAILED = 3, NOT_SUPPORTED = 15 };
typedef void *handle;
struct algorithm {
    uint64_t data[8];
};
struct heuristic {
    struct algorithm algorithm;
    size_t workspace_bytes;
    status state;
    float waves;
    int reserved[4];
};

/* Everything the choice of an algorithm depends on. */
struct key {
    int rows, columns, depth, left_stride, right_stride, out_stride;
    int left_alignment, right_alignment, out_alignment;
    bool bias, add;
};

struct plan {
    struct key key;
    bool used, possible, refused;
    handle operation, left, right, out;
    struct algorithm algorithm;
};

enum { PLANS = 64 };

struct cublas {
    void *library;
    handle handle;
    struct plan plans[PLANS];
    int next_plan, refused;
    status (*create)(handle *);
    status (*destroy)(handle);
    status (*operation_create)(handle *, int compute, int scale);
    status (*operation_destroy)(handle);
    status (*operation_set)(handle, int attribute, const void *, size_t);
    status (*layout_create)(handle *, int type, uint64_t rows, uint64_t columns, int64_t stride);
    status (*layout_destroy)(handle);
    status (*preference_create)(handle *);
    status (*preference_destroy)(handle);
    status (*preference_set)(handle, int attribute, const void *, size_t);
    status (*choose)(handle, handle operation, handle a, handle b, handle c, handle d, handle preference, int wanted,
                     struct heuristic *, int *found);
    status (*multiply)(handle, handle operation, const void *alpha, const void *a, handle a_layout, const void *b,
                       handle b_layout, const void *beta, const void *c, handle c_layout, void *d, handle d_layout,
                       const struct algorithm *, void *workspace, size_t workspace_bytes, void *stream);
};

/* ---- finding the library ---- */
static bool find_library(struct cublas *c)
{
    static const struct library_place place = {
        "LANCED_CUBLASLT", {"libcublasLt.so.13", "libcublasLt.so.12"}, "libcublasLt.so.1[23]"};
    const struct library_function functions[] = {
        {&c->create, "cublasLtCreate"},
        {&c->destroy, "cublasLtDestroy"},
        {&c->operation_create, "cublasLtMatmulDescCreate"},
        {&c->operation_destroy, "cublasLtMatmulDescDestroy"},
        {&c->operation_set, "cublasLtMatmulDescSetAttribute"},
        {&c->layout_create, "cublasLtMatrixLayoutCreate"},
        {&c->layout_destroy, "cublasLtMatrixLayoutDestroy"},
        {&c->preference_create, "cublasLtMatmulPreferenceCreate"},
        {&c->preference_destroy, "cublasLtMatmulPreferenceDestroy"},
        {&c->preference_set, "cublasLtMatmulPreferenceSetAttribute"},
        {&c->choose, "cublasLtMatmulAlgoGetHeuristic"},
        {&c->multiply, "cublasLtMatmul"},
    };
    c->library = library_open(&place);
    return library_functions(c->library, functions, sizeof functions / sizeof *functions);
}

struct cublas *cublas_open(void)
{
    struct cublas *c = calloc(1, sizeof *c);
    if (!c)
        return NULL;
    if (find_library(c) && c->create(&c->handle) == 0)
        return c;
    c->handle = NULL;
    cublas_close(c);
    return NULL;
}

/* ---- plans ---- */
static void forget(struct cublas *c, struct plan *plan)
{
    if (plan->operation)
        c->operation_destroy(plan->operation);
    const handle layouts[] = {plan->left, plan->right, plan->out};
    for (int i = 0; i < 3; i++)
        if (layouts[i])
            c->layout_destroy(layouts[i]);
    *plan = (struct plan){0};
}

void cublas_close(struct cublas *c)
{
    if (!c)
        return;
    for (int i = 0; i < PLANS; i++)
        if (c->plans[i].used)
            forget(c, &c->plans[i]);
    if (c->handle)
        c->destroy(c->handle);
    library_close(c->library);
    free(c);
}

/* The greatest power of two up to 256 that divides an address. */
static int alignment_of(const void *address)
{
    uintptr_t bits = (uintptr_t)address | 256;
    return (int)(bits & -bits);
}

static status choose(struct cublas *c, struct plan *plan)
{
    const struct key *k = &plan->key;
    handle preference = NULL;
    status failed = c->preference_create(&preference);
    if (failed)
        return failed;
    const struct {
        int attribute;
        uint32_t value;
    } settings[] = {
        {PREFERENCE_REDUCTION, REDUCTION_THROUGH_WORKSPACE},
        {PREFERENCE_ALIGNMENT_A, (uint32_t)k->right_alignment},
        {PREFERENCE_ALIGNMENT_B, (uint32_t)k->left_alignment},
        {PREFERENCE_ALIGNMENT_C, (uint32_t)k->out_alignment},
        {PREFERENCE_ALIGNMENT_D, (uint32_t)k->out_alignment},
    };
    const uint64_t workspace_bytes = CUBLAS_WORKSPACE_BYTES;
    failed = c->preference_set(preference, PREFERENCE_WORKSPACE, &workspace_bytes, sizeof workspace_bytes);
    for (size_t i = 0; i < sizeof settings / sizeof *settings && !failed; i++)
        failed = c->preference_set(preference, settings[i].attribute, &settings[i].value, sizeof settings[i].value);
    struct heuristic best = {0};
    int found = 0;
    if (!failed)
        failed = c->choose(c->handle, plan->operation, plan->right, plan->left, plan->out, plan->out, preference, 1,
                           &best, &found);
    c->preference_destroy(preference);
    plan->algorithm = best.algorithm;
    return failed ? failed : found == 1 ? best.state : NOT_SUPPORTED;
}

/* The library's matrices are column-major: what is a row here is a column there, so that out^T = right left^T. */
static status describe(struct cublas *c, struct plan *plan, const void *bias)
{
    const struct key *k = &plan->key;
    const int32_t transposed = OPERATION_TRANSPOSED, epilogue = EPILOGUE_BIAS;
    status failed = c->operation_create(&plan->operation, COMPUTE_F32, TYPE_F32);
    if (!failed)
        failed = c->operation_set(plan->operation, DESC_TRANSPOSE_A, &transposed, sizeof transposed);
    if (!failed && k->bias)
        failed = c->operation_set(plan->operation, DESC_EPILOGUE, &epilogue, sizeof epilogue);
    if (!failed && k->bias)
        failed = c->operation_set(plan->operation, DESC_BIAS_POINTER, &bias, sizeof bias);
    if (!failed)
        failed = c->layout_create(&plan->right, TYPE_BF16, (uint64_t)k->depth, (uint64_t)k->columns, k->right_stride);
    if (!failed)
        failed = c->layout_create(&plan->left, TYPE_BF16, (uint64_t)k->depth, (uint64_t)k->rows, k->left_stride);
    if (!failed)
        failed = c->layout_create(&plan->out, TYPE_BF16, (uint64_t)k->columns, (uint64_t)k->rows, k->out_stride);
    return failed;
}

/* The place of the plan that was made longest ago, emptied; NULL: all are those of refused shapes. */
static struct plan *place_for_plan(struct cublas *c)
{
    for (int i = 0; i < PLANS; i++) {
        struct plan *plan = &c->plans[c->next_plan];
        c->next_plan = (c->next_plan + 1) % PLANS;
        if (plan->refused)
            continue;
        if (plan->used)
            forget(c, plan);
        return plan;
    }
    return NULL;
}

static enum cublas_answer plan_for(struct cublas *c, const struct cublas_product *p, struct plan **out)
{
    struct key key;
    memset(&key, 0, sizeof key); /* its padding, too: keys are compared as bytes */
    key.rows = p->rows, key.columns = p->columns, key.depth = p->depth;
    key.left_stride = p->left_stride, key.right_stride = p->right_stride, key.out_stride = p->out_stride;
    key.left_alignment = alignment_of(p->left), key.right_alignment = alignment_of(p->right);
    key.out_alignment = alignment_of(p->out);
    key.bias = p->bias != NULL, key.add = p->add;
    struct plan *plan = NULL;
    for (int i = 0; i < PLANS && !plan; i++)
        if (c->plans[i].used && memcmp(&c->plans[i].key, &key, sizeof key) == 0)
            plan = &c->plans[i];
    if (!plan && (plan = place_for_plan(c))) {
        memcpy(&plan->key, &key, sizeof key);
        plan->used = true;
        status failed = describe(c, plan, p->bias);
        if (!failed)
            failed = choose(c, plan);
        plan->possible = !failed;
        if (failed == ALLOC_FAILED) { /* another time it may be possible */
            forget(c, plan);
            return CUBLAS_NO_MEMORY;
        }
    }
    *out = plan;
    return plan && plan->possible && !plan->refused ? CUBLAS_YES : CUBLAS_NO;
}

enum cublas_answer cublas_can(struct cublas *c, const struct cublas_product *p)
{
    struct plan *plan;
    return plan_for(c, p, &plan);
}

enum cublas_answer cublas_multiply(struct cublas *c, const struct cublas_product *p, void *workspace, void *stream)
{
    struct plan *plan;
    const float one = 1.0f, beta = p->add ? 1.0f : 0.0f;
    const enum cublas_answer can = plan_for(c, p, &plan);
    if (can != CUBLAS_YES)
        return can;
    status failed = p->bias ? c->operation_set(plan->operation, DESC_BIAS_POINTER, &p->bias, sizeof p->bias) : SUCCESS;
    if (!failed)
        failed = c->multiply(c->handle, plan->operation, &one, p->right, plan->right, p->left, plan->left, &beta,
                             p->out, plan->out, p->out, plan->out, &plan->algorithm, workspace, CUBLAS_WORKSPACE_BYTES,
                             stream);
    return !failed ? CUBLAS_YES : failed == ALLOC_FAILED ? CUBLAS_NO_MEMORY : CUBLAS_NO;
}

void cublas_refuse(struct cublas *c, const struct cublas_product *p)
{
    struct plan *plan;
    if (plan_for(c, p, &plan) != CUBLAS_YES)
        return;
    plan->refused = true;
    c->refused++;
}

int cublas_refused(const struct cublas *c)
{
    return c->refused;
}
