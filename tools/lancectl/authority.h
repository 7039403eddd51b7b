/* authority.h: `lancectl ca`: a private CA, and certificates for the hosts of a farm, made by the program openssl. No
 * daemon. */
#ifndef LANCECTL_AUTHORITY_H
#define LANCECTL_AUTHORITY_H

#include "tools/lancectl/arguments.h"
#include "tools/lancectl/exit_codes.h"

/* Into the folder (made with mode 0700 if need be) go ca.pem and ca.key, unless they are there, and for each host
 * "NAME[,NAME...]" its certificate NAME.pem and NAME.key, by its first name, in place of older ones. Keys have mode
 * 0600. Prints what to do with them, and its own errors. */
enum exit_code authority_command(const struct arguments *arguments);

#endif
