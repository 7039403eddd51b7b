/* result_digest.c: see result_digest.h. */
#include "daemon/result_digest.h"

#include <string.h>

static void add(struct sha256 *sha, const char *text)
{
    sha256_add(sha, text, strlen(text));
}

void result_digest(const char *request, const char *model, const char *backend, const char *build,
                   char hex[SHA256_HEX_BYTES])
{
    struct sha256 sha;
    sha256_start(&sha);
    add(&sha, "lanced digest 1\nrequest ");
    add(&sha, request);
    add(&sha, "\nmodel ");
    add(&sha, model);
    add(&sha, "\nadapters\nbackend ");
    add(&sha, backend);
    add(&sha, "\nbuild ");
    add(&sha, build);
    add(&sha, "\n");
    sha256_finish(&sha, hex);
}
