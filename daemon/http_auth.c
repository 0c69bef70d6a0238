/* What a browser says of where a request comes from: Host, Origin, Sec-Fetch-Site. */
#include "daemon/http_internal.h"
#include <arpa/inet.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

/* The name of a Host header without port and brackets. False if it is malformed. */
static bool host_name(const char *host, char name[HTTP_HOST_MAX], bool *bracketed)
{
    const char *start = host, *end, *port;
    *bracketed = host[0] == '[';
    if (*bracketed) {
        start = host + 1;
        end = strchr(host, ']');
        port = end ? end + 1 : NULL;
    } else {
        end = host + strcspn(host, ":");
        port = end;
    }
    if (!end || end <= start || end - start >= HTTP_HOST_MAX)
        return false;
    if (*port && (*port != ':' || port[1 + strspn(port + 1, "0123456789")] || !port[1]))
        return false;
    snprintf(name, HTTP_HOST_MAX, "%.*s", (int)(end - start), start);
    return true;
}

bool http_host_good(const struct http *http, const char *host)
{
    char name[HTTP_HOST_MAX], machine[HTTP_HOST_MAX] = "";
    bool bracketed;
    struct in_addr v4;
    struct in6_addr v6;
    if (!host_name(host, name, &bracketed))
        return false;
    bool is_v6 = inet_pton(AF_INET6, name, &v6) == 1;
    bool is_v4 = inet_pton(AF_INET, name, &v4) == 1;
    if (bracketed != is_v6)
        return false;
    for (size_t i = 0; i < http->daemon->config.host_count; i++)
        if (strcasecmp(name, http->daemon->config.hosts[i]) == 0)
            return true;
    if (strcasecmp(name, "localhost") == 0 || strcasecmp(name, http->listen_host) == 0)
        return true;
    if ((is_v4 && ntohl(v4.s_addr) >> 24 == 127) || (is_v6 && IN6_IS_ADDR_LOOPBACK(&v6)))
        return true;
    if (!http->wildcard)
        return false;
    gethostname(machine, sizeof(machine) - 1);
    return is_v4 || is_v6 || strcasecmp(name, machine) == 0;
}

bool http_origin_good(const char *origin, const char *host)
{
    static const char *const schemes[] = {"http://", "https://"};
    for (size_t i = 0; i < sizeof(schemes) / sizeof(schemes[0]); i++) {
        size_t len = strlen(schemes[i]);
        if (strncasecmp(origin, schemes[i], len) == 0 && strcasecmp(origin + len, host) == 0)
            return true;
    }
    return false;
}

bool http_site_good(const char *site)
{
    return strcmp(site, "same-origin") == 0 || strcmp(site, "none") == 0;
}
