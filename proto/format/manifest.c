/* Writing and verifying a folder's manifest. */
#define XXH_STATIC_LINKING_ONLY /* the state's size */
#include "proto/format/manifest.h"
#include "proto/base/fsx.h"
#include "proto/base/mem.h"
#include "proto/format/filemap.h"
#include "proto/json/json.h"
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

enum {
    MANIFEST_MAX = 4 << 20,    /* bytes of manifest.json */
    MANIFEST_FILES_MAX = 4096, /* files it may name */
    NAME_MAX_BYTES = 255,
    DIGEST_HEX = 32,
    HASH_CHUNK = 4 << 20, /* bytes hashed before their pages are let go */
};

static const char MANIFEST_NAME[] = "manifest.json";
static const char MANIFEST_FORMAT[] = "hebb-manifest-1";

/* XXH3-128 of a file as 32 hex digits, high half first, and its length. */
static int digest_file(const char *path, char hex[DIGEST_HEX + 1], uint64_t *bytes,
                       struct err *err)
{
    struct filemap map;
    int rc = filemap_open(&map, path, err);
    if (rc)
        return rc;
    XXH3_state_t state;
    XXH3_INITSTATE(&state);
    bool fine = XXH3_128bits_reset(&state) == XXH_OK;
    for (size_t at = 0; at < map.bytes; at += HASH_CHUNK) {
        size_t part = map.bytes - at < HASH_CHUNK ? map.bytes - at : HASH_CHUNK;
        fine = fine && XXH3_128bits_update(&state, map.data + at, part) == XXH_OK;
        filemap_forget(&map, at, part);
    }
    XXH128_hash_t hash = XXH3_128bits_digest(&state);
    snprintf(hex, DIGEST_HEX + 1, "%016" PRIx64 "%016" PRIx64, (uint64_t)hash.high64,
             (uint64_t)hash.low64);
    *bytes = map.bytes;
    filemap_close(&map);
    return fine ? 0 : err_set(err, ERR_INTERNAL, "%s: XXH3 failed", path);
}

/* A plain name inside the folder: no path, nothing hidden, not the manifest, no text that JSON
 * escapes. */
static bool legal_name(const char *name)
{
    size_t length = strlen(name);
    if (length == 0 || length > NAME_MAX_BYTES || name[0] == '.' || strchr(name, '/') ||
        strcmp(name, MANIFEST_NAME) == 0)
        return false;
    for (size_t i = 0; i < length; i++) {
        unsigned char c = (unsigned char)name[i];
        if (c < 0x20 || c >= 0x7f || c == '"' || c == '\\')
            return false;
    }
    return true;
}

int manifest_write(const char *folder, const char *const *names, size_t count, uint64_t *bytes,
                   struct err *err)
{
    char path[FSX_PATH_MAX], hex[DIGEST_HEX + 1];
    uint64_t total = 0;
    struct buf text;
    buf_init(&text, MANIFEST_MAX);
    int rc = 0;
    if (count > MANIFEST_FILES_MAX)
        rc = err_set(err, ERR_LIMIT, "%s: %zu files, at most %d fit a manifest", folder, count,
                     MANIFEST_FILES_MAX);
    buf_printf(&text, "{\"format\":\"%s\",\"files\":[", MANIFEST_FORMAT);
    for (size_t i = 0; i < count && !rc; i++) {
        uint64_t length;
        if (!legal_name(names[i]))
            rc = err_set(err, ERR_INVALID, "manifest of %s: illegal file name '%.80s'", folder,
                         names[i]);
        if (!rc)
            rc = fsx_path(path, err, "%s/%s", folder, names[i]);
        if (!rc)
            rc = digest_file(path, hex, &length, err);
        if (!rc) {
            buf_printf(&text, "%s\n{\"name\":\"%s\",\"bytes\":%" PRIu64 ",\"xxh3_128\":\"%s\"}",
                       i ? "," : "", names[i], length, hex);
            total += length;
        }
    }
    buf_puts(&text, "\n]}\n");
    if (!rc && text.failed)
        rc = err_set(err, ERR_NO_MEMORY, "%s: no memory for the manifest", folder);
    if (!rc)
        rc = fsx_path(path, err, "%s/%s", folder, MANIFEST_NAME);
    if (!rc)
        rc = fsx_publish(path, text.data, text.len, 0644, err);
    buf_release(&text);
    if (!rc && bytes)
        *bytes = total;
    return rc;
}

/* One entry against the file that it names; *total grows by its length. */
static int verify_entry(const char *folder, const cJSON *entry, uint64_t *total,
                        struct err *err)
{
    char path[FSX_PATH_MAX], hex[DIGEST_HEX + 1];
    int64_t declared;
    uint64_t length;
    const char *name = json_string(entry, "name"), *digest = json_string(entry, "xxh3_128");
    if (!name || !digest || !json_int(&declared, entry, "bytes") || declared < 0 ||
        cJSON_GetArraySize(entry) != 3)
        return err_set(err, ERR_CORRUPT, "%s/%s: an entry is not {name, bytes, xxh3_128}",
                       folder, MANIFEST_NAME);
    if (!legal_name(name))
        return err_set(err, ERR_CORRUPT, "%s/%s: illegal file name '%.80s'", folder,
                       MANIFEST_NAME, name);
    int rc = fsx_path(path, err, "%s/%s", folder, name);
    if (!rc)
        rc = digest_file(path, hex, &length, err);
    if (rc == ERR_NOT_FOUND || rc == ERR_INVALID) /* listed, but not there as a file */
        return err_wrap(err, ERR_CORRUPT, "listed in %s", MANIFEST_NAME);
    if (rc)
        return rc;
    if (length != (uint64_t)declared)
        return err_set(err, ERR_CORRUPT, "%s has %" PRIu64 " bytes, the manifest says %" PRId64,
                       path, length, declared);
    if (strcmp(hex, digest) != 0)
        return err_set(err, ERR_CORRUPT, "%s: checksum %s, the manifest says %.32s", path, hex,
                       digest);
    *total += length;
    return 0;
}

static int compare_names(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

static int check_distinct(const char *folder, const cJSON *files, struct err *err)
{
    size_t count = 0;
    const char **names = mem_zeroed(MANIFEST_FILES_MAX, sizeof(*names));
    if (!names)
        return err_set(err, ERR_NO_MEMORY, "%s: no memory", folder);
    int rc = 0;
    const cJSON *entry;
    cJSON_ArrayForEach(entry, files)
    {
        const char *name = json_string(entry, "name");
        names[count++] = name ? name : "";
    }
    qsort(names, count, sizeof(*names), compare_names);
    for (size_t i = 1; i < count && !rc; i++) {
        if (strcmp(names[i - 1], names[i]) == 0)
            rc = err_set(err, ERR_CORRUPT, "%s/%s: file '%.80s' is listed twice", folder,
                         MANIFEST_NAME, names[i]);
    }
    free(names);
    return rc;
}

static int verify_files(const char *folder, const cJSON *manifest, uint64_t *total,
                        struct err *err)
{
    const char *format = json_string(manifest, "format");
    const cJSON *files = json_array(manifest, "files");
    if (!format || strcmp(format, MANIFEST_FORMAT) != 0)
        return err_set(err, ERR_CORRUPT, "%s/%s: format is '%.40s', not '%s'", folder,
                       MANIFEST_NAME, format ? format : "", MANIFEST_FORMAT);
    if (!files || cJSON_GetArraySize(manifest) != 2)
        return err_set(err, ERR_CORRUPT, "%s/%s: needs exactly format and files", folder,
                       MANIFEST_NAME);
    if (cJSON_GetArraySize(files) > MANIFEST_FILES_MAX)
        return err_set(err, ERR_CORRUPT, "%s/%s: lists %d files, at most %d are legal", folder,
                       MANIFEST_NAME, cJSON_GetArraySize(files), MANIFEST_FILES_MAX);
    int rc = check_distinct(folder, files, err);
    const cJSON *entry;
    cJSON_ArrayForEach(entry, files)
    {
        if (rc)
            break;
        rc = verify_entry(folder, entry, total, err);
    }
    return rc;
}

int manifest_verify(const char *folder, uint64_t *bytes, struct err *err)
{
    char path[FSX_PATH_MAX];
    uint64_t total = 0;
    cJSON *manifest = NULL;
    int rc = fsx_path(path, err, "%s/%s", folder, MANIFEST_NAME);
    if (rc)
        return rc;
    rc = json_read(&manifest, path, MANIFEST_MAX, err);
    if (rc) /* ERR_NOT_FOUND passes; a text that is no JSON is a broken manifest */
        return rc == ERR_INVALID || rc == ERR_LIMIT ? err_wrap(err, ERR_CORRUPT, "manifest")
                                                    : rc;
    rc = verify_files(folder, manifest, &total, err);
    cJSON_Delete(manifest);
    if (!rc && bytes)
        *bytes = total;
    return rc;
}
