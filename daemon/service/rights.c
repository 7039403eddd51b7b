/* rights.c: see rights.h. */
#include "daemon/service/rights.h"

#include <string.h>

#include "daemon/jobs/jobs.h"

_Static_assert((int)JOB_OWNER_MAX_BYTES == (int)TOKEN_NAME_MAX_BYTES, "a job's owner is the name of a token");

int rights_identify(struct identity *who, struct tokens *tokens, const char *token, bool is_of_owner,
                    struct error *error)
{
    const bool is_given = token && token[0] != '\0';
    *who = (struct identity){.is_admin = true};
    if (!tokens_are_asked_for(tokens) || (tokens_are_named(tokens) && is_of_owner && !is_given))
        return 0;
    if (is_given && tokens_find(tokens, token, who))
        return 0;
    who->is_admin = false;
    return error_set(error, ERROR_FORBIDDEN,
                     "token: is %s; set LANCED_TOKEN, or LANCED_TOKEN_FILE, to one that this lanced knows",
                     is_given ? "wrong" : "missing");
}

int rights_check_admin(const struct identity *who, struct error *error)
{
    if (who->is_admin)
        return 0;
    return error_set(error, ERROR_FORBIDDEN, "the token of \"%s\" may not do this: it takes one of an admin",
                     who->name);
}

const char *rights_owner(const struct identity *who)
{
    return who->is_admin ? NULL : who->name;
}

static bool is_of_another(const struct identity *who, struct jobs *jobs, const char *job)
{
    char owner[JOB_OWNER_MAX_BYTES + 1];
    return !who->is_admin && jobs_owner(jobs, job, owner) && strcmp(owner, who->name) != 0;
}

int rights_check_job(const struct identity *who, struct jobs *jobs, const char *job, struct error *error)
{
    return is_of_another(who, jobs, job) ? jobs_not_known(job, error) : 0;
}

int rights_check_id(const struct identity *who, struct jobs *jobs, const char *job, struct error *error)
{
    return is_of_another(who, jobs, job) ? rights_refuse_id(job, error) : 0;
}

int rights_refuse_id(const char *job, struct error *error)
{
    return error_set(error, ERROR_FORBIDDEN, "job %s: this id is another's; take another one", job);
}
