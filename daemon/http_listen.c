/* The listening socket. */
#include "daemon/http_internal.h"
#include "proto/base/log.h"
#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

int http_split_address(const char *address, char host[HTTP_HOST_MAX], char port[8],
                       struct err *err)
{
    const char *colon = strrchr(address, ':');
    const char *start = address, *end = colon;
    if (colon && address[0] == '[') {
        if (colon == address || colon[-1] != ']')
            return err_set(err, ERR_INVALID, "listen address %s: want [ADDRESS]:PORT", address);
        start = address + 1;
        end = colon - 1;
    } else if (colon && memchr(address, ':', (size_t)(colon - address))) {
        return err_set(err, ERR_INVALID, "listen address %s: put the IPv6 address in brackets",
                       address);
    }
    if (!colon || end <= start || end - start >= HTTP_HOST_MAX)
        return err_set(err, ERR_INVALID, "listen address %s: want HOST:PORT", address);
    size_t digits = strspn(colon + 1, "0123456789");
    if (digits == 0 || digits > 5 || colon[1 + digits] || atol(colon + 1) > 65535)
        return err_set(err, ERR_INVALID, "listen address %s: the port is not 0 to 65535",
                       address);
    snprintf(host, HTTP_HOST_MAX, "%.*s", (int)(end - start), start);
    snprintf(port, 8, "%s", colon + 1);
    return 0;
}

static int bound_port(int fd, uint16_t *port)
{
    struct sockaddr_storage address;
    socklen_t len = sizeof(address);
    char text[8];
    if (getsockname(fd, (struct sockaddr *)&address, &len) ||
        getnameinfo((struct sockaddr *)&address, len, NULL, 0, text, sizeof(text),
                    NI_NUMERICSERV | NI_NUMERICHOST))
        return ERR_IO;
    *port = (uint16_t)atoi(text);
    return 0;
}

static int bind_one(struct http *http, const struct addrinfo *info, struct err *err)
{
    const char *listen_text = http->daemon->config.listen;
    int on = 1;
    int fd = socket(info->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return err_set(err, ERR_IO, "listen on %s: %s", listen_text, strerror(errno));
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
    if (bind(fd, info->ai_addr, info->ai_addrlen) || listen(fd, HTTP_BACKLOG) ||
        bound_port(fd, &http->port)) {
        int rc = err_set(err, ERR_IO, "listen on %s: %s", listen_text, strerror(errno));
        close(fd);
        return rc;
    }
    http->doors[HTTP_DOOR_TCP].listen_fd = fd;
    return 0;
}

/* A socket that a daemon left behind is replaced; nothing else is. The state folder's lock says
 * that no other hebbd of this state runs. */
static int listen_unix(struct http *http, struct err *err)
{
    const char *path = http->daemon->config.socket;
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    struct stat info;
    if (strlen(path) >= sizeof(address.sun_path) || path[0] != '/')
        return err_set(err, ERR_INVALID,
                       "socket %s: want an absolute path of at most %zu bytes", path,
                       sizeof(address.sun_path) - 1);
    snprintf(address.sun_path, sizeof(address.sun_path), "%s", path);
    if (lstat(path, &info) == 0 && S_ISSOCK(info.st_mode))
        unlink(path);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0 || bind(fd, (struct sockaddr *)&address, sizeof(address)) || chmod(path, 0600) ||
        listen(fd, HTTP_BACKLOG)) {
        int rc = err_set(err, ERR_IO, "listen on %s: %s", path, strerror(errno));
        if (fd >= 0)
            close(fd);
        return rc;
    }
    http->doors[HTTP_DOOR_UNIX].listen_fd = fd;
    snprintf(http->socket_path, sizeof(http->socket_path), "%s", path);
    return 0;
}

void http_address_key(unsigned char out[16], const struct sockaddr *address)
{
    memset(out, 0, 16);
    if (address && address->sa_family == AF_INET) {
        out[10] = out[11] = 0xff;
        memcpy(out + 12, &((const struct sockaddr_in *)(const void *)address)->sin_addr, 4);
    } else if (address && address->sa_family == AF_INET6) {
        memcpy(out, &((const struct sockaddr_in6 *)(const void *)address)->sin6_addr, 16);
    }
}

bool http_address_loopback(const unsigned char key[16])
{
    static const unsigned char mapped[12] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};
    static const unsigned char v6[16] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1};
    return (memcmp(key, mapped, 12) == 0 && key[12] == 127) || memcmp(key, v6, 16) == 0;
}

int http_listen(struct http *http, struct err *err)
{
    char port[8];
    int rc = http_split_address(http->daemon->config.listen, http->listen_host, port, err);
    if (rc)
        return rc;
    struct addrinfo hints = {.ai_family = AF_UNSPEC,
                             .ai_socktype = SOCK_STREAM,
                             .ai_flags = AI_PASSIVE | AI_NUMERICSERV};
    struct addrinfo *found = NULL;
    int failed = getaddrinfo(http->listen_host, port, &hints, &found);
    if (failed)
        return err_set(err, ERR_INVALID, "listen address %s: %s", http->daemon->config.listen,
                       gai_strerror(failed));
    rc = bind_one(http, found, err);
    freeaddrinfo(found);
    http->wildcard =
        strcmp(http->listen_host, "0.0.0.0") == 0 || strcmp(http->listen_host, "::") == 0;
    if (!rc && http->daemon->config.socket)
        rc = listen_unix(http, err);
    return rc;
}
