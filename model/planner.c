/* The search.
 *
 * 1. For each table, formats whose rows are both larger and less exact than those of another are left out. What each of
 *    the others does to the logits is measured with that table alone changed. Squared errors of logits rank them, not
 *    AUC losses: those of one table are mostly noise on a finite sample.
 * 2. A table's formats make a curve of bytes against error, of which the lower convex hull is walked from what the
 *    table is stored in to its smallest format. All tables' steps, sorted by error per byte saved, are one path from
 * the model as it is to the smallest there is; if errors of tables add up, no model of the same size has less error.
 * 3. Limit on bytes: the first place on the path under the limit, then back where bytes are left over.
 *    Limit on the loss: the place is found by bisection with the loss measured, not predicted; then every later step
 *    is tried by itself, and kept when the limit still holds.
 */
#include "model/planner.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* One way to store a table. */
struct option {
    enum rk_row_format format;
    uint64_t bytes;
    double row_error;
    double logit_error, auc_loss;
};

struct table_options {
    struct option options[RK_ROW_FORMAT_COUNT]; /* the hull: from what the table is stored in to the smallest */
    size_t num_options;
    bool pruned;
};

struct step {
    uint32_t table;
    size_t to;   /* from the option before it */
    double cost; /* error per byte saved */
};

struct planner {
    const struct rk_model_spec *spec;
    struct rk_sample *sample;
    const struct rk_planner_options *options;
    struct table_options *tables;
    size_t *position; /* [num_tables]: which option each table has now */
    struct step *steps;
    size_t num_steps;
    uint64_t fixed_bytes; /* of the towers in their new formats */
    struct rk_table_choice *choices;
    struct rk_head_metrics *before[RK_SAMPLE_SETS]; /* [num_heads] */
    struct rk_head_metrics *now;                    /* of the last measurement */
    double *variances;                              /* of the model's own logits, per head */
    uint64_t num_measurements, expected_measurements;
    struct rk_error *error;
};

/* ---- measuring ---- */

static enum rk_status report(struct planner *p)
{
    const struct rk_planner_options *options = p->options;
    p->num_measurements++;
    if (p->num_measurements > p->expected_measurements)
        p->expected_measurements = p->num_measurements;
    if (options->progress == NULL ||
        options->progress(options->progress_context, "measuring", p->num_measurements, p->expected_measurements))
        return RK_OK;
    return rk_error_set(p->error, RK_CANCELLED, "cancelled");
}

static double relative_error(const struct planner *p, const struct rk_head_metrics *heads)
{
    double sum = 0;
    for (uint32_t h = 0; h < p->spec->num_heads; h++)
        sum += heads[h].mean_squared_error / p->variances[h];
    return sum / p->spec->num_heads;
}

/* The loss of the head that loses most; NaN when no head has an AUC. */
static double worst_loss(const struct planner *p, enum rk_sample_set set, const struct rk_head_metrics *heads)
{
    double worst = NAN;
    for (uint32_t h = 0; h < p->spec->num_heads; h++)
        worst = fmax(worst, p->before[set][h].auc - heads[h].auc); /* fmax prefers numbers */
    return worst;
}

/* Measures p->choices into heads, with the towers as they are or in their new formats. */
static enum rk_status measure_choices(struct planner *p, enum rk_sample_set set, bool towers,
                                      struct rk_head_metrics *heads)
{
    struct rk_score_list scores;
    enum rk_status status = rk_sample_score(p->sample, set, p->choices, towers, &scores, p->error);
    if (status == RK_OK)
        status = rk_metrics_measure(rk_sample_truth(p->sample, set), &scores, p->spec->calibration, heads, p->error);
    rk_score_list_deinit(&scores);
    return status == RK_OK ? report(p) : status;
}

static void choose_positions(struct planner *p)
{
    for (uint32_t t = 0; t < p->spec->num_tables; t++)
        p->choices[t] = (struct rk_table_choice){p->tables[t].options[p->position[t]].format, p->tables[t].pruned};
}

/* Does the limit hold on the fit set, with every table where it is? By one standard error: a search tries many choices,
 * and on few requests the luckiest of them would always seem to lose nothing. */
static enum rk_status limit_holds(struct planner *p, bool *holds)
{
    choose_positions(p);
    enum rk_status status = measure_choices(p, RK_SAMPLE_FIT, true, p->now);
    *holds = status == RK_OK;
    for (uint32_t h = 0; *holds && h < p->spec->num_heads; h++) {
        const struct rk_head_metrics *before = &p->before[RK_SAMPLE_FIT][h];
        const double error = rk_metric_auc_loss_error(before, &p->now[h]);
        if (!isnan(before->auc))
            *holds = before->auc - p->now[h].auc + (isnan(error) ? 0 : error) <= p->options->max_auc_loss;
    }
    return status;
}

static void find_variances(struct planner *p)
{
    const struct rk_score_list *truth = rk_sample_truth(p->sample, RK_SAMPLE_FIT);
    for (uint32_t h = 0; h < truth->num_heads; h++) {
        double sum = 0, squares = 0;
        for (size_t i = 0; i < truth->num_candidates; i++)
            sum += truth->logits[i * truth->num_heads + h];
        const double mean = sum / (double)truth->num_candidates;
        for (size_t i = 0; i < truth->num_candidates; i++) {
            const double off = truth->logits[i * truth->num_heads + h] - mean;
            squares += off * off;
        }
        p->variances[h] = squares > 0 ? squares / (double)truth->num_candidates : 1;
    }
}

/* ---- what a table may become ---- */

static uint64_t table_bytes(const struct planner *p, uint32_t t, enum rk_row_format format, bool pruned)
{
    const struct rk_table_spec *table = &p->spec->tables[t];
    uint64_t rows = rk_table_spec_stored_rows(table), index = 0;
    if (pruned) {
        size_t touched;
        rk_sample_touched(p->sample, t, &touched);
        rows = touched + 1;
    }
    if (pruned || table->kept.file != NULL)
        index = ((table->num_embeddings - 1) / RK_KEPT_BLOCK + 1) * 64;
    return rows * rk_row_bytes(format, table->embedding_dim) + index;
}

static int larger_first(const void *a, const void *b)
{
    const struct option *x = a, *y = b;
    return x->bytes != y->bytes ? (x->bytes < y->bytes) - (x->bytes > y->bytes)
                                : (x->row_error > y->row_error) - (x->row_error < y->row_error);
}

/* Smaller formats in order of their size, each more exact than all that are as small or smaller. */
static enum rk_status list_options(struct planner *p, uint32_t t)
{
    struct table_options *table = &p->tables[t];
    const enum rk_row_format own = p->spec->tables[t].format;
    table->pruned = p->options->prune && p->spec->tables[t].kept.file == NULL &&
                    table_bytes(p, t, own, true) < table_bytes(p, t, own, false);
    table->options[0] = (struct option){.format = own, .bytes = table_bytes(p, t, own, table->pruned)};
    size_t count = 1;
    for (size_t f = 0; f < p->options->num_formats; f++) {
        struct option option = {.format = p->options->formats[f]};
        option.bytes = table_bytes(p, t, option.format, table->pruned);
        bool known = option.bytes >= table->options[0].bytes;
        for (size_t i = 1; i < count; i++)
            known = known || table->options[i].format == option.format;
        if (known)
            continue;
        enum rk_status status = rk_sample_row_error(p->sample, t, option.format, &option.row_error, p->error);
        if (status != RK_OK)
            return status;
        table->options[count++] = option;
    }
    qsort(table->options + 1, count - 1, sizeof *table->options, larger_first);
    table->num_options = 1;
    for (size_t i = 1; i < count; i++) {
        bool dominated = false;
        for (size_t j = i + 1; j < count && !dominated; j++)
            dominated = table->options[j].row_error <= table->options[i].row_error;
        if (!dominated)
            table->options[table->num_options++] = table->options[i];
    }
    return RK_OK;
}

/* Each option of one table with the others left as they are. */
static enum rk_status measure_options(struct planner *p, uint32_t t)
{
    struct table_options *table = &p->tables[t];
    for (uint32_t i = 0; i < p->spec->num_tables; i++)
        p->choices[i] = (struct rk_table_choice){.format = p->spec->tables[i].format};
    /* Option 0 changes nothing: rows that pruning drops are not in the fit set. */
    for (size_t i = 1; i < table->num_options; i++) {
        p->choices[t] = (struct rk_table_choice){table->options[i].format, table->pruned};
        enum rk_status status = measure_choices(p, RK_SAMPLE_FIT, false, p->now);
        if (status != RK_OK)
            return status;
        table->options[i].logit_error = relative_error(p, p->now);
        table->options[i].auc_loss = worst_loss(p, RK_SAMPLE_FIT, p->now);
    }
    return RK_OK;
}

static double cost_of(const struct option *from, const struct option *to)
{
    return (to->logit_error - from->logit_error) / (double)(from->bytes - to->bytes);
}

/* Leaves the lower convex hull, on which every step costs more per byte than the one before it. */
static void keep_hull(struct table_options *table)
{
    size_t count = 0;
    for (size_t i = 0; i < table->num_options; i++) {
        const struct option option = table->options[i];
        if (count > 0 && option.bytes == table->options[count - 1].bytes)
            continue;
        while (count >= 2 && cost_of(&table->options[count - 2], &option) <=
                                 cost_of(&table->options[count - 2], &table->options[count - 1]))
            count--;
        table->options[count++] = option;
    }
    table->num_options = count;
}

static int cheaper_first(const void *a, const void *b)
{
    const struct step *x = a, *y = b;
    if (x->cost != y->cost)
        return (x->cost > y->cost) - (x->cost < y->cost);
    return x->table != y->table ? (x->table > y->table) - (x->table < y->table) : (x->to > y->to) - (x->to < y->to);
}

static enum rk_status make_path(struct planner *p)
{
    enum rk_status status = RK_OK;
    p->steps = calloc((size_t)p->spec->num_tables * RK_ROW_FORMAT_COUNT + 1, sizeof *p->steps);
    if (p->steps == NULL)
        return rk_error_set(p->error, RK_NO_MEMORY, "out of memory for the plan");
    for (uint32_t t = 0; status == RK_OK && t < p->spec->num_tables; t++) {
        status = list_options(p, t);
        p->expected_measurements += p->tables[t].num_options - 1;
    }
    for (uint32_t t = 0; status == RK_OK && t < p->spec->num_tables; t++) {
        status = measure_options(p, t);
        keep_hull(&p->tables[t]);
        for (size_t to = 1; to < p->tables[t].num_options; to++)
            p->steps[p->num_steps++] =
                (struct step){t, to, cost_of(&p->tables[t].options[to - 1], &p->tables[t].options[to])};
    }
    qsort(p->steps, p->num_steps, sizeof *p->steps, cheaper_first);
    return status;
}

/* ---- the search ---- */

static uint64_t bytes_now(const struct planner *p)
{
    uint64_t bytes = p->fixed_bytes;
    for (uint32_t t = 0; t < p->spec->num_tables; t++)
        bytes += p->tables[t].options[p->position[t]].bytes;
    return bytes;
}

/* Where the tables are after so many steps. Steps of one table are in order, because they lie on its hull. */
static void walk(struct planner *p, size_t num_steps)
{
    memset(p->position, 0, p->spec->num_tables * sizeof *p->position);
    for (size_t s = 0; s < num_steps; s++)
        p->position[p->steps[s].table] = p->steps[s].to;
}

static void search_bytes(struct planner *p, bool *met)
{
    size_t taken = 0;
    for (walk(p, 0); taken < p->num_steps && bytes_now(p) > p->options->max_bytes; taken++)
        p->position[p->steps[taken].table] = p->steps[taken].to;
    *met = bytes_now(p) <= p->options->max_bytes;
    /* The last steps cost most: take back what there are bytes for. */
    for (size_t s = taken; *met && s-- > 0;) {
        const struct step *step = &p->steps[s];
        if (p->position[step->table] != step->to)
            continue;
        p->position[step->table] = step->to - 1;
        if (bytes_now(p) > p->options->max_bytes)
            p->position[step->table] = step->to;
    }
}

static enum rk_status search_loss(struct planner *p, bool *met)
{
    walk(p, 0);
    enum rk_status status = limit_holds(p, met);
    if (status != RK_OK || !*met)
        return status;
    bool fine;
    size_t holds = 0, fails = p->num_steps + 1;
    for (size_t next = p->num_steps; fails - holds > 1; next = holds + (fails - holds) / 2) {
        walk(p, next);
        status = limit_holds(p, &fine);
        if (status != RK_OK)
            return status;
        *(fine ? &holds : &fails) = next;
    }
    walk(p, holds);
    for (size_t s = holds; s < p->num_steps; s++) {
        const struct step *step = &p->steps[s];
        const size_t from = p->position[step->table];
        p->position[step->table] = step->to;
        status = limit_holds(p, &fine);
        if (status != RK_OK)
            return status;
        if (!fine)
            p->position[step->table] = from;
    }
    return RK_OK;
}

/* ---- the result ---- */

static enum rk_status measure_result(struct planner *p, struct rk_planned *planned)
{
    choose_positions(p);
    for (int set = 0; set < RK_SAMPLE_SETS; set++) {
        planned->logit_error[set] = planned->auc_loss[set] = NAN;
        if (rk_sample_truth(p->sample, set)->num_requests == 0)
            continue;
        enum rk_status status = measure_choices(p, set, true, planned->after[set]);
        if (status != RK_OK)
            return status;
        memcpy(planned->before[set], p->before[set], p->spec->num_heads * sizeof *p->before[set]);
        planned->logit_error[set] = relative_error(p, planned->after[set]);
        planned->auc_loss[set] = worst_loss(p, set, planned->after[set]);
    }
    return RK_OK;
}

static enum rk_status measure_towers(struct planner *p, struct rk_planned *planned)
{
    for (uint32_t t = 0; t < p->spec->num_tables; t++)
        p->choices[t] = (struct rk_table_choice){.format = p->spec->tables[t].format};
    enum rk_status status = measure_choices(p, RK_SAMPLE_FIT, true, p->now);
    planned->towers_logit_error = relative_error(p, p->now);
    planned->towers_auc_loss = worst_loss(p, RK_SAMPLE_FIT, p->now);
    return status;
}

static enum rk_status fill_result(struct planner *p, struct rk_planned *planned)
{
    planned->bytes_before = p->spec->weights_bytes;
    planned->bytes_after = p->fixed_bytes;
    planned->predicted_logit_error = planned->towers_logit_error;
    planned->predicted_auc_loss = planned->towers_auc_loss;
    for (uint32_t t = 0; t < p->spec->num_tables; t++) {
        const struct option *option = &p->tables[t].options[p->position[t]];
        planned->tables[t] = (struct rk_planned_table){
            .choice = {option->format, p->tables[t].pruned},
            .bytes_before = table_bytes(p, t, p->spec->tables[t].format, false),
            .bytes_after = option->bytes,
            .logit_error = option->logit_error,
            .auc_loss = option->auc_loss,
        };
        planned->bytes_before += planned->tables[t].bytes_before;
        planned->bytes_after += option->bytes;
        planned->predicted_logit_error += option->logit_error;
        planned->predicted_auc_loss += option->auc_loss;
    }
    enum rk_status status = measure_result(p, planned);
    planned->num_measurements = p->num_measurements;
    return status;
}

static struct rk_planned *create_result(const struct rk_model_spec *spec)
{
    struct rk_planned *planned = calloc(1, sizeof *planned);
    if (planned == NULL)
        return NULL;
    planned->num_tables = spec->num_tables;
    planned->num_heads = spec->num_heads;
    planned->tables = calloc((size_t)spec->num_tables + 1, sizeof *planned->tables);
    bool fine = planned->tables != NULL;
    for (int set = 0; set < RK_SAMPLE_SETS; set++) {
        planned->before[set] = calloc(spec->num_heads, sizeof *planned->before[set]);
        planned->after[set] = calloc(spec->num_heads, sizeof *planned->after[set]);
        fine = fine && planned->before[set] != NULL && planned->after[set] != NULL;
    }
    if (!fine) {
        rk_planned_destroy(planned);
        return NULL;
    }
    return planned;
}

void rk_planned_destroy(struct rk_planned *planned)
{
    if (planned == NULL)
        return;
    for (int set = 0; set < RK_SAMPLE_SETS; set++) {
        free(planned->before[set]);
        free(planned->after[set]);
    }
    free(planned->tables);
    free(planned);
}

/* The model's own metrics: what losses are relative to. */
static enum rk_status measure_truth(struct planner *p)
{
    for (int set = 0; set < RK_SAMPLE_SETS; set++) {
        const struct rk_score_list *truth = rk_sample_truth(p->sample, set);
        if (truth->num_requests == 0)
            continue;
        enum rk_status status = rk_metrics_measure(truth, truth, p->spec->calibration, p->before[set], p->error);
        if (status != RK_OK)
            return status;
    }
    find_variances(p);
    if (!p->options->limit_bytes && isnan(worst_loss(p, RK_SAMPLE_FIT, p->before[RK_SAMPLE_FIT])))
        return rk_error_set(p->error, RK_INVALID,
                            "an AUC loss can only be limited with labels of both classes for at least one head");
    return RK_OK;
}

enum rk_status rk_planner_run(const struct rk_model *model, struct rk_sample *sample,
                              const struct rk_planner_options *options, struct rk_planned **out, struct rk_error *error)
{
    const struct rk_model_spec *spec = rk_model_spec_of(model);
    struct rk_error local = {0};
    struct planner p = {
        .spec = spec,
        .sample = sample,
        .options = options,
        .fixed_bytes = rk_sample_towers(sample)->weights_bytes,
        .tables = calloc((size_t)spec->num_tables + 1, sizeof *p.tables),
        .position = calloc((size_t)spec->num_tables + 1, sizeof *p.position),
        .choices = calloc((size_t)spec->num_tables + 1, sizeof *p.choices),
        .now = calloc(spec->num_heads, sizeof *p.now),
        .variances = calloc(spec->num_heads, sizeof *p.variances),
        .error = &local,
    };
    for (int set = 0; set < RK_SAMPLE_SETS; set++)
        p.before[set] = calloc(spec->num_heads, sizeof *p.before[set]);
    struct rk_planned *planned = create_result(spec);
    enum rk_status status = RK_OK;
    if (p.tables == NULL || p.position == NULL || p.choices == NULL || p.now == NULL || p.variances == NULL ||
        p.before[RK_SAMPLE_FIT] == NULL || p.before[RK_SAMPLE_HOLDOUT] == NULL || planned == NULL)
        status = rk_error_set(&local, RK_NO_MEMORY, "out of memory for the plan");
    if (status == RK_OK)
        status = measure_truth(&p);
    if (status == RK_OK)
        status = measure_towers(&p, planned);
    if (status == RK_OK)
        status = make_path(&p);
    if (status == RK_OK && options->limit_bytes)
        search_bytes(&p, &planned->met);
    else if (status == RK_OK)
        status = search_loss(&p, &planned->met);
    if (status == RK_OK)
        status = fill_result(&p, planned);
    free(p.tables);
    free(p.position);
    free(p.steps);
    free(p.choices);
    free(p.now);
    free(p.variances);
    for (int set = 0; set < RK_SAMPLE_SETS; set++)
        free(p.before[set]);
    if (status == RK_OK)
        *out = planned;
    else
        rk_planned_destroy(planned);
    return status == RK_OK ? RK_OK : rk_error_set(error, status, "%s", local.text);
}
