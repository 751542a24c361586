/* The planner: every row once, within the capacities, balanced as its header says, and errors that say what would help.
 * Compared with lower bounds, and with the best of all placements where they can be counted. */
#include <criterion/criterion.h>
#include <math.h>
#include <string.h>

#include "embeddings/placement.h"
#include "tests/unit/random.h"

enum { MAX_ITEMS = 40, MAX_SHARDS = 12 };

/* Every row of every item lies in exactly one piece, and the shards' sums are those of their pieces. */
static void check_whole(const struct rk_placement_item *items, uint32_t num_items, const struct rk_placement *placement)
{
    struct rk_shard_use sums[RK_MAX_PLACEMENT_SHARDS] = {{0}};
    size_t pieces = 0;
    for (uint32_t i = 0; i < num_items; i++) {
        size_t count;
        const struct rk_piece *piece = rk_placement_pieces(placement, i, &count);
        bool seen[RK_MAX_PLACEMENT_SHARDS] = {false};
        uint64_t next = 0;
        for (size_t p = 0; p < count; p++, piece++) {
            cr_assert(piece->item == i && piece->first_row == next && piece->num_rows > 0, "item %u piece %zu", i, p);
            cr_assert(piece->shard < placement->num_shards && !seen[piece->shard], "item %u twice on shard %u", i,
                      piece->shard);
            cr_assert(piece->bytes >= piece->num_rows * items[i].row_bytes && piece->bytes % RK_PIECE_ALIGNMENT == 0);
            seen[piece->shard] = true;
            next += piece->num_rows;
            sums[piece->shard].bytes += piece->bytes;
            sums[piece->shard].load += piece->load;
        }
        cr_assert_eq(next, items[i].rows, "item %u: %llu of %llu rows are placed", i, (unsigned long long)next,
                     (unsigned long long)items[i].rows);
        pieces += count;
    }
    cr_assert_eq(pieces, placement->num_pieces);
    for (uint32_t s = 0; s < placement->num_shards; s++) {
        cr_assert_eq(sums[s].bytes, placement->shards[s].bytes, "shard %u", s);
        cr_assert(fabs(sums[s].load - placement->shards[s].load) <= 1e-9 * (1 + sums[s].load), "shard %u", s);
    }
}

static struct rk_placement plan(const struct rk_placement_item *items, uint32_t num_items,
                                const struct rk_placement_limits *limits)
{
    struct rk_placement placement;
    struct rk_error error = {0};
    cr_assert_eq(rk_placement_plan(items, num_items, limits, &placement, &error), RK_OK, "%s", error.text);
    check_whole(items, num_items, &placement);
    return placement;
}

static double highest_load(const struct rk_placement *placement)
{
    double highest = 0;
    for (uint32_t s = 0; s < placement->num_shards; s++)
        highest = fmax(highest, placement->shards[s].load);
    return highest;
}

static double load_of(const struct rk_placement_item *item)
{
    return item->reads * rk_row_lines(item->row_bytes);
}

Test(placement, lines_of_a_row_are_what_counting_them_gives)
{
    for (uint64_t bytes = 1; bytes < 700; bytes++) {
        uint64_t lines = 0;
        for (uint64_t row = 0; row < 64; row++) /* every offset within a line that there is */
            lines += ((row + 1) * bytes - 1) / 64 - row * bytes / 64 + 1;
        cr_assert_eq(rk_row_lines(bytes), (double)lines / 64, "%llu bytes: %g, counted %g", (unsigned long long)bytes,
                     rk_row_lines(bytes), (double)lines / 64);
    }
}

Test(placement, items_stay_whole_where_that_is_balanced)
{
    struct rk_placement_item items[26];
    for (uint32_t i = 0; i < 26; i++)
        items[i] = (struct rk_placement_item){.name = "t", .rows = 1000, .row_bytes = 128, .reads = 3};
    for (uint32_t shards = 1; shards <= 4; shards++) {
        const struct rk_placement_limits limits = {.num_shards = shards};
        struct rk_placement placement = plan(items, 26, &limits);
        cr_assert_eq(placement.num_pieces, 26);
        cr_assert_eq(highest_load(&placement), ceil(26.0 / shards) * 6);
        rk_placement_deinit(&placement);
    }
}

Test(placement, an_item_that_dominates_is_cut_and_the_others_are_not)
{
    const struct rk_placement_item items[] = {
        {.name = "small", .rows = 10, .row_bytes = 64, .reads = 1},
        {.name = "large", .rows = 1000, .row_bytes = 64, .reads = 98},
        {.name = "other", .rows = 10, .row_bytes = 64, .reads = 1},
    };
    const struct rk_placement_limits limits = {.num_shards = 4};
    struct rk_placement placement = plan(items, 3, &limits);
    size_t small, large, other;
    rk_placement_pieces(&placement, 0, &small);
    rk_placement_pieces(&placement, 1, &large);
    rk_placement_pieces(&placement, 2, &other);
    cr_assert(small == 1 && large == 4 && other == 1, "%zu, %zu and %zu pieces", small, large, other);
    cr_assert_leq(highest_load(&placement), 25 * 4.0 / 3);
    rk_placement_deinit(&placement);
}

static struct rk_placement_item random_item(struct random *random)
{
    /* Many small ones, few that are a thousand times as large, some that nobody reads. */
    const uint64_t size = (uint64_t)1 << random_below(random, 20);
    return (struct rk_placement_item){.name = "t",
                                      .rows = random_between(random, 1, size),
                                      .row_bytes = random_between(random, 1, 600),
                                      .reads =
                                          random_below(random, 6) == 0 ? 0 : (double)random_between(random, 1, size)};
}

Test(placement, without_capacities_no_shard_has_more_than_four_thirds_of_the_mean)
{
    struct random random = random_from_seed();
    for (int instance = 0; instance < 2000; instance++) {
        struct rk_placement_item items[MAX_ITEMS];
        const uint32_t num_items = (uint32_t)random_between(&random, 0, MAX_ITEMS);
        const struct rk_placement_limits limits = {.num_shards = (uint32_t)random_between(&random, 1, MAX_SHARDS)};
        double load = 0, row = 0; /* of all, and of the busiest row, which cannot be divided */
        for (uint32_t i = 0; i < num_items; i++) {
            items[i] = random_item(&random);
            load += load_of(&items[i]);
            row = fmax(row, load_of(&items[i]) / (double)items[i].rows);
        }
        struct rk_placement placement = plan(items, num_items, &limits), again = plan(items, num_items, &limits);
        const double bound = 4.0 / 3 * load / limits.num_shards + row;
        cr_assert_leq(highest_load(&placement), bound * (1 + 1e-12), "instance %d: %u items on %u shards", instance,
                      num_items, limits.num_shards);
        cr_assert_eq(placement.num_pieces, again.num_pieces);
        cr_assert_arr_eq(placement.pieces, again.pieces, placement.num_pieces * sizeof *placement.pieces);
        rk_placement_deinit(&placement);
        rk_placement_deinit(&again);
    }
}

/* The least highest load of any placement of whole items. */
static double best_of_all(const double *loads, uint32_t num_items, uint32_t num_shards)
{
    uint64_t ways = 1;
    for (uint32_t i = 0; i < num_items; i++)
        ways *= num_shards;
    double best = INFINITY;
    for (uint64_t way = 0; way < ways; way++) {
        double shards[MAX_SHARDS] = {0}, highest = 0;
        uint64_t rest = way;
        for (uint32_t i = 0; i < num_items; i++, rest /= num_shards)
            highest = fmax(highest, shards[rest % num_shards] += loads[i]);
        best = fmin(best, highest);
    }
    return best;
}

Test(placement, what_cannot_be_divided_is_within_four_thirds_of_the_best_there_is)
{
    struct random random = random_from_seed();
    for (int instance = 0; instance < 300; instance++) {
        struct rk_placement_item items[8];
        double loads[8];
        const uint32_t num_items = (uint32_t)random_between(&random, 1, 8);
        const struct rk_placement_limits limits = {.num_shards = (uint32_t)random_between(&random, 2, 3)};
        for (uint32_t i = 0; i < num_items; i++) {
            items[i] = random_item(&random);
            items[i].rows = 1;
            loads[i] = load_of(&items[i]);
        }
        struct rk_placement placement = plan(items, num_items, &limits);
        const double best = best_of_all(loads, num_items, limits.num_shards);
        cr_assert_leq(highest_load(&placement), best * (4.0 / 3 + 1e-12), "instance %d: the best is %g", instance,
                      best);
        rk_placement_deinit(&placement);
    }
}

Test(placement, whatever_fits_is_placed_within_the_capacities_and_nothing_else)
{
    struct random random = random_from_seed();
    int fitting = 0, exact = 0;
    for (int instance = 0; instance < 2000; instance++) {
        struct rk_placement_item items[MAX_ITEMS];
        struct rk_shard_use used[MAX_SHARDS];
        const uint32_t num_items = (uint32_t)random_between(&random, 1, MAX_ITEMS);
        struct rk_placement_limits limits = {.num_shards = (uint32_t)random_between(&random, 1, MAX_SHARDS),
                                             .used = used};
        uint64_t lines = 0;
        for (uint32_t i = 0; i < num_items; i++) {
            items[i] = random_item(&random);
            items[i].row_bytes = 64;
            lines += items[i].rows;
        }
        uint64_t busy = 0;
        for (uint32_t s = 0; s < limits.num_shards; s++) {
            used[s] = (struct rk_shard_use){.bytes = 64 * random_below(&random, 1000), .load = 5};
            busy += used[s].bytes / 64;
        }
        /* From half of what is needed to a little more, and now and then to the byte; never below what is used. */
        uint64_t each = (lines + busy + limits.num_shards - 1) / limits.num_shards;
        each = random_below(&random, 4) == 0 ? each : random_between(&random, each / 2, each + each / 4);
        each = each < 1000 ? 1000 : each;
        limits.capacity_bytes = each * 64;
        exact += each * limits.num_shards == lines + busy;
        struct rk_placement placement;
        struct rk_error error = {0};
        const enum rk_status status = rk_placement_plan(items, num_items, &limits, &placement, &error);
        const bool fits = lines + busy <= each * limits.num_shards;
        cr_assert_eq(status, fits ? RK_OK : RK_EXHAUSTED, "instance %d: %s", instance, error.text);
        fitting += fits;
        if (!fits)
            continue;
        check_whole(items, num_items, &placement);
        for (uint32_t s = 0; s < limits.num_shards; s++)
            cr_assert_leq(placement.shards[s].bytes + used[s].bytes, limits.capacity_bytes, "shard %u", s);
        rk_placement_deinit(&placement);
    }
    cr_assert(fitting > 100 && fitting < 1900 && exact > 10, "%d of 2000 fit, %d to the byte", fitting, exact);
}

Test(placement, what_lies_on_a_shard_already_counts)
{
    const struct rk_placement_item item = {.name = "t", .rows = 1, .row_bytes = 64, .reads = 1};
    const struct rk_shard_use used[3] = {{.load = 9}, {.load = 8}, {.load = 9}};
    const struct rk_placement_limits limits = {.num_shards = 3, .used = used};
    struct rk_placement placement = plan(&item, 1, &limits);
    cr_assert_eq(placement.pieces[0].shard, 1);
    rk_placement_deinit(&placement);
}

static void expect_error(const struct rk_placement_item *items, uint32_t num_items,
                         const struct rk_placement_limits *limits, enum rk_status status, const char *text)
{
    struct rk_placement placement;
    struct rk_error error = {0};
    cr_assert_eq(rk_placement_plan(items, num_items, limits, &placement, &error), status, "expected '%s'", text);
    cr_assert_not_null(strstr(error.text, text), "text is '%s', expected '%s' in it", error.text, text);
    cr_assert_null(placement.pieces);
}

Test(placement, what_does_not_fit_is_named_with_how_much_is_missing)
{
    const uint64_t gib = (uint64_t)1 << 30;
    const struct rk_placement_item items[] = {
        {.name = "user", .rows = 40 * gib / 128, .row_bytes = 128, .reads = 1},
        {.name = "item", .rows = 50 * gib / 128, .row_bytes = 128, .reads = 1},
    };
    struct rk_placement_limits limits = {.num_shards = 4, .capacity_bytes = 16 * gib};
    expect_error(items, 2, &limits, RK_EXHAUSTED,
                 "all rows together, 90.0 GiB ('item' alone 50.0 GiB), are 26.0 GiB more than the 64.0 GiB left on 4 "
                 "shards of 16.0 GiB");
    const struct rk_placement_item kept = {.name = "user, kept rows", .rows = 1, .row_bytes = 20 * gib, .reads = 1};
    expect_error(
        &kept, 1, &limits, RK_EXHAUSTED,
        "'user, kept rows' does not fit: 20.0 GiB of it must lie together, 4.0 GiB more than any of 4 shards of "
        "16.0 GiB has left");
    limits.capacity_bytes = 1; /* parts would be without number */
    expect_error(items, 2, &limits, RK_EXHAUSTED, "more than the 4 bytes left on 4 shards");
    limits = (struct rk_placement_limits){.num_shards = 0};
    expect_error(items, 2, &limits, RK_INVALID, "0 shards; there can be 1 to 256");
    limits.num_shards = RK_MAX_PLACEMENT_SHARDS + 1;
    expect_error(items, 2, &limits, RK_INVALID, "257 shards");
}
