/* tls.c: see tls.h. */
#include "protocol/tls.h"

#include <stdlib.h>
#include <string.h>

#include "base/text_file.h"

static int alloc(nng_tls_config **out, nng_tls_mode mode, struct error *error)
{
    int result = nng_tls_config_alloc(out, mode);
    if (result == 0)
        return 0;
    *out = NULL;
    return error_set(error, result == NNG_ENOTSUP ? ERROR_UNSUPPORTED : ERROR_NO_MEMORY,
                     result == NNG_ENOTSUP ? "TLS: the nng that this program runs with was built without it"
                                           : "TLS: out of memory");
}

static void close_on_failure(nng_tls_config **config, int status)
{
    if (status == 0 || !*config)
        return;
    nng_tls_config_free(*config);
    *config = NULL;
}

int tls_open_server(nng_tls_config **out, const char *certificate, const char *key, struct error *error)
{
    char *public_text = NULL, *secret_text = NULL;
    int code = alloc(out, NNG_TLS_MODE_SERVER, error);
    if (code == 0)
        code = text_file_read(&public_text, certificate, TLS_FILE_MAX_BYTES, "--cert", error);
    if (code == 0)
        code = secret_file_read(&secret_text, key, TLS_FILE_MAX_BYTES, "--key", error);
    if (code == 0) {
        int result = nng_tls_config_own_cert(*out, public_text, secret_text, NULL);
        if (result != 0)
            code = error_set(error, ERROR_BAD_FILE,
                             "--cert %s, --key %s: %s; they must be PEM files, a certificate with those that it was "
                             "signed by behind it, and its key",
                             certificate, key, nng_strerror(result));
    }
    if (secret_text)
        explicit_bzero(secret_text, strlen(secret_text));
    free(secret_text);
    free(public_text);
    close_on_failure(out, code);
    return code;
}

static int trust(nng_tls_config *config, const char *ca, const struct endpoint *endpoint, struct error *error)
{
    char host[ENDPOINT_MAX_BYTES], port[ENDPOINT_MAX_BYTES], *text;
    endpoint_split(endpoint, host, port);
    int code = text_file_read(&text, ca, TLS_FILE_MAX_BYTES, "CA", error);
    if (code != 0)
        return code;
    int result = nng_tls_config_ca_chain(config, text, NULL);
    free(text);
    if (result == 0)
        result = nng_tls_config_server_name(config, host);
    if (result == 0)
        result = nng_tls_config_auth_mode(config, NNG_TLS_AUTH_MODE_REQUIRED);
    return result == 0 ? 0 : error_set(error, ERROR_BAD_FILE, "CA %s: %s; it must be a PEM file of certificates", ca,
                                       nng_strerror(result));
}

int tls_open_client(nng_tls_config **out, const char *ca, const struct endpoint *endpoint, struct error *error)
{
    *out = NULL;
    if (!ca || ca[0] == '\0')
        return error_set(error, ERROR_BAD_REQUEST,
                         "endpoint %s: needs the certificate of the CA that signed the daemon's: LANCED_CA, or "
                         "lancectl --ca FILE (ca.pem of lancectl ca)",
                         endpoint->url);
    int code = alloc(out, NNG_TLS_MODE_CLIENT, error);
    if (code == 0)
        code = trust(*out, ca, endpoint, error);
    close_on_failure(out, code);
    return code;
}
