/* Overload, in simulated time: arrivals at random, the schedule, workers that take as long as a batch costs, give or
 * take. What a table promises is counted: who was answered in time, how long it took, what was refused. */
#include <criterion/criterion.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "server/schedule.h"
#include "tests/unit/random.h"

#define MAX_BATCH   64
#define MAX_WORKERS 4
#define MAX_JOBS    20000 /* at a time */
#define MAX_DONE    2000000
#define NOW_US      1000000000u
#define MS          1000u
#define SECOND      1000000u

static const struct rk_model_spec spec = {.num_heads = 1};
static struct rk_served_model model;
static struct rk_priorities priorities;

/* Where requests come from. */
struct source {
    double per_s;       /* open loop: Poisson arrivals; 0: closed loop */
    uint32_t in_flight; /* closed loop: so many, each followed by another */
    uint32_t num_candidates;
    uint64_t within_us; /* the deadline; 0: none */
    uint32_t priority, num_connections;
    uint64_t client, connection; /* the first of its num_connections + 1 */
    uint64_t from_us, until_us;  /* since the beginning; until 0: to the end */

    uint64_t next_us, owed; /* the simulation's; owed: of a closed loop, to follow at once */
    uint64_t offered, good, late, refused, shed;
    uint64_t work_us; /* of good ones */
};

struct simulation {
    struct random random;
    struct rk_schedule *schedule;
    struct rk_batch batches[MAX_WORKERS];
    uint64_t ends_us[MAX_WORKERS]; /* 0: idle */
    uint32_t num_workers;
    double slowness; /* what a batch takes over what was predicted at first */
    double noise;
    uint64_t now_us, end_us, count_from_us;
    struct source *sources;
    uint32_t num_sources;
    uint32_t *waits_us; /* of good ones, from their arrival to their answer */
    uint32_t num_waits;
};

struct simulated_job {
    struct rk_job job; /* first */
    struct source *source;
    uint64_t came_us;
    bool taken;
};

static struct simulated_job *jobs;
static uint32_t free_jobs[MAX_JOBS], num_free;
static struct simulation *running;

static void settled(struct rk_job *job)
{
    struct simulated_job *its = (struct simulated_job *)job;
    struct source *source = its->source;
    const uint64_t now_us = running->now_us;
    const enum rk_status status = (enum rk_status)atomic_load(&job->status);
    if (its->came_us >= running->count_from_us) {
        if (status != RK_OK)
            source->shed++;
        else if (job->deadline_us < now_us)
            source->late++;
        else {
            source->good++;
            source->work_us += job->request.num_candidates;
            if (running->num_waits < MAX_DONE)
                running->waits_us[running->num_waits++] = (uint32_t)(now_us - its->came_us);
        }
    }
    source->owed += source->per_s == 0;
    free_jobs[num_free++] = (uint32_t)(its - jobs);
}

static void make(struct simulation *simulation, const char *weights, double fixed_us, double each_us,
                 uint32_t num_workers)
{
    model = (struct rk_served_model){.spec = &spec,
                                     .cost = {.num_points = 2,
                                              .candidates = {1, MAX_BATCH},
                                              .ns = {(uint64_t)(1000 * (fixed_us + each_us)),
                                                     (uint64_t)(1000 * (fixed_us + each_us * MAX_BATCH))},
                                              .request_ns = 500}};
    rk_cost_curve_finish(&model.cost);
    cr_assert_eq(rk_priorities_parse(weights, &priorities, NULL), RK_OK);
    const struct rk_schedule_config config = {.models = &model,
                                              .num_models = 1,
                                              .priorities = &priorities,
                                              .max_jobs = 5000,
                                              .max_batch = MAX_BATCH,
                                              .num_workers = num_workers,
                                              .max_wait_us = 10 * SECOND,
                                              .target_us = 1 * MS,
                                              .interval_us = 50 * MS,
                                              .max_pushback_ms = 2000,
                                              .seed = 1};
    *simulation = (struct simulation){.random = random_from_seed(), .num_workers = num_workers, .slowness = 1.0};
    cr_assert_eq(rk_schedule_create(&config, &simulation->schedule, NULL), RK_OK);
    for (uint32_t w = 0; w < num_workers; w++)
        cr_assert_eq(rk_batch_init(&simulation->batches[w], MAX_BATCH, NULL), RK_OK);
    simulation->waits_us = malloc(MAX_DONE * sizeof *simulation->waits_us);
    jobs = calloc(MAX_JOBS, sizeof *jobs);
    cr_assert(simulation->waits_us != NULL && jobs != NULL);
    for (num_free = 0; num_free < MAX_JOBS; num_free++)
        free_jobs[num_free] = num_free;
    simulation->now_us = NOW_US;
}

static void end(struct simulation *simulation)
{
    rk_schedule_destroy(simulation->schedule);
    for (uint32_t w = 0; w < simulation->num_workers; w++)
        rk_batch_deinit(&simulation->batches[w]);
    free(simulation->waits_us);
    free(jobs);
}

static double uniform(struct random *random)
{
    return ((double)(random_next(random) >> 11) + 0.5) / (double)(UINT64_C(1) << 53);
}

static void begin_batches(struct simulation *simulation)
{
    for (uint32_t w = 0; w < simulation->num_workers; w++) {
        if (simulation->ends_us[w] != 0)
            continue;
        uint32_t idle = 0;
        for (uint32_t other = w + 1; other < simulation->num_workers; other++)
            idle += simulation->ends_us[other] == 0;
        struct rk_batch *batch = &simulation->batches[w];
        while (rk_schedule_fill(simulation->schedule, batch, simulation->now_us, idle)) {
            rk_batch_settle_dropped(batch);
            if (batch->num_slices == 0)
                continue;
            const double factor =
                simulation->slowness * (1.0 + simulation->noise * (2.0 * uniform(&simulation->random) - 1.0));
            double ns = (double)rk_cost_curve_ns(&model.cost, batch->num_candidates) +
                        (double)(batch->num_slices - 1) * (double)model.cost.request_ns;
            batch->took_ns = (uint64_t)(ns * factor);
            simulation->ends_us[w] = simulation->now_us + batch->took_ns / 1000 + 1;
            break;
        }
    }
}

static void arrive(struct simulation *simulation, struct source *source)
{
    cr_assert(num_free > 0);
    struct simulated_job *its = &jobs[free_jobs[--num_free]];
    static float logits[1];
    memset(its, 0, sizeof *its);
    its->source = source;
    its->came_us = simulation->now_us;
    its->job =
        (struct rk_job){.model = &model,
                        .priority = source->priority,
                        .request.num_candidates = source->num_candidates,
                        .deadline_us = source->within_us > 0 ? simulation->now_us + source->within_us : UINT64_MAX,
                        .client = source->client,
                        .connection = source->client * 1000 + source->connection +
                                      random_below(&simulation->random, source->num_connections + 1),
                        .logits = logits,
                        .settled = settled};
    const bool counts = its->came_us >= simulation->count_from_us;
    source->offered += counts;
    if (rk_schedule_add(simulation->schedule, &its->job, simulation->now_us) != RK_OK) {
        source->refused += counts;
        free_jobs[num_free++] = (uint32_t)(its - jobs);
    }
}

static void schedule_next(struct simulation *simulation, struct source *source)
{
    const double wait_s = -log(uniform(&simulation->random)) / source->per_s;
    source->next_us += (uint64_t)(wait_s * SECOND);
    if (source->until_us != 0 && source->next_us >= NOW_US + source->until_us)
        source->next_us = UINT64_MAX;
}

static void run(struct simulation *simulation, struct source *sources, uint32_t num_sources, uint64_t for_us,
                uint64_t count_from_us)
{
    simulation->sources = sources;
    simulation->num_sources = num_sources;
    simulation->end_us = NOW_US + for_us;
    simulation->count_from_us = NOW_US + count_from_us;
    running = simulation;
    for (uint32_t s = 0; s < num_sources; s++) {
        sources[s].next_us = NOW_US + sources[s].from_us;
        sources[s].owed = sources[s].in_flight;
        if (sources[s].per_s > 0)
            schedule_next(simulation, &sources[s]);
    }
    while (simulation->now_us < simulation->end_us) {
        uint64_t next_us = simulation->end_us;
        for (uint32_t s = 0; s < num_sources; s++)
            next_us = sources[s].next_us < next_us ? sources[s].next_us : next_us;
        for (uint32_t w = 0; w < simulation->num_workers; w++)
            if (simulation->ends_us[w] != 0 && simulation->ends_us[w] < next_us)
                next_us = simulation->ends_us[w];
        simulation->now_us = next_us > simulation->now_us ? next_us : simulation->now_us;
        for (uint32_t w = 0; w < simulation->num_workers; w++) {
            if (simulation->ends_us[w] == 0 || simulation->ends_us[w] > simulation->now_us)
                continue;
            simulation->ends_us[w] = 0;
            rk_schedule_learn(simulation->schedule, &simulation->batches[w]);
            rk_batch_settle(&simulation->batches[w], RK_OK);
        }
        for (uint32_t s = 0; s < num_sources; s++)
            if (sources[s].owed > 0)
                sources[s].next_us = simulation->now_us;
        for (uint32_t s = 0; s < num_sources; s++) {
            if (sources[s].next_us > simulation->now_us)
                continue;
            if (sources[s].per_s > 0) {
                schedule_next(simulation, &sources[s]);
                arrive(simulation, &sources[s]);
                continue;
            }
            sources[s].next_us = UINT64_MAX;
            for (; sources[s].owed > 0; sources[s].owed--)
                arrive(simulation, &sources[s]);
        }
        begin_batches(simulation);
    }
}

static int by_size(const void *a, const void *b)
{
    const uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return x < y ? -1 : x > y;
}

static uint32_t percentile_us(struct simulation *simulation, double part)
{
    if (simulation->num_waits == 0)
        return 0;
    qsort(simulation->waits_us, simulation->num_waits, sizeof simulation->waits_us[0], by_size);
    return simulation->waits_us[(uint32_t)(part * (simulation->num_waits - 1))];
}

/* ---- goodput ---- */

struct kind {
    const char *name;
    double fixed_us, each_us;
    uint32_t num_candidates;
    uint64_t within_us;
    uint64_t for_us;
};

static const struct kind kinds[] = {
    {"270 candidates, 4 ms", 200, 14, 270, 200 * MS, 20 * SECOND},
    {"60 candidates, 80 us", 5, 1.25, 60, 50 * MS, 4 * SECOND},
    {"8 candidates, small batches pay", 50, 2, 8, 20 * MS, 3 * SECOND},
    {"270 candidates, no deadline", 200, 14, 270, 0, 20 * SECOND},
};

/* Requests per second that the workers can do. */
static double capacity(const struct kind *kind, uint32_t num_workers)
{
    struct simulation simulation;
    struct source flood = {.in_flight = 200, .num_candidates = kind->num_candidates};
    make(&simulation, "a=1", kind->fixed_us, kind->each_us, num_workers);
    run(&simulation, &flood, 1, 5 * SECOND, SECOND);
    end(&simulation);
    return (double)flood.good / 4.0;
}

struct outcome {
    double goodput, late;        /* per second; part of all that was computed */
    uint32_t p99_us, shed_parts; /* per million offered */
};

static struct outcome load(const struct kind *kind, double per_s)
{
    struct simulation simulation;
    struct source source = {.per_s = per_s,
                            .num_candidates = kind->num_candidates,
                            .within_us = kind->within_us,
                            .num_connections = 4};
    make(&simulation, "a=1", kind->fixed_us, kind->each_us, 2);
    simulation.noise = 0.2;
    run(&simulation, &source, 1, kind->for_us, SECOND);
    struct outcome outcome = {.goodput = (double)source.good / ((double)(kind->for_us - SECOND) / SECOND),
                              .late = (double)source.late / (double)(source.good + source.late),
                              .p99_us = percentile_us(&simulation, 0.99),
                              .shed_parts = (uint32_t)(1e6 * (double)source.shed / (double)source.offered)};
    fprintf(stderr, "%s at %.0f/s: good %.0f/s, late %.5f, p50 %u p99 %u us, shed %u ppm, excess of %lu offered\n",
            kind->name, per_s, outcome.goodput, outcome.late, percentile_us(&simulation, 0.5), outcome.p99_us,
            outcome.shed_parts, (unsigned long)source.offered);
    end(&simulation);
    return outcome;
}

Test(overload, goodput_and_latency_hold_at_two_five_and_ten_times_what_can_be_done, .timeout = 100)
{
    static const double rates[] = {0.7, 0.9, 1.0, 1.1, 1.3, 2, 5, 10}, least[] = {0, 0, 0, 0, 0, 0.98, 0.95, 0.90};
    for (size_t k = 0; k < sizeof kinds / sizeof kinds[0]; k++) {
        const double full = capacity(&kinds[k], 2);
        double peak = 0;
        uint32_t p99_us = 0;
        for (size_t r = 0; r < sizeof rates / sizeof rates[0]; r++) {
            const struct outcome outcome = load(&kinds[k], rates[r] * full);
            peak = outcome.goodput > peak ? outcome.goodput : peak;
            p99_us = rates[r] == 0.9 ? outcome.p99_us : p99_us;
            /* Where just as much comes as can be done, queues stand below their deadlines, and predictions are off by a
             * fifth; no overload is there to shorten them. */
            cr_expect(outcome.late <= (least[r] > 0 ? 0.001 : 0.01), "%s at %g: %g late", kinds[k].name, rates[r],
                      outcome.late);
            if (least[r] == 0)
                continue;
            cr_expect(outcome.goodput >= least[r] * peak, "%s at %g: %g of %g", kinds[k].name, rates[r],
                      outcome.goodput, peak);
            cr_expect(outcome.p99_us <= 1.5 * p99_us, "%s at %g: p99 %u us, %u at 0.9", kinds[k].name, rates[r],
                      outcome.p99_us, p99_us);
            cr_expect(outcome.shed_parts <= 1000, "%s at %g: %u of a million wait for their refusal", kinds[k].name,
                      rates[r], outcome.shed_parts);
        }
    }
}

/* Clients that wait for their answers bound the queue by themselves, however many they are. */
Test(overload, a_closed_loop_is_never_refused, .timeout = 100)
{
    static const uint32_t in_flight[] = {2, 8, 64, 500};
    for (size_t i = 0; i < sizeof in_flight / sizeof in_flight[0]; i++) {
        struct simulation simulation;
        struct source source = {.in_flight = in_flight[i], .num_candidates = 270, .num_connections = 8};
        make(&simulation, "a=1", 200, 14, 2);
        simulation.noise = 0.2;
        run(&simulation, &source, 1, 10 * SECOND, 0);
        cr_expect_eq(source.refused + source.shed, 0, "%u in flight: %lu refused, %lu sent away", in_flight[i],
                     (unsigned long)source.refused, (unsigned long)source.shed);
        end(&simulation);
    }
}

/* ---- recovery ---- */

Test(overload, a_burst_is_forgotten_within_a_hundred_milliseconds, .timeout = 100)
{
    for (int within = 0; within < 2; within++) {
        struct simulation simulation;
        struct source sources[] = {{.per_s = 6000, .num_candidates = 60, .within_us = within ? 50 * MS : 0},
                                   {.per_s = 240000,
                                    .num_candidates = 60,
                                    .within_us = within ? 50 * MS : 0,
                                    .from_us = SECOND,
                                    .until_us = 2 * SECOND}};
        make(&simulation, "a=1", 5, 1.25, 2);
        simulation.noise = 0.2;
        run(&simulation, sources, 2, 4 * SECOND, 2 * SECOND + 100 * MS);
        cr_expect(sources[0].offered > 10000);
        cr_expect_eq(sources[0].refused + sources[0].shed + sources[0].late, 0, "%lu refused, %lu sent away, %lu late",
                     (unsigned long)sources[0].refused, (unsigned long)sources[0].shed, (unsigned long)sources[0].late);
        cr_expect(percentile_us(&simulation, 0.99) < 1000, "p99 is %u us", percentile_us(&simulation, 0.99));
        end(&simulation);
    }
}

/* ---- shares ---- */

static double part_good(const struct source *source)
{
    return (double)source->good / (double)source->offered;
}

Test(overload, a_greedy_client_leaves_the_others_their_share, .timeout = 100)
{
    /* Workers can do about 25,000 a second; three that ask for a fifth of that each, beside one that asks for all of it
     * several times, with tighter deadlines or looser ones. */
    static const uint64_t greedy_within_us[] = {20 * MS, 50 * MS, 500 * MS, 0};
    for (size_t i = 0; i < sizeof greedy_within_us / sizeof greedy_within_us[0]; i++) {
        struct simulation simulation;
        struct source sources[4];
        for (uint32_t s = 0; s < 3; s++)
            sources[s] = (struct source){.per_s = 5000, .num_candidates = 60, .within_us = 50 * MS, .client = s + 1};
        sources[3] = (struct source){.per_s = 125000,
                                     .num_candidates = 60,
                                     .within_us = greedy_within_us[i],
                                     .client = 9,
                                     .num_connections = 50};
        make(&simulation, "a=1", 5, 1.25, 2);
        simulation.noise = 0.2;
        run(&simulation, sources, 4, 5 * SECOND, SECOND);
        for (uint32_t s = 0; s < 3; s++)
            cr_expect(part_good(&sources[s]) >= 0.98, "case %zu: client %u has %g of what it asks for", i, s,
                      part_good(&sources[s]));
        cr_expect(sources[3].good > 4 * 8500, "case %zu: %lu are left for the greedy one", i,
                  (unsigned long)sources[3].good);
        end(&simulation);
    }
}

Test(overload, clients_that_all_want_more_have_the_same_whatever_they_ask_for, .timeout = 100)
{
    struct simulation simulation;
    struct source sources[3];
    static const double rates[] = {20000, 60000, 180000};
    static const uint32_t candidates[] = {60, 30, 60};
    for (uint32_t s = 0; s < 3; s++)
        sources[s] = (struct source){.per_s = rates[s],
                                     .num_candidates = candidates[s],
                                     .within_us = 50 * MS,
                                     .client = s + 1,
                                     .num_connections = 3 * s};
    make(&simulation, "a=1", 5, 1.25, 2);
    run(&simulation, sources, 3, 5 * SECOND, SECOND);
    const double all = (double)(sources[0].work_us + sources[1].work_us + sources[2].work_us);
    for (uint32_t s = 0; s < 3; s++) {
        const double share = (double)sources[s].work_us / all;
        cr_expect(share > 0.26 && share < 0.41, "client %u has %g of the work", s, share);
    }
    end(&simulation);
}

Test(overload, connections_of_one_client_share_what_it_has, .timeout = 100)
{
    struct simulation simulation;
    struct source sources[2] = {{.per_s = 8000, .num_candidates = 60, .within_us = 50 * MS, .client = 0},
                                {.per_s = 200000, .num_candidates = 60, .within_us = 50 * MS, .client = 0}};
    make(&simulation, "a=1", 5, 1.25, 2);
    sources[1].connection = 77;
    run(&simulation, sources, 2, 5 * SECOND, SECOND);
    cr_expect(part_good(&sources[0]) >= 0.98, "it has %g of what it asks for", part_good(&sources[0]));
    end(&simulation);
}

Test(overload, a_flood_of_a_low_class_does_not_reach_a_high_one, .timeout = 100)
{
    struct simulation simulation;
    struct source sources[2] = {{.per_s = 15000, .num_candidates = 60, .within_us = 50 * MS, .client = 1},
                                {.per_s = 200000, .num_candidates = 60, .priority = 1, .client = 2}};
    make(&simulation, "high=8,low=1", 5, 1.25, 2);
    simulation.noise = 0.2;
    run(&simulation, sources, 2, 5 * SECOND, SECOND);
    cr_expect(part_good(&sources[0]) >= 0.99, "the high class has %g of what it asks for", part_good(&sources[0]));
    cr_expect(sources[1].good > 4 * 8000, "%lu are left for the low class", (unsigned long)sources[1].good);
    end(&simulation);
}

/* ---- when predictions are wrong ---- */

Test(overload, workers_that_become_slower_are_noticed, .timeout = 100)
{
    struct simulation simulation;
    struct source source = {.per_s = 50000, .num_candidates = 60, .within_us = 50 * MS};
    make(&simulation, "a=1", 5, 1.25, 2);
    simulation.noise = 0.2;
    simulation.slowness = 5.0;
    run(&simulation, &source, 1, 5 * SECOND, SECOND);
    const double goodput = (double)source.good / 4.0;
    cr_expect(goodput > 0.95 * 24800 / 5, "%g a second are answered in time", goodput);
    cr_expect((double)source.late <= 0.001 * (double)source.good, "%lu are late", (unsigned long)source.late);
    cr_expect(percentile_us(&simulation, 0.99) < 5 * MS, "p99 is %u us", percentile_us(&simulation, 0.99));
    end(&simulation);
}

/* What stands there when the overload is noticed, with no deadline to end it: the newest are served meanwhile, the
 * oldest sent away. */
Test(overload, a_standing_queue_is_cut_from_its_old_end, .timeout = 100)
{
    struct simulation simulation;
    struct source source = {.per_s = 40000, .num_candidates = 60, .until_us = 3 * SECOND};
    make(&simulation, "a=1", 5, 1.25, 2);
    run(&simulation, &source, 1, 5 * SECOND, 0);
    cr_expect(source.shed > 100, "%lu were sent away", (unsigned long)source.shed);
    cr_expect(source.refused > 5000, "%lu were refused", (unsigned long)source.refused);
    cr_expect_eq(source.good + source.refused + source.shed, source.offered);
    cr_expect(percentile_us(&simulation, 0.8) < 2 * MS, "a fifth of all takes longer than %u us",
              percentile_us(&simulation, 0.8));
    end(&simulation);
}

/* ---- bounds and hints ---- */

static enum rk_status try(struct rk_schedule *schedule, struct rk_job *job, size_t bytes, uint64_t deadline_us)
{
    *job = (struct rk_job){
        .model = &model, .request.num_candidates = 64, .deadline_us = deadline_us, .bytes = bytes, .settled = settled};
    return rk_schedule_add(schedule, job, NOW_US);
}

static struct rk_schedule *bounded(uint64_t max_wait_us, uint64_t max_bytes, uint32_t max_pushback_ms)
{
    struct simulation simulation;
    make(&simulation, "a=1", 0, 100, 1); /* 6.4 ms each */
    end(&simulation);
    const struct rk_schedule_config config = {.models = &model,
                                              .num_models = 1,
                                              .priorities = &priorities,
                                              .max_jobs = 100,
                                              .max_batch = MAX_BATCH,
                                              .num_workers = 1,
                                              .max_wait_us = max_wait_us,
                                              .max_bytes = max_bytes,
                                              .max_pushback_ms = max_pushback_ms,
                                              .seed = 7};
    struct rk_schedule *schedule;
    cr_assert_eq(rk_schedule_create(&config, &schedule, NULL), RK_OK);
    return schedule;
}

Test(overload, a_queue_is_bounded_by_the_time_that_its_work_takes)
{
    struct rk_job waiting[100];
    struct rk_schedule *schedule = bounded(100 * MS, 0, 500);
    uint32_t taken = 0;
    while (taken < 100 && try(schedule, &waiting[taken], 0, UINT64_MAX) == RK_OK)
        taken++;
    cr_expect(taken >= 15 && taken <= 17, "%u were taken", taken);
    cr_expect_eq(waiting[taken].refusal.reason, RK_REFUSED_FULL);
    cr_expect_eq(rk_schedule_num_refused(schedule, RK_REFUSED_FULL), 1);
    cr_assert(rk_schedule_remove(schedule, &waiting[0], NOW_US));
    cr_expect_eq(try(schedule, &waiting[taken], 0, UINT64_MAX), RK_OK);
    rk_schedule_destroy(schedule);
}

Test(overload, a_queue_is_bounded_by_bytes)
{
    struct rk_job waiting[4];
    struct rk_schedule *schedule = bounded(0, 1000, 500);
    cr_expect_eq(try(schedule, &waiting[0], 600, UINT64_MAX), RK_OK);
    cr_expect_eq(try(schedule, &waiting[1], 401, UINT64_MAX), RK_EXHAUSTED);
    cr_expect_eq(waiting[1].refusal.reason, RK_REFUSED_BYTES);
    cr_expect_eq(try(schedule, &waiting[2], 400, UINT64_MAX), RK_OK);
    cr_expect_eq(try(schedule, &waiting[3], SIZE_MAX, UINT64_MAX), RK_EXHAUSTED);
    cr_assert(rk_schedule_remove(schedule, &waiting[0], NOW_US));
    cr_expect_eq(try(schedule, &waiting[1], 600, UINT64_MAX), RK_OK);
    rk_schedule_destroy(schedule);
}

Test(overload, a_deadline_behind_the_queue_is_refused_and_an_earlier_one_goes_before_it)
{
    struct rk_job waiting[12];
    struct rk_schedule *schedule = bounded(0, 0, 500);
    for (int i = 0; i < 10; i++)
        cr_assert_eq(try(schedule, &waiting[i], 0, NOW_US + SECOND), RK_OK);
    cr_expect_eq(try(schedule, &waiting[10], 0, NOW_US + SECOND + 1), RK_OK);
    cr_expect_eq(try(schedule, &waiting[11], 0, NOW_US + 10 * MS), RK_OK, "it goes before the others");
    struct rk_job late;
    cr_expect_eq(try(schedule, &late, 0, NOW_US + 12 * MS), RK_EXHAUSTED, "one goes before it");
    cr_expect_eq(late.refusal.reason, RK_REFUSED_BEHIND);
    cr_expect(late.refusal.pushback_ms >= 1 && late.refusal.pushback_ms <= 500);
    cr_expect_eq(try(schedule, &late, 0, NOW_US + 6 * MS), RK_DEADLINE, "an idle server could not do it");
    cr_expect_eq(late.refusal.pushback_ms, 0);
    rk_schedule_destroy(schedule);
}

Test(overload, hints_follow_the_queue_within_their_bound_and_are_spread)
{
    struct rk_job waiting[100], refused;
    for (uint32_t most = 0; most <= 300; most += 100) {
        struct rk_schedule *schedule = bounded(200 * MS, 0, most);
        uint32_t taken = 0, least = UINT32_MAX, highest = 0;
        while (try(schedule, &waiting[taken], 0, UINT64_MAX) == RK_OK)
            taken++;
        for (int i = 0; i < 200; i++) {
            cr_assert_eq(try(schedule, &refused, 0, UINT64_MAX), RK_EXHAUSTED);
            least = refused.refusal.pushback_ms < least ? refused.refusal.pushback_ms : least;
            highest = refused.refusal.pushback_ms > highest ? refused.refusal.pushback_ms : highest;
        }
        cr_expect(highest <= most, "%u of %u", highest, most);
        if (most == 300) /* about 200 ms of work wait */
            cr_expect(least >= 100 && least < 130 && highest > 270, "from %u to %u", least, highest);
        rk_schedule_destroy(schedule);
    }
}

/* What would be refused is refused before it is decoded, and counted once. */
Test(overload, a_request_is_judged_by_what_little_is_known_of_it)
{
    struct rk_job waiting[100];
    struct rk_schedule *schedule = bounded(100 * MS, 0, 500);
    struct rk_ask ask = {.model = &model, .num_candidates = 64, .deadline_us = UINT64_MAX};
    struct rk_job_refusal refusal;
    cr_expect(!rk_schedule_refuses(schedule, &ask, NOW_US, &refusal));
    for (int i = 0; i < 17; i++)
        try(schedule, &waiting[i], 0, UINT64_MAX);
    const uint64_t before = rk_schedule_num_refused(schedule, RK_REFUSED_FULL);
    cr_expect(rk_schedule_refuses(schedule, &ask, NOW_US, &refusal));
    cr_expect_eq(refusal.reason, RK_REFUSED_FULL);
    cr_expect_eq(rk_schedule_num_refused(schedule, RK_REFUSED_FULL), before + 1);
    rk_schedule_destroy(schedule);
}
