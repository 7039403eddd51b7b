/* tls.h: what nng needs to speak TLS: a daemon's certificate and key, or the CA that a client trusts. Files are PEM.
 * Plain functions; any thread. A configuration is freed with nng_tls_config_free; nng keeps it as long as it is in use.
 */
#ifndef LANCE_TLS_H
#define LANCE_TLS_H

#include <nng/nng.h>
#include <nng/supplemental/tls/tls.h>

#include "base/error.h"
#include "protocol/endpoint.h"

enum { TLS_FILE_MAX_BYTES = 1 << 20 };

/* For a daemon. The key must be its owner's alone. Errors: ERROR_IO, ERROR_BAD_FILE, ERROR_NO_MEMORY. */
int tls_open_server(nng_tls_config **out, const char *certificate, const char *key, struct error *error);

/* For a client, who trusts a daemon only with a certificate of this CA and for the endpoint's host. Likewise. */
int tls_open_client(nng_tls_config **out, const char *ca, const struct endpoint *endpoint, struct error *error);

#endif
