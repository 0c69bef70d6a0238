/* Who asks, and what they may do. Three kinds of proof: the token of STATE/token (admin, made
 * for the daemon's own user), tokens made with `hebb token add` (kept as SHA-256), and, on the
 * Unix socket, the peer's user id. */
#ifndef HEBB_DAEMON_AUTH_H
#define HEBB_DAEMON_AUTH_H

#include "daemon/daemon.h"
#include "daemon/store.h"

/* Each may do what the ones before it may. */
enum auth_role {
    AUTH_NOBODY,
    AUTH_READ,   /* every GET but tokens, webhooks and audit */
    AUTH_SUBMIT, /* submit and change jobs */
    AUTH_ADMIN,  /* tokens, webhooks, audit, drain */
    AUTH_ROLES
};
const char *auth_role_name(enum auth_role role); /* "read", "submit", "admin" */
bool auth_role_parse(enum auth_role *out, const char *name);

struct identity {
    char
        name[STORE_NAME_MAX]; /* of the token; "local": STATE/token; "uid:N": the Unix socket */
    enum auth_role role;      /* AUTH_NOBODY: unknown */
};

/* The owner of an Authorization header's token ("Bearer TOKEN", NULL: absent). An unknown token
 * is no error: role AUTH_NOBODY. */
int auth_token(struct daemon *daemon, const char *header, struct identity *out,
               struct err *err);

/* The user at the other end of a Unix socket. The daemon's own user and root are admin. */
void auth_peer(int fd, struct identity *out);

/* 1 to 64 of A-Z a-z 0-9 . _ - , not "local" or "daemon". */
bool auth_name_good(const char *name);

#endif
