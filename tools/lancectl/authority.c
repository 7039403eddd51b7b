/* authority.c: see authority.h.
 *
 * openssl is given a configuration of its own for each certificate. Names of hosts that are addresses stand in a
 * certificate as addresses, and once more as names, since the mbedTLS of Debian 12 looks for them there.
 */
#include "tools/lancectl/authority.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/text_file.h"
#include "base/whole_file.h"
#include "tools/lancectl/complain.h"
#include "tools/lancectl/say.h"

extern char **environ;

enum { CA_DAYS = 3650, HOST_DAYS = 825 };
enum { MOST_PATH_BYTES = 4096, MOST_NAMES_BYTES = 1000, MOST_SAID_BYTES = 8192, CONFIG_BYTES = 32 << 10 };

static const char name_characters[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789.:_-";

/* The parts of a configuration that are always the same. */
static const char common[] = "[req]\nprompt=no\ndistinguished_name=who\n[authority]\n"
                             "basicConstraints=critical,CA:TRUE,pathlen:0\nkeyUsage=critical,keyCertSign,cRLSign\n"
                             "subjectKeyIdentifier=hash\n[host]\nbasicConstraints=critical,CA:FALSE\n"
                             "keyUsage=critical,digitalSignature\nextendedKeyUsage=serverAuth\n"
                             "subjectKeyIdentifier=hash\nsubjectAltName=@names\n";

/* What is being made: its files, which have names of the moment until both are whole. */
struct making {
    const char *folder, *name; /* of the files, without what follows the dot */
    char config[MOST_PATH_BYTES], log[MOST_PATH_BYTES], key[MOST_PATH_BYTES], certificate[MOST_PATH_BYTES];
};

/* FOLDER/NAME; whether it fits. */
static bool join(char path[MOST_PATH_BYTES], const char *folder, const char *before, const char *name,
                 const char *behind)
{
    return snprintf(path, MOST_PATH_BYTES, "%s/%s%s%s", folder, before, name, behind) < MOST_PATH_BYTES;
}

static int name_files(struct making *making, const char *folder, const char *name, struct error *error)
{
    making->folder = folder;
    making->name = name;
    const bool fits = join(making->config, folder, ".", name, ".cnf") && join(making->key, folder, ".", name, ".key") &&
                      join(making->certificate, folder, ".", name, ".pem") &&
                      join(making->log, folder, ".", name, ".log");
    return fits ? 0 : error_set(error, ERROR_BAD_REQUEST, "%.80s...: is too long", folder);
}

/* What openssl said, the beginning. */
static int complain_of(const struct making *making, struct error *error)
{
    char *text = NULL;
    struct error unused;
    text_file_read(&text, making->log, MOST_SAID_BYTES, "", &unused);
    error_set(error, ERROR_IO, "openssl (3.0 or newer is needed) could not make the certificate: %.300s",
              text ? text : "it did not say why");
    free(text);
    return error->code;
}

static int run(const struct making *making, char *const *arguments, struct error *error)
{
    pid_t child;
    int status;
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_addopen(&actions, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
    posix_spawn_file_actions_addopen(&actions, STDERR_FILENO, making->log, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    int reason = posix_spawnp(&child, arguments[0], &actions, NULL, arguments, environ);
    posix_spawn_file_actions_destroy(&actions);
    if (reason != 0)
        return error_set(error, ERROR_IO, "cannot start openssl: %s; install it: apt-get install openssl",
                         strerror(reason));
    while (waitpid(child, &status, 0) < 0)
        if (errno != EINTR)
            return error_set(error, ERROR_IO, "openssl: %s", strerror(errno));
    return WIFEXITED(status) && WEXITSTATUS(status) == 0 ? 0 : complain_of(making, error);
}

/* A key and its certificate, signed by the CA of the folder, or, without `is_host`, as a CA. */
static int make_pair(const struct making *making, bool is_host, int days, struct error *error)
{
    char number[16], authority[MOST_PATH_BYTES], authority_key[MOST_PATH_BYTES];
    snprintf(number, sizeof number, "%d", days);
    join(authority, making->folder, "", "ca", ".pem"); /* name_files saw that longer ones fit */
    join(authority_key, making->folder, "", "ca", ".key");
    const char *arguments[] = {
        "openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-sha256",
        "-batch", "-days", number, "-config", making->config, "-extensions", is_host ? "host" : "authority",
        "-keyout", making->key, "-out", making->certificate, is_host ? "-CA" : NULL, authority, "-CAkey",
        authority_key, NULL};
    return run(making, (char *const *)arguments, error);
}

/* Give both files their names, the key's first: without it a certificate is worth nothing. */
static int name_pair(const struct making *making, struct error *error)
{
    char key[MOST_PATH_BYTES], certificate[MOST_PATH_BYTES];
    join(key, making->folder, "", making->name, ".key");
    join(certificate, making->folder, "", making->name, ".pem");
    if (chmod(making->key, 0600) == 0 && chmod(making->certificate, 0644) == 0 && rename(making->key, key) == 0 &&
        rename(making->certificate, certificate) == 0)
        return 0;
    return error_set(error, ERROR_IO, "cannot write %s: %s", certificate, strerror(errno));
}

static int make(const char *folder, const char *name, const char *config, bool is_host, int days, struct error *error)
{
    struct making making;
    int code = name_files(&making, folder, name, error);
    if (code)
        return code;
    code = whole_file_write(making.config, config, strlen(config), error);
    if (!code)
        code = make_pair(&making, is_host, days, error);
    if (!code)
        code = name_pair(&making, error);
    unlink(making.config);
    unlink(making.log);
    unlink(making.key);
    unlink(making.certificate);
    return code;
}

/* The CA of the folder, which is made where there is none. */
static int have_authority(const char *folder, struct error *error)
{
    char key[MOST_PATH_BYTES], certificate[MOST_PATH_BYTES], config[CONFIG_BYTES];
    if (!join(key, folder, "", "ca", ".key") || !join(certificate, folder, "", "ca", ".pem"))
        return error_set(error, ERROR_BAD_REQUEST, "%.80s...: is too long", folder);
    const bool has_key = !access(key, F_OK), has_certificate = !access(certificate, F_OK);
    if (has_key != has_certificate)
        return error_set(error, ERROR_BAD_FILE, "%s: has no ca.%s beside its ca.%s", folder, has_key ? "pem" : "key",
                         has_key ? "key" : "pem");
    if (has_key)
        return 0;
    snprintf(config, sizeof config, "%s[who]\nCN=lanced private CA\n[names]\n", common);
    return make(folder, "ca", config, false, CA_DAYS, error);
}

static bool is_address(const char *name)
{
    unsigned char bytes[sizeof(struct in6_addr)];
    return inet_pton(AF_INET, name, bytes) == 1 || inet_pton(AF_INET6, name, bytes) == 1;
}

static int check_name(const char *name, const char *host, struct error *error)
{
    const size_t length = strlen(name);
    const bool has_colon = strchr(name, ':') != NULL;
    if (length > 0 && strspn(name, name_characters) == length && name[0] != '.' && name[0] != '-' &&
        strcmp(name, "ca") != 0 && (!has_colon || is_address(name)))
        return 0;
    return error_set(error, ERROR_BAD_REQUEST,
                     "\"%s\": a host is its name or its address, or several of them: node1.example,10.0.0.5", host);
}

/* A certificate for a host, "NAME[,NAME...]"; and for "localhost", by which it is asked from itself. */
static int make_host(const char *folder, const char *host, int days, struct error *error)
{
    char names[MOST_NAMES_BYTES], config[CONFIG_BYTES] /* room for as many names */, *rest;
    if ((size_t)snprintf(names, sizeof names, "%s,localhost,127.0.0.1", host) >= sizeof names)
        return error_set(error, ERROR_BAD_REQUEST, "\"%.40s...\": is too long", host);
    if (host[0] == '\0' || host[0] == ',') /* which strtok_r would go over */
        return check_name("", host, error);
    const char *first = strtok_r(names, ",", &rest);
    int at = snprintf(config, sizeof config, "%s[who]\nCN=lanced\n[names]\n", common), count = 0;
    for (const char *name = first; name; name = strtok_r(NULL, ",", &rest)) {
        int code = check_name(name, host, error);
        if (code)
            return code;
        count++;
        at += snprintf(config + at, sizeof config - (size_t)at, "DNS.%d=%s\n", count, name);
        if (is_address(name))
            at += snprintf(config + at, sizeof config - (size_t)at, "IP.%d=%s\n", count, name);
    }
    return make(folder, first, config, true, days, error);
}

enum exit_code authority_command(const struct arguments *arguments)
{
    struct error error;
    const char *folder = arguments->operand;
    const int days = arguments->days ? arguments->days : HOST_DAYS;
    umask(077);
    int code = 0;
    if (mkdir(folder, 0700) && errno != EEXIST)
        code = error_set(&error, ERROR_IO, "cannot make the folder %s: %s", folder, strerror(errno));
    if (!code)
        code = have_authority(folder, &error);
    for (int i = 0; !code && i < arguments->file_count; i++)
        code = make_host(folder, arguments->files[i], days, &error);
    if (code) {
        complain(code, &error);
        return code == ERROR_BAD_REQUEST ? EXIT_USAGE : EXIT_NOT_WRITTEN;
    }
    say(stdout, "%s/ca.pem is for clients: LANCED_CA, or lancectl --ca\n%s/ca.key signs: keep it where only you are\n",
        folder, folder);
    for (int i = 0; i < arguments->file_count; i++) {
        const int length = (int)strcspn(arguments->files[i], ",");
        const char *name = arguments->files[i];
        say(stdout, "%s/%.*s.pem and .key are for that host: lanced --endpoint tls+tcp://0.0.0.0:8471 --cert %.*s.pem "
                    "--key %.*s.key --tokens FILE\n",
            folder, length, name, length, name, length, name);
    }
    return EXIT_OK;
}
