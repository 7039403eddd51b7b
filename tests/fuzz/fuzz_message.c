/* fuzz_message.c: whatever reads the bytes of a request, without the service that answers it: the message, the
 * parameters of a job, its tensors and blobs, the names it gets, and the text that a journal keeps of it.
 *
 * The input is a message as it would come from a socket; or, when it begins with '{', a text that a journal may have
 * kept, which is also made a message (made_message.h). What is accepted is written for the journal and read again:
 * the same request, by its digest, and the same text.
 */
#include <stdlib.h>

#include "daemon/request_digest.h"
#include "daemon/request_record.h"
#include "tests/fuzz/made_message.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

/* What a blob that somebody has named holds, where the request does not say otherwise: "source" of 4 x 4 pixels, say.
 */
enum { KEPT_BYTES = 48 };

static void check_words(int code, const struct error *error)
{
    if (code == ERROR_INTERNAL || code >= 0 || error->text[0] == '\0')
        abort();
}

/* So many zeros, whatever they are called; NULL: more than is worth it. */
static struct blob *zeros(uint64_t bytes)
{
    struct blob *blob = bytes <= MADE_TENSOR_BYTES ? blob_make(bytes) : NULL;
    if (blob) {
        memset(blob->data, 0, bytes);
        sha256_of(blob->data, bytes, blob->sha256);
    }
    return blob;
}

static int fetch_any(void *context, const char *sha256, struct blob **blob, struct error *error)
{
    (void)context;
    (void)sha256;
    *blob = zeros(KEPT_BYTES);
    return *blob ? 0 : error_set(error, ERROR_NO_MEMORY, "out of memory");
}

/* A payload of the request that was written down. */
static int fetch_of(void *context, const char *sha256, struct blob **blob, struct error *error)
{
    const struct payloads *payloads = context;
    for (size_t i = 0; i < payloads->count; i++)
        if (strcmp(payloads->list[i].held->sha256, sha256) == 0) {
            *blob = blob_share(payloads->list[i].held);
            return 0;
        }
    return error_set(error, ERROR_NOT_FOUND, "no such payload");
}

/* What a journal keeps of it is the same request again. */
static void write_and_read(struct job_request *request)
{
    char digest[REQUEST_DIGEST_BYTES], digest_again[REQUEST_DIGEST_BYTES];
    struct job_request *again;
    struct error error;
    char *text = request_record_write(request);
    if (!text || request_record_read(&again, text, fetch_of, &request->payloads, &error) != 0)
        abort();
    job_request_hash(again);
    request_digest(request, digest);
    request_digest(again, digest_again);
    char *text_again = request_record_write(again);
    if (!text_again || strcmp(digest, digest_again) != 0 || strcmp(text, text_again) != 0 ||
        request->priority != again->priority || request->no_cache != again->no_cache)
        abort();
    cJSON_free(text);
    cJSON_free(text_again);
    job_request_close(again);
}

/* All that is done with a request before it is queued. */
static void use(struct job_request *request)
{
    struct error error = {0};
    const bool is_complete = payloads_missing_count(&request->payloads) == 0;
    const int code = job_request_check_numbers(request, &error);
    if (code != 0)
        check_words(code, &error);
    cJSON_Delete(payloads_missing(&request->payloads));
    if (payloads_missing_bytes(&request->payloads) > 0 && is_complete)
        abort();
    cJSON *params = job_request_params(&request->lance);
    if (!json_is_complete(params) || job_request_bytes(request) == 0)
        abort();
    cJSON_Delete(params);
    if (is_complete || payloads_unknown_count(&request->payloads) == 0)
        job_request_hash(request);
    if (is_complete)
        write_and_read(request);
}

/* A message with a job in it or with something else. Takes over its bytes. */
static void take(void *data, uint64_t bytes)
{
    struct message *message;
    struct payloads payloads;
    struct job_request *request;
    struct error error = {0};
    int code = message_parse(&message, data, bytes, MESSAGE_LIMIT_BYTES, &error);
    if (code != 0) {
        check_words(code, &error);
        free(data);
        return;
    }
    message_adopt(message, data, free);
    cJSON_Delete(job_request_unknown(message));
    code = payloads_open(&payloads, message, &error);
    for (size_t i = 0; code == 0 && i < payloads.count; i++)
        if (payloads.list[i].blob[0] != '\0')
            payload_give(&payloads.list[i], zeros(payloads.list[i].tensor.bytes));
    if (code == 0)
        code = payloads_name(&payloads, &error);
    if (code == 0)
        code = job_request_open(&request, message, &payloads, &error);
    if (code == 0) {
        use(request);
        job_request_close(request);
        return;
    }
    check_words(code, &error);
    payloads_close(&payloads);
    message_close(message);
}

static void read_kept(const char *text)
{
    struct job_request *request;
    struct error error = {0};
    const int code = request_record_read(&request, text, fetch_any, NULL, &error);
    if (code == 0)
        use(request);
    else
        check_words(code, &error);
    job_request_close(request);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    char *copy = malloc(bytes + 1);
    memcpy(copy, data, bytes);
    copy[bytes] = '\0';
    if (bytes == 0 || data[0] != '{') {
        take(copy, bytes);
        return 0;
    }
    void *message;
    uint64_t message_bytes;
    read_kept(copy);
    if (made_message(&message, &message_bytes, copy))
        take(message, message_bytes);
    free(copy);
    return 0;
}
