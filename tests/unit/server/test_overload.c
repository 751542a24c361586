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
    uint64_t client;
    uint64_t from_us, until_us; /* since the beginning; until 0: to the end */

    uint64_t next_us, owed; /* the simulation's; owed: of a closed loop, to follow at once */
    uint64_t offered, good, late, refused, refused_late_us, shed;
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
                        .connection =
                            source->client * 1000 + random_below(&simulation->random, source->num_connections + 1),
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
            cr_expect(outcome.late <= 0.001, "%s at %g: %g late", kinds[k].name, rates[r], outcome.late);
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
