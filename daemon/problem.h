/* Errors of the API: application/problem+json (RFC 9457). One row per code in problem.c gives
 * status and title. */
#ifndef HEBB_DAEMON_PROBLEM_H
#define HEBB_DAEMON_PROBLEM_H

#include "proto/base/err.h"
#include "proto/msg/spec.h"
#include <stddef.h>

struct api_answer;

enum problem {
    PROBLEM_BAD_REQUEST,    /* framing, escapes, headers: the request itself is malformed */
    PROBLEM_INVALID_QUERY,  /* a query option is unknown, twice there, or out of range */
    PROBLEM_INVALID_JSON,   /* the body is not JSON */
    PROBLEM_UNAUTHORIZED,   /* no token or a wrong one */
    PROBLEM_FOREIGN_ORIGIN, /* from another site's page */
    PROBLEM_FORBIDDEN,      /* the token's role is too low */
    PROBLEM_WRONG_HOST,     /* Host names another service: DNS rebinding */
    PROBLEM_NOT_FOUND,
    PROBLEM_METHOD,       /* 405, with Allow */
    PROBLEM_CONFLICT,     /* the job's state does not allow it */
    PROBLEM_IN_FLIGHT,    /* the first request with this key has no answer yet */
    PROBLEM_PRECONDITION, /* If-Match names another version */
    PROBLEM_TOO_LARGE,    /* body over the limit */
    PROBLEM_URI_TOO_LONG,
    PROBLEM_MEDIA_TYPE,   /* not application/json */
    PROBLEM_RANGE,        /* Range is outside the file */
    PROBLEM_IDEMPOTENCY,  /* the key was used with another body */
    PROBLEM_INVALID_BODY, /* fields of a body that is no job */
    PROBLEM_INVALID_JOB,  /* the job has faults: all of them in errors */
    PROBLEM_UNSUPPORTED,  /* this build or machine does not have the feature */
    PROBLEM_INTERNAL,
    PROBLEM_NOT_COMMITTED, /* the write could not be made durable; nothing happened */
    PROBLEM_READ_ONLY,     /* the disk is full or failing: reads only */
    PROBLEM_TOO_MANY_STREAMS,
    PROBLEM_UNAVAILABLE, /* stopping, or a limit was reached; try again */
    PROBLEM_COUNT,
};

int problem_status(enum problem problem);
const char *problem_code(enum problem problem);

/* Makes answer the problem, whatever it held. */
void problem_set(struct api_answer *answer, enum problem problem, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* The same with errors: [{"field", "reason"}]; says how many were left out above
 * SPEC_FAULTS_MAX. */
void problem_set_faults(struct api_answer *answer, enum problem problem, const char *detail,
                        const struct spec_faults *faults);

/* Adds a fault (kept up to SPEC_FAULTS_MAX, counted beyond). */
void problem_fault(struct spec_faults *faults, const char *field, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* The problem that fits an ERR_ code, with err's text. What only the daemon's owner should see
 * (I/O, memory) is logged and answered as internal without the text. */
void problem_set_err(struct api_answer *answer, int code, const struct err *err);

#endif
