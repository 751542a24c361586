/* Adding up what batches cost for the jobs in them. Workers that share a job add at the same time, each in relaxed
 * order: rk_job_settle() orders it all before whoever makes the answer. */
#include "server/job_cost.h"

bool rk_batch_wants_cost(const struct rk_batch *batch)
{
    for (uint32_t i = 0; i < batch->num_slices; i++)
        if (batch->jobs[i]->cost != NULL)
            return true;
    return false;
}

static void add(_Atomic uint64_t *sum, uint64_t more)
{
    atomic_fetch_add_explicit(sum, more, memory_order_relaxed);
}

/* The batch that began first need not be the one that ends first. */
static void set_begun(_Atomic uint64_t *begun_ns, uint64_t ns)
{
    uint64_t before = atomic_load_explicit(begun_ns, memory_order_relaxed);
    while ((before == 0 || ns < before) &&
           !atomic_compare_exchange_weak_explicit(begun_ns, &before, ns, memory_order_relaxed, memory_order_relaxed))
        ;
}

void rk_batch_add_cost(const struct rk_batch *batch, uint64_t begun_ns, const struct rk_run_cost *cost)
{
    for (uint32_t i = 0; i < batch->num_slices; i++) {
        struct rk_job_cost *sum = batch->jobs[i]->cost;
        if (sum == NULL || (i > 0 && batch->jobs[i] == batch->jobs[i - 1]))
            continue;
        set_begun(&sum->begun_ns, begun_ns);
        add(&sum->lookup_ns, cost->lookup_ns);
        add(&sum->interaction_ns, cost->interaction_ns);
        add(&sum->towers_ns, cost->towers_ns);
        add(&sum->rest_ns, cost->rest_ns + cost->transfer_ns);
        add(&sum->batches, 1);
        add(&sum->batch_candidates, batch->num_candidates);
    }
}
