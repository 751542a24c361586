/* Arenas: memory that is given out bit by bit and taken back all at once. A reset keeps the memory,
 * so that a warm request path allocates nothing from the system. Not thread-safe: one owner at a time. */
#ifndef RANKD_QUANT_BASE_ARENA_H
#define RANKD_QUANT_BASE_ARENA_H

#include <stddef.h>
#include <stdint.h>

struct rk_arena_chunk;

struct rk_arena {
    struct rk_arena_chunk *first, *current;
    size_t chunk_bytes; /* the least that a new chunk holds */
    size_t used_bytes;  /* given out since the last reset, padding included */
    size_t limit_bytes; /* allocations past this fail; SIZE_MAX: no limit */
    size_t held_bytes;  /* taken from the system */
};

/* Takes no memory until the first allocation. */
void rk_arena_init(struct rk_arena *arena, size_t chunk_bytes);
void rk_arena_deinit(struct rk_arena *arena);

/* Gives everything back to the arena and lifts the limit; keeps the chunks up to keep_bytes of them. */
void rk_arena_reset(struct rk_arena *arena, size_t keep_bytes);

/* Where an arena stands, to give back what is taken from then on. A mark is void after a reset, or after going back to
 * an earlier one. The limit stays as it is. */
struct rk_arena_mark {
    struct rk_arena_chunk *current;
    size_t current_used, used_bytes;
};
struct rk_arena_mark rk_arena_mark(const struct rk_arena *arena);
void rk_arena_rewind(struct rk_arena *arena, const struct rk_arena_mark *mark);

/* From now on at most `bytes` more may be given out; SIZE_MAX lifts the limit. */
void rk_arena_limit(struct rk_arena *arena, size_t bytes);

/* 16-byte aligned, uninitialised. NULL when the system or the limit refuses. A size of 0 gives a valid pointer. */
void *rk_arena_alloc(struct rk_arena *arena, size_t bytes);

/* count elements, zeroed; NULL also when count * element_bytes overflows. */
void *rk_arena_array(struct rk_arena *arena, size_t count, size_t element_bytes);

/* A NUL-terminated copy of `length` bytes. */
char *rk_arena_string(struct rk_arena *arena, const char *text, size_t length);

char *rk_arena_printf(struct rk_arena *arena, const char *format, ...) __attribute__((format(printf, 2, 3)));

#endif
