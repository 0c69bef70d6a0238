#include "daemon/webhook_send.h"
#include "proto/base/mem.h"
#include <arpa/inet.h>
#include <curl/curl.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <unistd.h>

struct transfer {
    CURL *easy; /* NULL: free */
    struct curl_slist *headers;
    int64_t delivery;
    size_t answered;
    bool private_too, refused;
    char trouble[CURL_ERROR_SIZE];
};

struct sender {
    CURLM *multi;
    size_t busy;
    struct transfer transfers[WEBHOOK_SEND_MAX];
};

/* --- addresses --- */

static bool private_v4(uint32_t address)
{
    static const struct {
        uint32_t net;
        int bits;
    } nets[] = {
        {0x00000000, 8},  /* this network */
        {0x0a000000, 8},  /* private */
        {0x64400000, 10}, /* shared, RFC 6598 */
        {0x7f000000, 8},  /* loopback */
        {0xa9fe0000, 16}, /* link-local; clouds keep their secrets at 169.254.169.254 */
        {0xac100000, 12}, /* private */
        {0xc0000000, 24}, /* IETF protocol assignments */
        {0xc0a80000, 16}, /* private */
        {0xc6120000, 15}, /* benchmarks, RFC 2544 */
        {0xe0000000, 3},  /* multicast, reserved, broadcast */
    };
    for (size_t i = 0; i < sizeof nets / sizeof nets[0]; i++)
        if ((address ^ nets[i].net) >> (32 - nets[i].bits) == 0)
            return true;
    return false;
}

bool address_private(const struct sockaddr *address)
{
    if (address->sa_family == AF_INET) {
        struct sockaddr_in v4;
        memcpy(&v4, address, sizeof v4);
        return private_v4(ntohl(v4.sin_addr.s_addr));
    }
    if (address->sa_family != AF_INET6)
        return true;
    struct sockaddr_in6 v6;
    memcpy(&v6, address, sizeof v6);
    const unsigned char *b = v6.sin6_addr.s6_addr;
    uint32_t last =
        (uint32_t)b[12] << 24 | (uint32_t)b[13] << 16 | (uint32_t)b[14] << 8 | (uint32_t)b[15];
    uint32_t second =
        (uint32_t)b[2] << 24 | (uint32_t)b[3] << 16 | (uint32_t)b[4] << 8 | (uint32_t)b[5];
    static const unsigned char nat64[12] = {0, 0x64, 0xff, 0x9b};
    if (IN6_IS_ADDR_V4MAPPED(&v6.sin6_addr) || memcmp(b, nat64, 12) == 0)
        return private_v4(last);
    if (b[0] == 0x20 && b[1] == 0x02) /* 6to4 */
        return private_v4(second);
    return (b[0] & 0xe0) != 0x20; /* global unicast is 2000::/3; all else stays at home */
}

/* Asked by libcurl with every address that it is about to connect to: after the name was looked
 * up, so that a name that changes its address meanwhile gains nothing. */
static curl_socket_t open_socket(void *context, curlsocktype purpose,
                                 struct curl_sockaddr *address)
{
    struct transfer *transfer = context;
    (void)purpose;
    if (!transfer->private_too && address_private(&address->addr)) {
        transfer->refused = true;
        return CURL_SOCKET_BAD;
    }
    return socket(address->family, address->socktype | SOCK_CLOEXEC, address->protocol);
}

static char *part_of(CURLU *url, CURLUPart part)
{
    char *text = NULL;
    return curl_url_get(url, part, &text, CURLU_DEFAULT_PORT) == CURLUE_OK ? text : NULL;
}

int url_split(const char *url, struct url_parts *out, struct err *err)
{
    CURLU *handle = curl_url();
    int code = 0;
    if (handle == NULL)
        return err_set(err, ERR_NO_MEMORY, "address: out of memory");
    for (const char *c = url; *c && code == 0; c++)
        if ((unsigned char)*c <= 0x20 || (unsigned char)*c >= 0x7f || *c == '\\')
            code = err_set(err, ERR_INVALID, "the address has characters that it may not have");
    if (code == 0 && (curl_url_set(handle, CURLUPART_URL, url, 0) != CURLUE_OK))
        code = err_set(err, ERR_INVALID, "\"%.200s\" is no address", url);
    char *user = part_of(handle, CURLUPART_USER),
         *fragment = part_of(handle, CURLUPART_FRAGMENT);
    if (code == 0 && (user != NULL || fragment != NULL))
        code = err_set(err, ERR_INVALID, "the address has a user or a fragment");
    curl_free(user);
    curl_free(fragment);
    static const CURLUPart parts[] = {CURLUPART_SCHEME, CURLUPART_HOST, CURLUPART_PORT,
                                      CURLUPART_PATH};
    char *const texts[] = {out->scheme, out->host, out->port, out->path};
    const size_t sizes[] = {sizeof out->scheme, sizeof out->host, sizeof out->port,
                            sizeof out->path};
    for (size_t i = 0; code == 0 && i < 4; i++) {
        char *text = part_of(handle, parts[i]);
        if (text == NULL || strlen(text) >= sizes[i])
            code = err_set(err, ERR_INVALID, "the address is too long, or a part is missing");
        else
            snprintf(texts[i], sizes[i], "%s", text);
        curl_free(text);
    }
    curl_url_cleanup(handle);
    if (code == 0 && strcmp(out->scheme, "http") != 0 && strcmp(out->scheme, "https") != 0)
        code = err_set(err, ERR_INVALID, "the address is neither http nor https");
    for (char *c = out->host; code == 0 && *c; c++)
        if (*c >= 'A' && *c <= 'Z')
            *c = (char)(*c - 'A' + 'a');
    return code;
}

/* --- transfers --- */

int sender_create(struct sender **out, struct err *err)
{
    struct sender *sender = mem_zeroed(1, sizeof *sender);
    *out = NULL;
    if (sender == NULL)
        return err_set(err, ERR_NO_MEMORY, "webhooks: out of memory");
    if (curl_global_init(CURL_GLOBAL_DEFAULT) != CURLE_OK ||
        (sender->multi = curl_multi_init()) == NULL) {
        free(sender);
        return err_set(err, ERR_INTERNAL, "libcurl does not start");
    }
    *out = sender;
    return 0;
}

static void transfer_end(struct sender *sender, struct transfer *transfer)
{
    curl_multi_remove_handle(sender->multi, transfer->easy);
    curl_easy_cleanup(transfer->easy);
    curl_slist_free_all(transfer->headers);
    *transfer = (struct transfer){.easy = NULL};
    sender->busy--;
}

void sender_destroy(struct sender *sender)
{
    if (sender == NULL)
        return;
    for (size_t i = 0; i < WEBHOOK_SEND_MAX; i++)
        if (sender->transfers[i].easy != NULL)
            transfer_end(sender, &sender->transfers[i]);
    curl_multi_cleanup(sender->multi);
    curl_global_cleanup();
    free(sender);
}

size_t sender_busy(const struct sender *sender) { return sender->busy; }

/* The answer's body says nothing to us; a long one is a fault of the receiver. */
static size_t drop_answer(char *data, size_t size, size_t count, void *context)
{
    struct transfer *transfer = context;
    (void)data;
    transfer->answered += size * count;
    return transfer->answered > WEBHOOK_ANSWER_MAX ? 0 : size * count;
}

static bool set_options(struct transfer *transfer, const struct send *send)
{
    CURL *easy = transfer->easy;
    CURLcode bad = CURLE_OK;
#define SET(option, value) bad = bad != CURLE_OK ? bad : curl_easy_setopt(easy, option, value)
    SET(CURLOPT_URL, send->url);
    SET(CURLOPT_PROTOCOLS_STR, "http,https");
    SET(CURLOPT_FOLLOWLOCATION,
        0L);                /* a redirect leads where the configuration did not allow */
    SET(CURLOPT_PROXY, ""); /* nor does the environment */
    SET(CURLOPT_NETRC, (long)CURL_NETRC_IGNORED);
    SET(CURLOPT_NOSIGNAL, 1L);
    SET(CURLOPT_TIMEOUT, (long)WEBHOOK_TIMEOUT_S);
    SET(CURLOPT_CONNECTTIMEOUT, (long)WEBHOOK_TIMEOUT_S);
    SET(CURLOPT_USERAGENT, "hebbd/" HEBB_VERSION);
    SET(CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)send->body_len);
    SET(CURLOPT_COPYPOSTFIELDS, send->body);
    SET(CURLOPT_HTTPHEADER, transfer->headers);
    SET(CURLOPT_ERRORBUFFER, transfer->trouble);
    SET(CURLOPT_WRITEFUNCTION, drop_answer);
    SET(CURLOPT_WRITEDATA, transfer);
    SET(CURLOPT_OPENSOCKETFUNCTION, open_socket);
    SET(CURLOPT_OPENSOCKETDATA, transfer);
    SET(CURLOPT_PRIVATE, transfer);
    SET(CURLOPT_FRESH_CONNECT, 1L); /* every connection is asked about */
    SET(CURLOPT_FORBID_REUSE, 1L);
#undef SET
    return bad == CURLE_OK;
}

int sender_start(struct sender *sender, const struct send *send, struct err *err)
{
    struct transfer *transfer = sender->transfers;
    while (transfer < sender->transfers + WEBHOOK_SEND_MAX && transfer->easy != NULL)
        transfer++;
    if (transfer == sender->transfers + WEBHOOK_SEND_MAX)
        return err_set(err, ERR_LIMIT, "%d deliveries are under way", (int)WEBHOOK_SEND_MAX);
    transfer->easy = curl_easy_init();
    if (transfer->easy == NULL)
        return err_set(err, ERR_NO_MEMORY, "webhooks: out of memory");
    sender->busy++;
    transfer->delivery = send->delivery;
    transfer->private_too = send->private_too;
    for (const char *const *header = send->headers; *header != NULL; header++) {
        struct curl_slist *grown = curl_slist_append(transfer->headers, *header);
        if (grown != NULL)
            transfer->headers = grown;
    }
    if (!set_options(transfer, send) ||
        curl_multi_add_handle(sender->multi, transfer->easy) != CURLM_OK) {
        transfer_end(sender, transfer);
        return err_set(err, ERR_INTERNAL, "libcurl refuses a delivery");
    }
    return 0;
}

void sender_poll(struct sender *sender,
                 void (*ended)(void *context, int64_t delivery, int status,
                               const char *trouble),
                 void *context)
{
    int running, left;
    curl_multi_perform(sender->multi, &running);
    for (CURLMsg *message; (message = curl_multi_info_read(sender->multi, &left)) != NULL;) {
        struct transfer *transfer = NULL;
        long status = 0;
        char trouble[CURL_ERROR_SIZE + 32] = "";
        if (message->msg != CURLMSG_DONE)
            continue;
        CURLcode result = message->data.result;
        curl_easy_getinfo(message->easy_handle, CURLINFO_PRIVATE, &transfer);
        if (result == CURLE_OK)
            curl_easy_getinfo(message->easy_handle, CURLINFO_RESPONSE_CODE, &status);
        else if (transfer->refused)
            snprintf(trouble, sizeof trouble, "its address is private (webhook_private)");
        else
            snprintf(trouble, sizeof trouble, "%s",
                     transfer->trouble[0] ? transfer->trouble : curl_easy_strerror(result));
        int64_t delivery = transfer->delivery;
        transfer_end(sender, transfer);
        ended(context, delivery, (int)status, trouble);
    }
}
