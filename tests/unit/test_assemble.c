/* Tests of tests/golden/assemble.c: the model folders that the golden tests run on are the recorded ones. */
#include "tests/golden/assemble.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/sha256.h"
#include "daemon/engine/model/checkpoint/model_file.h"
#include "daemon/engine/model/checkpoint/checkpoint.h"

static const char golden[] = "tests/golden/data";
static char folder[] = "/tmp/lance-assemble-XXXXXX";

static int remove_folder(void **state)
{
    (void)state;
    char command[64];
    snprintf(command, sizeof command, "rm -r %s", folder);
    return system(command);
}

static int make_folder(void **state)
{
    (void)state;
    return mkdtemp(folder) ? 0 : -1;
}

static void assert_sum(const char *file, const char *recorded_as)
{
    char path[200], hex[65];
    struct error error = {0};
    struct safetensors *tensors;
    cJSON *sums;
    snprintf(path, sizeof path, "%s/tiny/sha256.json", golden);
    assert_int_equal(model_file_json(&sums, path, &error), 0);
    snprintf(path, sizeof path, "%s/%s", folder, file);
    if (safetensors_open(&tensors, path, &error))
        fail_msg("%s", error.text);
    struct sha256 sha;
    sha256_start(&sha);
    /* The assembler writes in the order of names. */
    for (size_t i = 0; i < safetensors_count(tensors); i++)
        sha256_add(&sha, safetensors_at(tensors, i)->data, (size_t)safetensors_at(tensors, i)->bytes);
    sha256_finish(&sha, hex);
    assert_string_equal(hex, cJSON_GetStringValue(cJSON_GetObjectItem(sums, recorded_as)));
    safetensors_close(tensors);
    cJSON_Delete(sums);
}

static void assert_opens(const char *quant, const char *kind)
{
    struct error error = {0};
    struct checkpoint *checkpoint;
    char into[100];
    snprintf(into, sizeof into, "%s/%s", folder, quant ? quant : "plain");
    if (assemble_checkpoint(golden, quant, into, &error))
        fail_msg("%s", error.text);
    if (checkpoint_open(&checkpoint, &(struct checkpoint_options){.model_dir = into}, &error))
        fail_msg("%s", error.text);
    assert_string_equal(checkpoint_kind(checkpoint), kind);
    assert_true(checkpoint_can_generate(checkpoint));
    assert_true(checkpoint_can_see(checkpoint));
    checkpoint_close(checkpoint);
}

static void the_generated_tensors_are_the_recorded_ones(void **state)
{
    (void)state;
    assert_opens(NULL, "bf16");
    assert_sum("plain/model.safetensors", "model.safetensors");
    assert_sum("plain/Wan2.2_VAE.safetensors", "Wan2.2_VAE.safetensors");
}

static void every_quantised_form_makes_a_model_that_opens(void **state)
{
    (void)state;
    assert_opens("awq_g128", "awq-int4-g128");
    assert_opens("awq_g64", "awq-int4-g64");
    assert_opens("nvfp4", "nvfp4");
    assert_opens("nvfp4fp8", "nvfp4-fp8-scales");
}

static void an_unknown_form_is_refused_by_name(void **state)
{
    (void)state;
    struct error error = {0};
    char into[100];
    snprintf(into, sizeof into, "%s/none", folder);
    assert_int_equal(assemble_checkpoint(golden, "gguf", into, &error), ERROR_BAD_FILE);
    assert_non_null(strstr(error.text, "quant/gguf"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_generated_tensors_are_the_recorded_ones),
        cmocka_unit_test(every_quantised_form_makes_a_model_that_opens),
        cmocka_unit_test(an_unknown_form_is_refused_by_name),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
