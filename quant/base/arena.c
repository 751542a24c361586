/* Arenas as a list of chunks, each with its header in front:
 *
 *   first -> [header | used ... | free ...] -> [header | ...] -> NULL
 *                      current ----^
 *
 * Allocation bumps a pointer in `current` and moves along the list when it is full; chunks behind `current` are
 * empty. A chunk that a big allocation does not fit into is skipped until the next reset. */
#include "quant/base/arena.h"

#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ALIGNMENT 16

struct rk_arena_chunk {
    struct rk_arena_chunk *next;
    size_t size, used; /* of data */
    _Alignas(ALIGNMENT) unsigned char data[];
};

void rk_arena_init(struct rk_arena *arena, size_t chunk_bytes)
{
    *arena = (struct rk_arena){.chunk_bytes = chunk_bytes, .limit_bytes = SIZE_MAX};
}

static void free_chunks(struct rk_arena *arena, struct rk_arena_chunk *chunk)
{
    while (chunk != NULL) {
        struct rk_arena_chunk *next = chunk->next;
        arena->held_bytes -= chunk->size;
        free(chunk);
        chunk = next;
    }
}

void rk_arena_deinit(struct rk_arena *arena)
{
    free_chunks(arena, arena->first);
    rk_arena_init(arena, arena->chunk_bytes);
}

void rk_arena_reset(struct rk_arena *arena, size_t keep_bytes)
{
    size_t kept = 0;
    struct rk_arena_chunk **link = &arena->first;
    while (*link != NULL && kept + (*link)->size <= keep_bytes) {
        kept += (*link)->size;
        (*link)->used = 0;
        link = &(*link)->next;
    }
    free_chunks(arena, *link);
    *link = NULL;
    arena->current = arena->first;
    arena->used_bytes = 0;
    arena->limit_bytes = SIZE_MAX;
}

struct rk_arena_mark rk_arena_mark(const struct rk_arena *arena)
{
    return (struct rk_arena_mark){.current = arena->current,
                                  .current_used = arena->current != NULL ? arena->current->used : 0,
                                  .used_bytes = arena->used_bytes};
}

void rk_arena_rewind(struct rk_arena *arena, const struct rk_arena_mark *mark)
{
    struct rk_arena_chunk *chunk = mark->current != NULL ? mark->current : arena->first;
    arena->current = chunk;
    for (; chunk != NULL; chunk = chunk->next)
        chunk->used = 0;
    if (mark->current != NULL)
        mark->current->used = mark->current_used;
    arena->used_bytes = mark->used_bytes;
}

void rk_arena_limit(struct rk_arena *arena, size_t bytes)
{
    arena->limit_bytes = bytes > SIZE_MAX - arena->used_bytes ? SIZE_MAX : arena->used_bytes + bytes;
}

static bool fits(const struct rk_arena_chunk *chunk, size_t bytes)
{
    return chunk->size - chunk->used >= bytes;
}

static struct rk_arena_chunk *add_chunk(struct rk_arena *arena, size_t bytes)
{
    size_t size = bytes > arena->chunk_bytes ? bytes : arena->chunk_bytes;
    if (size > SIZE_MAX - sizeof(struct rk_arena_chunk))
        return NULL;
    struct rk_arena_chunk *chunk = malloc(sizeof *chunk + size);
    if (chunk == NULL)
        return NULL;
    chunk->size = size;
    chunk->used = 0;
    arena->held_bytes += size;
    struct rk_arena_chunk **link = arena->current != NULL ? &arena->current->next : &arena->first;
    chunk->next = *link;
    *link = chunk;
    return chunk;
}

void *rk_arena_alloc(struct rk_arena *arena, size_t bytes)
{
    if (bytes > SIZE_MAX - (ALIGNMENT - 1))
        return NULL;
    bytes = (bytes + ALIGNMENT - 1) & ~(size_t)(ALIGNMENT - 1);
    if (bytes > arena->limit_bytes - arena->used_bytes)
        return NULL;
    struct rk_arena_chunk *chunk = arena->current;
    while (chunk != NULL && !fits(chunk, bytes))
        chunk = chunk->next;
    if (chunk == NULL)
        chunk = add_chunk(arena, bytes);
    if (chunk == NULL)
        return NULL;
    arena->current = chunk;
    void *memory = chunk->data + chunk->used;
    chunk->used += bytes;
    arena->used_bytes += bytes;
    return memory;
}

void *rk_arena_array(struct rk_arena *arena, size_t count, size_t element_bytes)
{
    size_t bytes;
    if (__builtin_mul_overflow(count, element_bytes, &bytes))
        return NULL;
    void *memory = rk_arena_alloc(arena, bytes);
    if (memory != NULL)
        memset(memory, 0, bytes);
    return memory;
}

char *rk_arena_string(struct rk_arena *arena, const char *text, size_t length)
{
    if (length == SIZE_MAX)
        return NULL;
    char *copy = rk_arena_alloc(arena, length + 1);
    if (copy == NULL)
        return NULL;
    if (length > 0)
        memcpy(copy, text, length);
    copy[length] = '\0';
    return copy;
}

char *rk_arena_printf(struct rk_arena *arena, const char *format, ...)
{
    va_list arguments, again;
    va_start(arguments, format);
    va_copy(again, arguments);
    int length = vsnprintf(NULL, 0, format, arguments);
    va_end(arguments);
    char *text = length < 0 ? NULL : rk_arena_alloc(arena, (size_t)length + 1);
    if (text != NULL)
        vsnprintf(text, (size_t)length + 1, format, again);
    va_end(again);
    return text;
}
