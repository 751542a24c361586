/* The planner: longest processing time first (R. L. Graham, Bounds on multiprocessing timing anomalies, 1969), over
 * parts of items. Every part goes to the shard with the least load that has room for it, the heaviest parts first; with
 * no part above a third of the mean load, no shard then ends above 4/3 of it.
 *
 * An attempt decides how many rows of each item every shard gets, in a matrix [item][shard]; ranges follow from it at
 * the end, so that a shard never holds two pieces of one item. Pure functions, any thread. */
#include "embeddings/placement.h"

#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* One of the equal parts that an item is cut into. */
struct part {
    uint32_t item;
    uint64_t rows, bytes;
    double load;
};

struct planning {
    const struct rk_placement_item *items;
    uint32_t num_items;
    const struct rk_placement_limits *limits;
    double load, mean_load; /* of all items; per shard, with what is there already */
    struct part *parts;
    size_t num_parts;
    uint64_t *rows;              /* [num_items][num_shards] */
    struct rk_shard_use *shards; /* with what is there already */
};

/* How the parts of an attempt are ordered, and the most load of one as a fraction of the mean; infinity: whole items.
 */
static const struct attempt {
    double most;
    bool by_bytes;
} attempts[] = {{INFINITY, false}, {1.0, false}, {1.0 / 2, false}, {1.0 / 3, false}, {INFINITY, true}};
enum { NUM_ATTEMPTS = sizeof attempts / sizeof *attempts };

double rk_row_lines(uint64_t row_bytes)
{
    const uint64_t step = row_bytes & -row_bytes; /* rows start at all multiples of it, up to a line */
    return step >= 64 ? (double)row_bytes / 64 : (double)(row_bytes - step) / 64 + 1;
}

static double load_of(const struct rk_placement_item *item)
{
    return item->reads * rk_row_lines(item->row_bytes);
}

static uint64_t aligned(uint64_t bytes)
{
    return (bytes + RK_PIECE_ALIGNMENT - 1) / RK_PIECE_ALIGNMENT * RK_PIECE_ALIGNMENT;
}

static uint64_t room_of(const struct planning *planning, uint32_t shard)
{
    const uint64_t capacity = planning->limits->capacity_bytes, bytes = planning->shards[shard].bytes;
    return capacity == 0 ? UINT64_MAX : capacity > bytes ? capacity - bytes : 0;
}

/* Into how many parts an item is cut when none may have more than `most` load. */
static uint64_t parts_of(const struct planning *planning, const struct rk_placement_item *item, double most)
{
    const double load = load_of(item), capacity = (double)planning->limits->capacity_bytes;
    double parts = 1;
    if (load > most)
        parts = ceil(load / most);
    if (capacity > 0 && (double)item->rows * (double)item->row_bytes > parts * capacity)
        parts = ceil((double)item->rows * (double)item->row_bytes / capacity);
    return parts < (double)item->rows ? (uint64_t)parts : item->rows;
}

static int compare_loads(const void *a, const void *b)
{
    const struct part *x = a, *y = b;
    if (x->load != y->load)
        return x->load > y->load ? -1 : 1;
    if (x->bytes != y->bytes)
        return x->bytes > y->bytes ? -1 : 1;
    return (x->item > y->item) - (x->item < y->item);
}

/* What cannot be cut comes first: it needs room in one piece. */
static int compare_bytes(const void *a, const void *b)
{
    const struct part *x = a, *y = b;
    if ((x->rows == 1) != (y->rows == 1))
        return x->rows == 1 ? -1 : 1;
    if (x->bytes != y->bytes)
        return x->bytes > y->bytes ? -1 : 1;
    return compare_loads(a, b);
}

static bool cut(struct planning *planning, const struct attempt *attempt)
{
    const double most = attempt->most * planning->mean_load;
    uint64_t count = 0;
    for (uint32_t i = 0; i < planning->num_items; i++)
        count += parts_of(planning, &planning->items[i], most);
    struct part *parts = realloc(planning->parts, (count + 1) * sizeof *parts);
    if (parts == NULL)
        return false;
    planning->parts = parts;
    planning->num_parts = count;
    for (uint32_t i = 0; i < planning->num_items; i++) {
        const struct rk_placement_item *item = &planning->items[i];
        const uint64_t of = parts_of(planning, item, most), rows = item->rows / of, more = item->rows % of;
        for (uint64_t p = 0; p < of; p++, parts++) {
            parts->item = i;
            parts->rows = rows + (p < more);
            parts->bytes = aligned(parts->rows * item->row_bytes);
            parts->load = load_of(item) * ((double)parts->rows / (double)item->rows);
        }
    }
    qsort(planning->parts, count, sizeof *parts, attempt->by_bytes ? compare_bytes : compare_loads);
    return true;
}

static void put(struct planning *planning, struct part *part, uint32_t shard, uint64_t rows)
{
    const double load = part->load * ((double)rows / (double)part->rows);
    const uint64_t row_bytes = planning->items[part->item].row_bytes;
    planning->rows[(size_t)part->item * planning->limits->num_shards + shard] += rows;
    planning->shards[shard].bytes += aligned(rows * row_bytes);
    planning->shards[shard].load += load;
    part->rows -= rows;
    part->load -= load;
    part->bytes = aligned(part->rows * row_bytes);
}

/* The shard that a part goes to: of those with room for all of it the one with the least load, otherwise the one with
 * the most room. Equal ones: the least bytes, then the first. */
static uint32_t choose_shard(const struct planning *planning, const struct part *part)
{
    uint32_t best = 0;
    for (uint32_t s = 1; s < planning->limits->num_shards; s++) {
        const struct rk_shard_use *shard = &planning->shards[s], *other = &planning->shards[best];
        const uint64_t room = room_of(planning, s), best_room = room_of(planning, best);
        const bool fits = room >= part->bytes, best_fits = best_room >= part->bytes;
        if (fits != best_fits ? fits
            : !fits           ? room > best_room
                    : shard->load < other->load || (shard->load == other->load && shard->bytes < other->bytes))
            best = s;
    }
    return best;
}

static void empty_shards(struct planning *planning)
{
    for (uint32_t s = 0; s < planning->limits->num_shards; s++)
        planning->shards[s] = planning->limits->used != NULL ? planning->limits->used[s] : (struct rk_shard_use){0};
}

/* Places all parts; false when one has no room, *stuck then is what is left of it. */
static bool place(struct planning *planning, struct part *stuck)
{
    memset(planning->rows, 0, (size_t)planning->num_items * planning->limits->num_shards * sizeof *planning->rows);
    empty_shards(planning);
    for (size_t p = 0; p < planning->num_parts; p++)
        for (struct part left = planning->parts[p]; left.rows > 0;) {
            const uint32_t shard = choose_shard(planning, &left);
            const uint64_t room = room_of(planning, shard) / RK_PIECE_ALIGNMENT * RK_PIECE_ALIGNMENT;
            const uint64_t fit = room / planning->items[left.item].row_bytes;
            if (fit == 0) {
                *stuck = left;
                return false;
            }
            put(planning, &left, shard, fit < left.rows ? fit : left.rows);
        }
    return true;
}

static double highest_load(const struct planning *planning)
{
    double highest = 0;
    for (uint32_t s = 0; s < planning->limits->num_shards; s++)
        highest = fmax(highest, planning->shards[s].load);
    return highest;
}

/* "12.5 GiB" */
static const char *human(uint64_t bytes, char text[24])
{
    static const char *const units[] = {"bytes", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
    double value = (double)bytes;
    unsigned unit = 0;
    for (; value >= 1024 && unit < 6; unit++)
        value /= 1024;
    snprintf(text, 24, unit == 0 ? "%.0f %s" : "%.1f %s", value, units[unit]);
    return text;
}

static uint64_t add_up_to_most(uint64_t a, uint64_t b)
{
    return a + b < a ? UINT64_MAX : a + b;
}

/* Is there room for all items together? Afterwards no capacity is so small that parts are without number. */
static enum rk_status check_room(const struct planning *planning, struct rk_error *error)
{
    const struct rk_placement_limits *limits = planning->limits;
    if (limits->capacity_bytes == 0 || planning->num_items == 0)
        return RK_OK;
    uint64_t bytes = 0, largest = 0, room = 0;
    uint32_t item = 0;
    for (uint32_t i = 0; i < planning->num_items; i++) {
        const uint64_t of_item = aligned(planning->items[i].rows * planning->items[i].row_bytes);
        bytes = add_up_to_most(bytes, of_item);
        if (of_item > largest) {
            largest = of_item;
            item = i;
        }
    }
    for (uint32_t s = 0; s < limits->num_shards; s++)
        room = add_up_to_most(room, room_of(planning, s));
    if (bytes <= room)
        return RK_OK;
    char texts[5][24];
    return rk_error_set(
        error, RK_EXHAUSTED,
        "all rows together, %s ('%.128s' alone %s), are %s more than the %s left on %u shard%s of %s; give "
        "more or larger shards, or make the rows smaller (rankpack quantize)",
        human(bytes, texts[0]), planning->items[item].name, human(largest, texts[1]), human(bytes - room, texts[2]),
        human(room, texts[3]), limits->num_shards, limits->num_shards == 1 ? "" : "s",
        human(limits->capacity_bytes, texts[4]));
}

/* There is room, but not for what is left of this part. */
static enum rk_status does_not_fit(const struct planning *planning, const struct part *stuck, struct rk_error *error)
{
    const struct rk_placement_limits *limits = planning->limits;
    const uint64_t unit = aligned(planning->items[stuck->item].row_bytes);
    char texts[3][24];
    uint64_t room = 0;
    for (uint32_t s = 0; s < limits->num_shards; s++)
        room = room_of(planning, s) > room ? room_of(planning, s) : room;
    return rk_error_set(
        error, RK_EXHAUSTED,
        "'%.128s' does not fit: %s of it must lie together, %s more than any of %u shards of %s has left; "
        "give larger shards",
        planning->items[stuck->item].name, human(unit, texts[0]), human(unit - room, texts[1]), limits->num_shards,
        human(limits->capacity_bytes, texts[2]));
}

/* Ranges of rows from the matrix. */
static enum rk_status write_pieces(const struct planning *planning, struct rk_placement *placement)
{
    const uint32_t num_shards = planning->limits->num_shards;
    size_t count = 0;
    for (size_t i = 0; i < (size_t)planning->num_items * num_shards; i++)
        count += planning->rows[i] > 0;
    *placement = (struct rk_placement){.pieces = calloc(count + 1, sizeof *placement->pieces),
                                       .num_pieces = count,
                                       .shards = calloc(num_shards, sizeof *placement->shards),
                                       .num_shards = num_shards};
    if (placement->pieces == NULL || placement->shards == NULL) {
        rk_placement_deinit(placement);
        return RK_NO_MEMORY;
    }
    struct rk_piece *piece = placement->pieces;
    for (uint32_t i = 0; i < planning->num_items; i++) {
        const struct rk_placement_item *item = &planning->items[i];
        uint64_t first = 0;
        for (uint32_t s = 0; s < num_shards; s++) {
            const uint64_t rows = planning->rows[(size_t)i * num_shards + s];
            if (rows == 0)
                continue;
            *piece = (struct rk_piece){.item = i,
                                       .shard = s,
                                       .first_row = first,
                                       .num_rows = rows,
                                       .bytes = aligned(rows * item->row_bytes),
                                       .load = load_of(item) * ((double)rows / (double)item->rows)};
            placement->shards[s].bytes += piece->bytes;
            placement->shards[s].load += piece->load;
            first += rows;
            piece++;
        }
    }
    return RK_OK;
}

/* Tries one way after the other until the bound holds; leaves the best in the matrix. */
static enum rk_status plan(struct planning *planning, struct rk_error *error)
{
    struct part stuck;
    double best_load = INFINITY;
    int best = -1, last = -1;
    for (int a = 0; a < NUM_ATTEMPTS && best_load > planning->mean_load * (4.0 / 3); a++) {
        if (attempts[a].by_bytes && best >= 0)
            break; /* only for what does not fit otherwise */
        if (!cut(planning, &attempts[a]))
            return RK_NO_MEMORY;
        last = a;
        if (place(planning, &stuck) && highest_load(planning) < best_load) {
            best = a;
            best_load = highest_load(planning);
        }
    }
    if (best < 0)
        return does_not_fit(planning, &stuck, error);
    if (best != last && (!cut(planning, &attempts[best]) || !place(planning, &stuck)))
        return RK_NO_MEMORY;
    return RK_OK;
}

enum rk_status rk_placement_plan(const struct rk_placement_item *items, uint32_t num_items,
                                 const struct rk_placement_limits *limits, struct rk_placement *placement,
                                 struct rk_error *error)
{
    *placement = (struct rk_placement){0};
    if (limits->num_shards == 0 || limits->num_shards > RK_MAX_PLACEMENT_SHARDS)
        return rk_error_set(error, RK_INVALID, "%u shards; there can be 1 to %u", limits->num_shards,
                            RK_MAX_PLACEMENT_SHARDS);
    struct planning planning = {.items = items, .num_items = num_items, .limits = limits};
    for (uint32_t i = 0; i < num_items; i++)
        planning.load += load_of(&items[i]);
    for (uint32_t s = 0; limits->used != NULL && s < limits->num_shards; s++)
        planning.load += limits->used[s].load;
    planning.mean_load = planning.load / limits->num_shards;
    planning.rows = calloc((size_t)num_items * limits->num_shards + 1, sizeof *planning.rows);
    planning.shards = calloc(limits->num_shards, sizeof *planning.shards);
    enum rk_status status = planning.rows != NULL && planning.shards != NULL ? RK_OK : RK_NO_MEMORY;
    if (status == RK_OK) {
        empty_shards(&planning);
        status = check_room(&planning, error);
    }
    if (status == RK_OK)
        status = plan(&planning, error);
    if (status == RK_OK)
        status = write_pieces(&planning, placement);
    free(planning.parts);
    free(planning.rows);
    free(planning.shards);
    return status == RK_NO_MEMORY ? rk_error_set(error, status, "out of memory while placing %u tables", num_items)
                                  : status;
}

void rk_placement_deinit(struct rk_placement *placement)
{
    free(placement->pieces);
    free(placement->shards);
    *placement = (struct rk_placement){0};
}

const struct rk_piece *rk_placement_pieces(const struct rk_placement *placement, uint32_t item, size_t *count)
{
    size_t low = 0, high = placement->num_pieces;
    while (low < high) {
        const size_t middle = low + (high - low) / 2;
        if (placement->pieces[middle].item < item)
            low = middle + 1;
        else
            high = middle;
    }
    *count = 0;
    while (low + *count < placement->num_pieces && placement->pieces[low + *count].item == item)
        ++*count;
    return &placement->pieces[low];
}
