#include "daemon/auth.h"
#include "daemon/secret.h"
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <unistd.h>

static const char *const role_names[AUTH_ROLES] = {
    [AUTH_NOBODY] = "nobody",
    [AUTH_READ] = "read",
    [AUTH_SUBMIT] = "submit",
    [AUTH_ADMIN] = "admin",
};

const char *auth_role_name(enum auth_role role) { return role_names[role]; }

bool auth_role_parse(enum auth_role *out, const char *name)
{
    for (int role = AUTH_READ; role < AUTH_ROLES; role++)
        if (strcmp(role_names[role], name) == 0) {
            *out = (enum auth_role)role;
            return true;
        }
    return false;
}

bool auth_name_good(const char *name)
{
    static const char letters[] =
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-";
    size_t len = strlen(name);
    return len > 0 && len < STORE_NAME_MAX && strspn(name, letters) == len &&
           strcmp(name, "local") != 0 && strcmp(name, "daemon") != 0;
}

/* The text behind "Bearer ", NULL if it is not that. */
static const char *bearer(const char *header)
{
    static const char scheme[] = "Bearer ";
    if (!header || strncasecmp(header, scheme, sizeof(scheme) - 1) != 0)
        return NULL;
    const char *token = header + sizeof(scheme) - 1;
    return token + strspn(token, " ");
}

int auth_token(struct daemon *daemon, const char *header, struct identity *out, struct err *err)
{
    *out = (struct identity){.role = AUTH_NOBODY};
    const char *token = bearer(header);
    if (!token || strlen(token) != SECRET_HEX_MAX - 1)
        return 0;
    if (daemon->token[0] && secret_equal(token, daemon->token)) {
        *out = (struct identity){.name = "local", .role = AUTH_ADMIN};
        return 0;
    }
    char hash[SECRET_HEX_MAX];
    struct token_row row;
    bool found = false;
    int rc = secret_hash(hash, token, err);
    if (!rc)
        rc = store_token_find(daemon->store, hash, &row, &found, err);
    if (rc || !found)
        return rc;
    snprintf(out->name, sizeof(out->name), "%s", row.name);
    if (!auth_role_parse(&out->role, row.role))
        return err_set(err, ERR_CORRUPT, "state.db: token %s has the unknown role '%s'",
                       row.name, row.role);
    return 0;
}

void auth_peer(int fd, struct identity *out)
{
    struct ucred peer;
    socklen_t len = sizeof(peer);
    *out = (struct identity){.role = AUTH_NOBODY};
    if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &len) || len != sizeof(peer))
        return;
    snprintf(out->name, sizeof(out->name), "uid:%u", (unsigned)peer.uid);
    if (peer.uid == geteuid() || peer.uid == 0)
        out->role = AUTH_ADMIN;
}
