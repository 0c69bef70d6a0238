/* Tokens of the API. A token has 256 random bits, so its plain SHA-256 cannot be turned back.
 */
#include "daemon/store_db.h"
#include "proto/base/clock.h"

int store_token_add(struct store *store, const char *name, const char *role, const char *hash,
                    struct err *err)
{
    struct query query;
    int changes = 0;
    int code = query_write(&query, store, &store->state,
                           "INSERT OR IGNORE INTO tokens VALUES(?,?,?,?)", err);
    if (code != 0)
        return code;
    query_text(&query, name);
    query_text(&query, role);
    query_text(&query, hash);
    query_int(&query, clock_wall_ms());
    code = query_run(&query, &changes, err);
    if (code == 0 && changes == 0)
        code = err_set(err, ERR_CONFLICT, "there is a token '%s' already", name);
    return code;
}

int store_token_remove(struct store *store, const char *name, struct err *err)
{
    struct query query;
    int changes = 0;
    int code =
        query_write(&query, store, &store->state, "DELETE FROM tokens WHERE name=?", err);
    if (code != 0)
        return code;
    query_text(&query, name);
    code = query_run(&query, &changes, err);
    if (code == 0 && changes == 0)
        code = err_set(err, ERR_NOT_FOUND, "there is no token '%s'", name);
    return code;
}

static void read_token(const struct query *query, struct token_row *out)
{
    column_copy(query, 0, out->name, sizeof out->name);
    column_copy(query, 1, out->role, sizeof out->role);
    out->created_ms = column_int(query, 2);
}

int store_token_find(struct store *store, const char *hash, struct token_row *out, bool *found,
                     struct err *err)
{
    struct query query;
    *found = false;
    int code = query_read(&query, store, &store->state,
                          "SELECT name, role, created_ms FROM tokens WHERE hash=?", err);
    if (code != 0)
        return code;
    query_text(&query, hash);
    code = query_next(&query, found, err);
    if (code == 0 && *found) {
        read_token(&query, out);
        query_end(&query);
    }
    return code;
}

int store_tokens(struct store *store, int (*each)(void *context, const struct token_row *token),
                 void *context, struct err *err)
{
    struct query query;
    bool row;
    int code = query_read(&query, store, &store->state,
                          "SELECT name, role, created_ms FROM tokens ORDER BY name", err);
    while (code == 0 && (code = query_next(&query, &row, err)) == 0 && row) {
        struct token_row token;
        read_token(&query, &token);
        code = each(context, &token);
    }
    query_end(&query);
    return code;
}
