/* The HTTP side: libmicrohttpd on the loop, authentication, routing, streams, problem+json. */
#ifndef HEBB_DAEMON_HTTP_H
#define HEBB_DAEMON_HTTP_H

#include "daemon/daemon.h"

struct http;

/* Binds config.listen and joins the loop. */
int http_create(struct http **out, struct daemon *daemon, struct err *err);
void http_destroy(struct http *http);
uint16_t http_port(const struct http *http); /* the bound port; config may say 0 */
/* After the turn's commit: sends answers that waited on it, wakes streams. commit_ok false: they become 503. */
void http_after_commit(struct http *http, bool commit_ok);

#endif
