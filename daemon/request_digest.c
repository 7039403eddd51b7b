/* request_digest.c: see request_digest.h. */
#include "daemon/request_digest.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/sha256.h"

/* Texts of any length are added apart. */
__attribute__((format(printf, 2, 3))) static void add(struct sha256 *sha, const char *format, ...)
{
    char text[256];
    va_list arguments;
    va_start(arguments, format);
    const int length = vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    if (length > 0)
        sha256_add(sha, text, (size_t)length < sizeof text ? (size_t)length : sizeof text - 1);
}

/* ---- Tensors ---- */

/* "tensor name DTYPE [shape] hash of the bytes" */
static void add_tensor(struct sha256 *sha, const struct payload *payload)
{
    const struct tensor_view *tensor = &payload->tensor;
    char hex[SHA256_HEX_BYTES];
    if (payload->held)
        memcpy(hex, payload->held->sha256, sizeof hex);
    else if (sha256_is_hex(payload->blob))
        memcpy(hex, payload->blob, sizeof hex);
    else
        sha256_of(tensor->data, (size_t)tensor->bytes, hex);
    add(sha, "tensor ");
    sha256_add(sha, tensor->name, strlen(tensor->name));
    add(sha, " %s [", dtype_name(tensor->dtype));
    for (int i = 0; i < tensor->dimensions; i++)
        add(sha, "%s%" PRIu64, i > 0 ? "," : "", tensor->shape[i]);
    add(sha, "] %s\n", hex);
}

/* ---- Names ---- */

void job_request_hash(struct job_request *request)
{
    struct sha256 sha;
    sha256_start(&sha);
    add(&sha, "lanced request 1\n");
    parameters_hash(&sha, &request->lance);
    for (size_t i = 0; i < request->payloads.count; i++) /* by name: their order in a message means nothing */
        add_tensor(&sha, &request->payloads.list[i]);
    sha256_finish(&sha, request->hash);
}

void request_digest(const struct job_request *request, char hex[REQUEST_DIGEST_BYTES])
{
    struct sha256 sha;
    sha256_start(&sha);
    add(&sha, "request %s\n", request->hash);
    if (request->model)
        sha256_add(&sha, request->model, strlen(request->model));
    sha256_finish(&sha, hex);
}
