/* reading.h on the CPU and on the CUDA backend: what is expected after each token of a text. (That it is what it should
 * be: tests/e2e/test_compare.py.) */
#include "cuda_fixture.h"

#include "daemon/engine/lance.h"
#include "daemon/engine/reading.h"
#include "tests/golden/assemble.h"

enum { TOKENS = 21, BEGINNING = 9, VOCABULARY = 1 << 18, NO_SUCH_TOKEN = 1 << 24 };

struct seen {
    int count, vocabulary;
    float *logits; /* [TOKENS, vocabulary] */
};

static char folder[] = "/tmp/lance-reading-XXXXXX";

static void watch(void *context, int token, const float *logits, int vocabulary)
{
    struct seen *seen = context;
    assert_int_equal(token, seen->count++);
    assert_in_range(vocabulary, 1, VOCABULARY);
    seen->vocabulary = vocabulary;
    seen->logits = realloc(seen->logits, sizeof(float) * (size_t)(seen->count * vocabulary));
    memcpy(seen->logits + (size_t)(token * vocabulary), logits, sizeof(float) * (size_t)vocabulary);
}

static int read_ids(struct kernels *kernels, const int32_t *ids, int count, struct seen *seen, struct error *error)
{
    struct lance_model *model;
    if (lance_model_open(&model, kernels, &(struct lance_model_options){.model_dir = folder}, error))
        fail_msg("%s", error->text);
    const int code = lance_read(model, ids, count, watch, seen, error);
    lance_model_close(model);
    return code;
}

static struct seen read_all(struct kernels *kernels, int count)
{
    struct error error;
    struct seen seen = {0};
    int32_t ids[TOKENS];
    for (int i = 0; i < count; i++)
        ids[i] = 5 + 7 * i;
    if (read_ids(kernels, ids, count, &seen, &error))
        fail_msg("%s", error.text);
    assert_int_equal(seen.count, count);
    return seen;
}

static void what_comes_later_changes_nothing(void **state)
{
    struct pair *p = *state;
    struct seen whole = read_all(p->cpu, TOKENS), beginning = read_all(p->cpu, BEGINNING);
    assert_near(beginning.logits, whole.logits, (size_t)(BEGINNING * whole.vocabulary), 1e-5, 1e-4);
    free(whole.logits), free(beginning.logits);
}

static void a_card_expects_what_the_processor_expects(void **state)
{
    struct pair *p = *state;
    struct seen cpu = read_all(p->cpu, TOKENS), card = read_all(p->cuda, TOKENS);
    assert_int_equal(cpu.vocabulary, card.vocabulary);
    assert_near(card.logits, cpu.logits, (size_t)(TOKENS * cpu.vocabulary), 0.02, 0.2);
    free(cpu.logits), free(card.logits);
}

static void what_cannot_be_read_is_refused(void **state)
{
    struct pair *p = *state;
    struct error error;
    struct seen seen = {0};
    const int32_t none[] = {1, NO_SUCH_TOKEN};
    assert_int_equal(read_ids(p->cpu, none, 0, &seen, &error), ERROR_TOO_LARGE);
    assert_int_equal(read_ids(p->cpu, none, LANCE_READING_TOKENS + 1, &seen, &error), ERROR_TOO_LARGE);
    assert_int_equal(read_ids(p->cpu, none, 2, &seen, &error), ERROR_INTERNAL);
    assert_int_equal(seen.count, 0);
}

static int open_both(void **state)
{
    struct error error = {0};
    if (!mkdtemp(folder) || assemble_checkpoint("tests/golden/data", NULL, folder, &error)) {
        print_error("%s\n", error.text);
        return -1;
    }
    return open_pair(state);
}

static int close_both(void **state)
{
    char command[64];
    snprintf(command, sizeof command, "rm -r %s", folder);
    return system(command) || close_pair(state);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_comes_later_changes_nothing),
        cmocka_unit_test(a_card_expects_what_the_processor_expects),
        cmocka_unit_test(what_cannot_be_read_is_refused),
    };
    return cmocka_run_group_tests(tests, open_both, close_both);
}
