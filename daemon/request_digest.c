/* request_digest.c: see request_digest.h. */
#include "daemon/request_digest.h"

#include <stdio.h>
#include <string.h>

#include "base/json.h"
#include "base/sha256.h"

static void add_line(struct sha256 *sha, const char *text)
{
    sha256_add(sha, text, strlen(text));
    sha256_add(sha, "\n", 1);
}

/* "name DTYPE [shape] hash of the bytes" */
static void add_tensor(struct sha256 *sha, const struct tensor_view *tensor)
{
    struct sha256 bytes;
    char hex[65], shape[160] = "";
    size_t used = 0;
    sha256_start(&bytes);
    sha256_add(&bytes, tensor->data, (size_t)tensor->bytes);
    sha256_finish(&bytes, hex);
    for (int i = 0; i < tensor->dimensions && used < sizeof shape; i++)
        used += (size_t)snprintf(shape + used, sizeof shape - used, "%s%llu", i ? "," : "", (unsigned long long)tensor->shape[i]);
    sha256_add(sha, tensor->name, strlen(tensor->name));
    sha256_add(sha, " ", 1);
    sha256_add(sha, dtype_name(tensor->dtype), strlen(dtype_name(tensor->dtype)));
    sha256_add(sha, " [", 2);
    sha256_add(sha, shape, strlen(shape));
    sha256_add(sha, "] ", 2);
    add_line(sha, hex);
}

/* Tensors by name: their order in a message means nothing. */
static void add_tensors(struct sha256 *sha, const struct message *message)
{
    const char *last = "";
    for (size_t done = 0; done < message_tensor_count(message); done++) {
        const struct tensor_view *next = NULL;
        for (size_t i = 0; i < message_tensor_count(message); i++) {
            const struct tensor_view *tensor = message_tensor_at(message, i);
            if (strcmp(tensor->name, last) > 0 && (next == NULL || strcmp(tensor->name, next->name) < 0))
                next = tensor;
        }
        if (next == NULL) /* one without a name came first */
            return;
        add_tensor(sha, next);
        last = next->name;
    }
}

int request_digest(const struct job_request *request, char hex[REQUEST_DIGEST_BYTES], struct error *error)
{
    cJSON *params = job_request_params(&request->lance);
    char *text = json_print(params);
    cJSON_Delete(params);
    if (text == NULL)
        return error_set(error, ERROR_NO_MEMORY, "submit: out of memory");
    struct sha256 sha;
    sha256_start(&sha);
    add_line(&sha, "lanced request 1");
    add_line(&sha, lance_task_name(request->lance.task));
    add_line(&sha, request->model != NULL ? request->model : "");
    add_line(&sha, text);
    if (request->message != NULL)
        add_tensors(&sha, request->message);
    sha256_finish(&sha, hex);
    cJSON_free(text);
    return 0;
}
