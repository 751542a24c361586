/* zlib, whole messages at a time.
 *
 * A member's last four bytes say how long its content is. We believe them as far as they bind the sender: a message
 * that declares more than the limit is refused before anything is inflated, and one that turns out longer than it
 * declared is damaged. So a bomb costs no more memory than it declared, and never more than the limit. Any thread; the
 * pool's owner.
 */
#include "server/grpc/gzip.h"

#include <string.h>
#include <zlib.h>

#include "server/grpc/pool.h"

#define GZIP_WINDOW_BITS (15 + 16) /* 16: gzip's header and trailer, not zlib's */
#define DEFLATE_MEMORY   8         /* zlib's default */
#define MIN_MEMBER_BYTES 18
#define TRAILER_BYTES    4

static const uint8_t magic[] = {0x1f, 0x8b, Z_DEFLATED};

static void *zlib_alloc(void *pool, unsigned items, unsigned bytes)
{
    return rk_pool_alloc(pool, (size_t)items * bytes);
}

static void zlib_free(void *pool, void *block)
{
    rk_pool_free(pool, block);
}

size_t rk_gzip_declared_bytes(const uint8_t *bytes, size_t length)
{
    if (length < MIN_MEMBER_BYTES)
        return 0;
    const uint8_t *at = bytes + length - TRAILER_BYTES;
    return (size_t)at[0] | (size_t)at[1] << 8 | (size_t)at[2] << 16 | (size_t)at[3] << 24;
}

/* Z_STREAM_END when all input made exactly as many bytes as were declared. */
static int inflate_all(struct rk_pool *pool, const uint8_t *bytes, size_t length, uint8_t *message, size_t declared)
{
    z_stream stream = {.zalloc = zlib_alloc,
                       .zfree = zlib_free,
                       .opaque = pool,
                       .next_in = (uint8_t *)bytes, /* zlib only reads it */
                       .avail_in = (uInt)length,
                       .next_out = message,
                       .avail_out = (uInt)declared};
    int result = inflateInit2(&stream, GZIP_WINDOW_BITS);
    if (result != Z_OK)
        return result;
    result = inflate(&stream, Z_FINISH);
    if (result == Z_STREAM_END && (stream.avail_in > 0 || stream.avail_out > 0))
        result = Z_DATA_ERROR;
    inflateEnd(&stream);
    return result;
}

enum rk_status rk_gzip_inflate(struct rk_pool *pool, const uint8_t *bytes, size_t length, uint64_t max_bytes,
                               uint8_t **message, size_t *message_bytes)
{
    if (length < MIN_MEMBER_BYTES || length > UINT32_MAX || memcmp(bytes, magic, sizeof magic) != 0)
        return RK_CORRUPT;
    const size_t declared = rk_gzip_declared_bytes(bytes, length);
    if (declared > max_bytes)
        return RK_EXHAUSTED;
    uint8_t *block = rk_pool_alloc(pool, declared + 1); /* never nothing: zlib takes no NULL */
    if (block == NULL)
        return RK_NO_MEMORY;
    const int result = inflate_all(pool, bytes, length, block, declared);
    if (result != Z_STREAM_END) {
        rk_pool_free(pool, block);
        return result == Z_MEM_ERROR ? RK_NO_MEMORY : RK_CORRUPT;
    }
    *message = block;
    *message_bytes = declared;
    return RK_OK;
}

enum rk_status rk_gzip_deflate(struct rk_pool *pool, const uint8_t *bytes, size_t length, uint8_t *compressed,
                               size_t capacity, size_t *compressed_bytes)
{
    if (length > UINT32_MAX || capacity > UINT32_MAX)
        return RK_EXHAUSTED;
    z_stream stream = {.zalloc = zlib_alloc,
                       .zfree = zlib_free,
                       .opaque = pool,
                       .next_in = (uint8_t *)bytes,
                       .avail_in = (uInt)length,
                       .next_out = compressed,
                       .avail_out = (uInt)capacity};
    /* The fastest level: an answer waits for this. */
    if (deflateInit2(&stream, Z_BEST_SPEED, Z_DEFLATED, GZIP_WINDOW_BITS, DEFLATE_MEMORY, Z_DEFAULT_STRATEGY) != Z_OK)
        return RK_NO_MEMORY;
    const int result = deflate(&stream, Z_FINISH);
    *compressed_bytes = stream.total_out;
    deflateEnd(&stream);
    return result == Z_STREAM_END ? RK_OK : RK_EXHAUSTED;
}
