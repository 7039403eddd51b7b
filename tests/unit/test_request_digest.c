/* test_request_digest.c: the names of requests and results, against protocol/vectors/digests.json. */
#include "daemon/request_digest.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "daemon/engine/model/checkpoint/model_file.h"
#include "daemon/result_digest.h"

static cJSON *vectors;

static int read_vectors(void **state)
{
    (void)state;
    struct error error;
    return model_file_json(&vectors, "protocol/vectors/digests.json", &error);
}

static int free_vectors(void **state)
{
    (void)state;
    cJSON_Delete(vectors);
    return 0;
}

/* The tensors of a vector, every byte 0x3f; returns how many. */
static size_t tensors_of(const cJSON *vector, struct tensor_view tensors[4])
{
    size_t count = 0;
    const cJSON *described, *length;
    cJSON_ArrayForEach(described, cJSON_GetObjectItem(vector, "tensors"))
    {
        struct tensor_view *tensor = &tensors[count++];
        const bool is_bytes = !strcmp(json_text(described, "dtype"), "U8");
        *tensor = (struct tensor_view){.name = described->string, .dtype = is_bytes ? DTYPE_U8 : DTYPE_F32};
        cJSON_ArrayForEach(length, cJSON_GetObjectItem(described, "shape"))
            tensor->shape[tensor->dimensions++] = (uint64_t)length->valuedouble;
        tensor->bytes = tensor_elements(tensor) * dtype_bytes(tensor->dtype);
        tensor->data = memset(malloc((size_t)tensor->bytes), 0x3f, (size_t)tensor->bytes);
    }
    return count;
}

/* The vector as a request that came in a message; `model` is the one asked for by name, or NULL. */
static struct job_request *open_request(const cJSON *vector, const char *model)
{
    struct tensor_view tensors[4];
    const size_t count = tensors_of(vector, tensors);
    struct error error = {0};
    struct message *message;
    struct job_request *request;
    void *data;
    uint64_t bytes;
    cJSON *envelope = json_object();
    json_add_text(envelope, "task", json_text(vector, "task"));
    json_add_text(envelope, "model", model);
    json_add(envelope, "params", cJSON_Duplicate(cJSON_GetObjectItem(vector, "params"), true));
    assert_int_equal(message_encode(&data, &bytes, envelope, tensors, count, &error), 0);
    if (message_parse(&message, data, bytes, MESSAGE_LIMIT_BYTES, &error))
        fail_msg("%s", error.text);
    message_adopt(message, data, free);
    struct payloads payloads;
    assert_int_equal(payloads_open(&payloads, message, &error), 0);
    if (job_request_open(&request, message, &payloads, &error))
        fail_msg("%s", error.text);
    cJSON_Delete(envelope);
    for (size_t i = 0; i < count; i++)
        free((void *)(uintptr_t)tensors[i].data);
    return request;
}

static void requests_and_results_have_the_names_that_are_written_down(void **state)
{
    (void)state;
    const cJSON *vector;
    int count = 0;
    cJSON_ArrayForEach(vector, cJSON_GetObjectItem(vectors, "digests"))
    {
        char digest[REQUEST_DIGEST_BYTES];
        struct job_request *opened = open_request(vector, NULL);
        job_request_hash(opened);
        if (strcmp(opened->hash, json_text(vector, "request")))
            fail_msg("\"%s\": the request's name is %s", json_text(vector, "name"), opened->hash);
        result_digest(opened->hash, json_text(vector, "model"), json_text(vector, "backend"),
                      json_text(vector, "build"), digest);
        assert_string_equal(digest, json_text(vector, "digest"));
        job_request_close(opened);
        count++;
    }
    assert_in_range(count, 8, 100);
}

static void digest_of(char hex[REQUEST_DIGEST_BYTES], const cJSON *vector, const char *model)
{
    struct job_request *request = open_request(vector, model);
    job_request_hash(request);
    request_digest(request, hex);
    job_request_close(request);
}

/* A size of one's own changes what a question or an edit is about, too. */
static void every_parameter_of_the_task_tells_requests_apart_and_others_do_not(void **state)
{
    (void)state;
    const struct { const char *name; double value; bool matters; } changes[] = {
        {"width", 48, true}, {"height", 96, true}, {"max_new_tokens", 7, true}, {"fps", 12, true},
        {"num_inference_steps", 7, false}, {"batch_size", 2, false}, {"a_name_that_nobody_knows", 1, false}};
    char before[REQUEST_DIGEST_BYTES], after[REQUEST_DIGEST_BYTES];
    cJSON *question = cJSON_Duplicate(cJSON_GetArrayItem(cJSON_GetObjectItem(vectors, "digests"), 5), true);
    assert_string_equal(json_text(question, "task"), "x2t_video");
    digest_of(before, question, NULL);
    for (size_t i = 0; i < sizeof changes / sizeof *changes; i++) {
        cJSON *changed = cJSON_Duplicate(question, true), *params = cJSON_GetObjectItem(changed, "params");
        cJSON_DeleteItemFromObject(params, changes[i].name);
        cJSON_AddNumberToObject(params, changes[i].name, changes[i].value);
        digest_of(after, changed, NULL);
        if ((strcmp(before, after) != 0) != changes[i].matters)
            fail_msg("%s %s", changes[i].name, changes[i].matters ? "makes no difference" : "makes a difference");
        cJSON_Delete(changed);
    }
    digest_of(after, question, "another model");
    assert_string_not_equal(before, after);
    cJSON_Delete(question);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(requests_and_results_have_the_names_that_are_written_down),
        cmocka_unit_test(every_parameter_of_the_task_tells_requests_apart_and_others_do_not),
    };
    return cmocka_run_group_tests(tests, read_vectors, free_vectors);
}
