/* nghttp2 has checked the form of the headers (names, pseudo-headers, order); here they get their meaning. Values that
 * are needed when all headers are in are kept as references to nghttp2's own buffers, not copied. The session's thread.
 */
#include "server/grpc/headers.h"

#include <stdio.h>
#include <string.h>

#include "server/grpc/pool.h"
#include "server/grpc/text.h"

#define HEADER_OVERHEAD 32 /* RFC 9113, section 10.5.1 */
#define SHOWN_BYTES     200
#define CONTENT_TYPE    "application/grpc"
#define BINARY_SUFFIX   "-bin"

static bool equals(nghttp2_vec text, const char *expected)
{
    return text.len == strlen(expected) && memcmp(text.base, expected, text.len) == 0;
}

/* "application/grpc", alone or followed by "+proto" or "; parameters"; another codec is another content type. */
static bool is_grpc(nghttp2_vec value)
{
    size_t length = strlen(CONTENT_TYPE);
    if (value.len < length || strncasecmp((const char *)value.base, CONTENT_TYPE, length) != 0)
        return false;
    nghttp2_vec rest = {value.base + length, value.len - length};
    if (rest.len >= 6 && strncasecmp((const char *)rest.base, "+proto", 6) == 0)
        rest = (nghttp2_vec){rest.base + 6, rest.len - 6};
    return rest.len == 0 || rest.base[0] == ';' || rest.base[0] == ' ';
}

/* Whether a list as "identity, deflate,gzip" has the word. */
static bool lists(nghttp2_vec list, const char *word)
{
    const char *text = (const char *)list.base; /* nghttp2 ends it with NUL */
    const size_t length = strlen(word);
    while (*text != '\0') {
        text += strspn(text, ", \t");
        const size_t part = strcspn(text, ", \t;");
        if (part == length && memcmp(text, word, length) == 0)
            return true;
        text += strcspn(text, ",");
    }
    return false;
}

static bool is_binary(nghttp2_vec name)
{
    size_t length = strlen(BINARY_SUFFIX);
    return name.len > length && memcmp(name.base + name.len - length, BINARY_SUFFIX, length) == 0;
}

static void keep(nghttp2_rcbuf **slot, nghttp2_rcbuf *value)
{
    if (*slot != NULL)
        nghttp2_rcbuf_decref(*slot);
    nghttp2_rcbuf_incref(value);
    *slot = value;
}

/* Of the request as such, or of every client: nothing that a method would ask for. */
static bool is_plumbing(nghttp2_vec name)
{
    static const char *const names[] = {"te", "user-agent", "accept-encoding", "content-length"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        if (equals(name, names[i]))
            return true;
    }
    return name.len == 0 || name.base[0] == ':';
}

static bool keep_metadatum(struct rk_request_headers *headers, struct rk_pool *pool, uint64_t *budget,
                           nghttp2_rcbuf *name, nghttp2_rcbuf *value)
{
    const uint64_t bytes = nghttp2_rcbuf_get_buf(name).len + nghttp2_rcbuf_get_buf(value).len + HEADER_OVERHEAD;
    if (bytes > *budget)
        return false;
    if (headers->num_metadata == headers->max_metadata) {
        const uint32_t more = headers->max_metadata > 0 ? 2 * headers->max_metadata : 4;
        struct rk_metadatum *grown = rk_pool_realloc(pool, headers->metadata, more * sizeof *grown);
        if (grown == NULL)
            return false;
        headers->metadata = grown;
        headers->max_metadata = more;
    }
    nghttp2_rcbuf_incref(name);
    nghttp2_rcbuf_incref(value);
    headers->metadata[headers->num_metadata++] = (struct rk_metadatum){name, value};
    headers->metadata_bytes += bytes;
    *budget -= bytes;
    return true;
}

const char *rk_request_headers_find(const struct rk_request_headers *headers, const char *name)
{
    for (uint32_t i = 0; i < headers->num_metadata; i++) {
        if (equals(nghttp2_rcbuf_get_buf(headers->metadata[i].name), name))
            return (const char *)nghttp2_rcbuf_get_buf(headers->metadata[i].value).base; /* nghttp2 ends it with NUL */
    }
    return NULL;
}

bool rk_request_headers_add(struct rk_request_headers *headers, const struct rk_grpc_limits *limits,
                            struct rk_pool *pool, uint64_t *metadata_budget, nghttp2_rcbuf *name_buffer,
                            nghttp2_rcbuf *value_buffer)
{
    nghttp2_vec name = nghttp2_rcbuf_get_buf(name_buffer);
    nghttp2_vec value = nghttp2_rcbuf_get_buf(value_buffer);
    headers->count++;
    headers->bytes += name.len + value.len + HEADER_OVERHEAD;
    if (headers->count > limits->max_header_count || headers->bytes > limits->max_header_bytes)
        return false;
    if (equals(name, ":path"))
        keep(&headers->path, value_buffer);
    else if (equals(name, ":method"))
        headers->is_post = equals(value, "POST");
    else if (equals(name, "content-type"))
        headers->is_grpc = is_grpc(value);
    else if (equals(name, "grpc-timeout"))
        keep(&headers->timeout, value_buffer);
    else if (equals(name, "grpc-encoding"))
        keep(&headers->encoding, value_buffer);
    else if (equals(name, "grpc-accept-encoding"))
        headers->takes_gzip = lists(value, "gzip");
    else if (is_binary(name) && !rk_binary_header_check((const char *)value.base, value.len))
        keep(&headers->not_binary, name_buffer);
    else if (!is_plumbing(name))
        return keep_metadatum(headers, pool, metadata_budget, name_buffer, value_buffer);
    return true;
}

void rk_request_headers_deinit(struct rk_request_headers *headers, struct rk_pool *pool, uint64_t *metadata_budget)
{
    for (uint32_t i = 0; i < headers->num_metadata; i++) {
        nghttp2_rcbuf_decref(headers->metadata[i].name);
        nghttp2_rcbuf_decref(headers->metadata[i].value);
    }
    rk_pool_free(pool, headers->metadata);
    *metadata_budget += headers->metadata_bytes;
    nghttp2_rcbuf *const kept[] = {headers->path, headers->timeout, headers->encoding, headers->not_binary};
    for (size_t i = 0; i < sizeof kept / sizeof *kept; i++) {
        if (kept[i] != NULL)
            nghttp2_rcbuf_decref(kept[i]);
    }
    *headers = (struct rk_request_headers){0};
}

static bool refuse_http(struct rk_header_refusal *refusal, const char *http_status)
{
    *refusal = (struct rk_header_refusal){.http_status = http_status};
    return false;
}

static bool refuse(struct rk_header_refusal *refusal, enum rk_grpc_status status, const char *what, nghttp2_vec value,
                   const char *fix)
{
    int shown = value.len < SHOWN_BYTES ? (int)value.len : SHOWN_BYTES;
    *refusal = (struct rk_header_refusal){.http_status = "200", .status = status};
    snprintf(refusal->message, sizeof refusal->message, "%s%.*s%s", what, shown, (const char *)value.base, fix);
    return false;
}

static const struct rk_method *find_method(const struct rk_grpc_session_config *config, nghttp2_vec path)
{
    for (size_t i = 0; i < config->num_methods; i++) {
        if (equals(path, config->methods[i].path))
            return &config->methods[i];
    }
    return NULL;
}

static nghttp2_vec text_of(nghttp2_rcbuf *buffer)
{
    return buffer != NULL ? nghttp2_rcbuf_get_buf(buffer) : (nghttp2_vec){(uint8_t *)"", 0};
}

bool rk_request_headers_say_gzip(const struct rk_request_headers *headers)
{
    return headers->encoding != NULL && equals(nghttp2_rcbuf_get_buf(headers->encoding), "gzip");
}

bool rk_request_headers_path_lacks_slash(const struct rk_request_headers *headers)
{
    nghttp2_vec path = text_of(headers->path);
    return path.len > 0 && path.base[0] != '/';
}

bool rk_request_headers_check(const struct rk_request_headers *headers, const struct rk_grpc_session_config *config,
                              const struct rk_method **method, uint64_t *timeout_us, struct rk_header_refusal *refusal)
{
    if (!headers->is_post)
        return refuse_http(refusal, "405");
    if (!headers->is_grpc)
        return refuse_http(refusal, "415");

    nghttp2_vec path = text_of(headers->path);
    *method = find_method(config, path);
    if (*method == NULL)
        return refuse(refusal, RK_GRPC_UNIMPLEMENTED, "unknown method ", path,
                      rk_request_headers_path_lacks_slash(headers) ? ": a path is /package.Service/Method" : "");

    nghttp2_vec encoding = text_of(headers->encoding);
    if (headers->encoding != NULL && !equals(encoding, "identity") && !equals(encoding, "gzip")) {
        refuse(refusal, RK_GRPC_UNIMPLEMENTED, "grpc-encoding '", encoding,
               "' is not supported: send messages compressed with gzip, or as they are (identity)");
        refusal->names_encodings = true;
        return false;
    }

    /* INTERNAL is what gRPC's own servers answer: the fault is in the caller's library, not in what it asked. */
    if (headers->not_binary != NULL)
        return refuse(refusal, RK_GRPC_INTERNAL, "header '", text_of(headers->not_binary),
                      "' is not base64: send the values of -bin headers base64-encoded, several separated by commas");

    *timeout_us = UINT64_MAX;
    nghttp2_vec timeout = text_of(headers->timeout);
    if (headers->timeout != NULL && !rk_timeout_parse((const char *)timeout.base, timeout.len, timeout_us))
        return refuse(refusal, RK_GRPC_INTERNAL, "malformed grpc-timeout '", timeout,
                      "': send 1 to 8 digits and one of n u m S M H");
    return true;
}
