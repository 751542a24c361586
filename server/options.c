/* The table of options and what is done with one value: parse, check, print. Runs before threads start. */
#include "server/options.h"

#include <inttypes.h>
#include <stdbool.h>
#include <string.h>

#include "server/gate.h"
#include "server/listeners.h"
#include "server/priorities.h"

static const char *const log_levels[] = {"debug", "info", "warn", "error",
                                         NULL}; /* in the order of enum rk_log_level */

static const char *const row_memories[] = {"mapped", "huge_pages", NULL}; /* in the order of enum rk_row_memory */
static const char *const required_or_optional[] = {"required", "optional", NULL};
static const char *const tls_versions[] = {"1.2", "1.3", NULL};
static const char *const no_or_yes[] = {"no", "yes", NULL};

#define TEXT(field, unit_, initial_, help_)                                                                            \
    {                                                                                                                  \
        .name = #field, .type = RK_OPTION_TEXT, .offset = offsetof(struct rk_options, field), .unit = unit_,           \
        .initial = initial_, .help = help_                                                                             \
    }
#define NUMBER(field, unit_, least_, most_, initial_, help_)                                                           \
    {                                                                                                                  \
        .name = #field, .type = RK_OPTION_NUMBER, .offset = offsetof(struct rk_options, field), .unit = unit_,         \
        .least = least_, .most = most_, .initial = initial_, .help = help_                                             \
    }
#define CHOICE(field, choices_, initial_, help_)                                                                       \
    {                                                                                                                  \
        .name = #field, .type = RK_OPTION_CHOICE, .offset = offsetof(struct rk_options, field), .choices = choices_,   \
        .initial = initial_, .help = help_                                                                             \
    }

/* clang-format off */
static const struct rk_option table[] = {
    TEXT(model_repository, "directory", "", "where the models are: DIR/<model>/<version>/; required"),
    TEXT(listen, "HOST:PORT,...", "127.0.0.1:8470", "addresses to serve on without TLS, or unix:/PATH; port 0 takes a free one"),
    TEXT(listen_tls, "HOST:PORT,...", "", "addresses to serve on with TLS"),
    TEXT(listen_admin, "HOST:PORT,...", "", "without TLS, for rankd.v1.Admin, which is then refused elsewhere; best a Unix socket"),
    TEXT(tls_certificate, "file", "", "PEM: the server's certificate, then its chain; read again on SIGHUP, as are the next three"),
    TEXT(tls_key, "file", "", "PEM: the certificate's key, without a passphrase and not open to every user"),
    TEXT(tls_client_ca, "file", "", "PEM: CAs of clients, who then have to show a certificate"),
    TEXT(tls_client_crl, "file", "", "PEM: the list of revoked certificates of each of these CAs"),
    CHOICE(tls_client_certificates, required_or_optional, "required", "optional: clients without one may come in; access_file says to what"),
    CHOICE(tls_min_version, tls_versions, "1.2", "the oldest TLS that is spoken"),
    TEXT(access_file, "file", "", "YAML: who may call what, by certificate or token; all else but health checks is closed; read again on SIGHUP"),
    TEXT(ready_file, "file", "", "write the addresses here, one a line, atomically, once requests are served"),
    TEXT(backend, "NAME|PATH", "cpu", "what computes: cpu, the plug-in rankd-NAME.so, or the path of one"),
    TEXT(backend_path, "directory", "", "where plug-ins are looked for first; then " RANKD_PLUG_IN_FOLDER " and beside rankd"),
    TEXT(backend_options, "text", "", "for the backend's device; what it takes is the backend's own"),
    NUMBER(workers, "threads", 0, 512, "0", "compute threads; 0: one per processor, or as a plug-in asks"),
    CHOICE(pin_workers, no_or_yes, "no", "keep each worker on one processor of those that rankd may use"),
    TEXT(priority_weights, "NAME=WEIGHT,...", "interactive=8,batch=1", "priority classes of requests, the default first, and their shares of the workers"),
    NUMBER(event_loops, "threads", 1, 64, "1", "threads that talk to clients"),
    NUMBER(in_place_us, "us", 0, 1000, "20", "an event loop scores what takes less in all itself, without a worker; 0: never"),
    NUMBER(max_batch, "candidates", 1, 65536, "512", "the most candidates in one engine run; the measured cost may say less"),
    NUMBER(max_queued_requests, "requests", 1, 1000000, "1024", "per model and priority; past it RESOURCE_EXHAUSTED"),
    NUMBER(max_queued_ms, "ms", 0, 3600000, "10000", "of work that waits, per priority; past it RESOURCE_EXHAUSTED; 0: no limit"),
    NUMBER(max_queued_mib, "MiB", 0, 1048576, "1024", "of memory of requests that wait, all together; past it RESOURCE_EXHAUSTED; 0: no limit"),
    NUMBER(queue_target_us, "us", 0, 60000000, "1000", "how long requests may wait in an overload, or as long as four of them take; 0: as deadlines let them"),
    NUMBER(queue_interval_ms, "ms", 1, 60000, "50", "a queue that grew through four such intervals without ever being empty is an overload"),
    NUMBER(degraded_candidates, "candidates", 0, 1048576, "0", "rank the first so many of a request in an overload, and say so in the answer; 0: all"),
    NUMBER(max_pushback_ms, "ms", 0, 60000, "2000", "the longest that refused clients are told to wait (grpc-retry-pushback-ms); 0: they are not told"),
    NUMBER(memory_limit_mib, "MiB", 0, 1073741824, "0", "requests are refused past so much memory of its own; 0: 90% of the control group's limit, if any"),
    NUMBER(max_candidates, "candidates", 1, 1048576, "65536", "the most candidates in one request"),
    NUMBER(max_ids, "ids", 1, 268435456, "4194304", "the most ids in one request, all features together"),
    NUMBER(max_message_bytes, "bytes", 1024, 1073741824, "4194304", "the longest request message, after inflating"),
    NUMBER(min_compressed_bytes, "bytes", 0, 1073741824, "0", "answers of so many bytes are gzipped where the client takes it; 0: none"),
    NUMBER(max_connections, "connections", 1, 1000000, "4096", "open at a time; more are closed at once"),
    NUMBER(max_connections_per_peer, "connections", 0, 1000000, "2048", "open at a time from one IPv4 address, or one /64 of IPv6; 0: no limit"),
    NUMBER(max_streams, "calls", 1, 1000000, "128", "open at a time on one connection; clients keep what is more, or it is refused"),
    NUMBER(max_header_count, "headers", 8, 65536, "64", "in one request; past it the call is reset"),
    NUMBER(max_header_bytes, "bytes", 512, 1048576, "8192", "of one request's headers, 32 more for each; past it the call is reset"),
    NUMBER(max_resets_per_s, "resets", 10, 1000000, "1000", "calls that one connection gives up, as clients do when deadlines pass; past it it is closed"),
    NUMBER(max_glitches_per_s, "frames", 10, 1000000, "1000", "of no use (PING, SETTINGS, empty DATA, ...) from one connection; past it it is closed"),
    NUMBER(max_waiting_output_kib, "KiB", 64, 1048576, "16384", "of answers that one connection leaves unread; past it RESOURCE_EXHAUSTED"),
    NUMBER(slow_timeout_s, "s", 0, 3600, "5", "over 192 KiB of unread answers and unfinished requests may move under 16 KiB/s for so long; 0: for ever"),
    NUMBER(settings_timeout_s, "s", 0, 3600, "10", "a connection that has not acknowledged SETTINGS by then is closed; 0: it may"),
    NUMBER(handshake_timeout_s, "s", 1, 3600, "4", "a connection that has not spoken TLS and HTTP/2 by then is closed, within a second"),
    NUMBER(idle_timeout_s, "s", 1, 86400, "300", "a connection without calls for so long is told to go"),
    NUMBER(keepalive_s, "s", 0, 86400, "120", "a connection that is silent for so long is pinged; 0: never"),
    NUMBER(keepalive_timeout_s, "s", 1, 3600, "20", "and closed when nothing comes back for so long"),
    NUMBER(ping_interval_s, "s", 0, 86400, "5", "a client may ping once in so long while it is sent nothing, or gets too_many_pings; 0: any time"),
    NUMBER(stall_timeout_s, "s", 1, 86400, "60", "a call whose client takes no answer for so long is reset"),
    NUMBER(max_connection_age_s, "s", 0, 31536000, "0", "a connection is told to go then, give or take a tenth, so that clients spread anew; 0: never"),
    NUMBER(connection_age_grace_s, "s", 0, 86400, "60", "how long its open calls may take to finish; 0: for ever"),
    NUMBER(drain_timeout_s, "s", 0, 3600, "30", "how long open calls may take to finish after SIGTERM"),
    CHOICE(row_memory, row_memories, "huge_pages", "where rows are read from: copies in huge pages (faster), or the mapped files"),
    CHOICE(lock_memory, no_or_yes, "no", "keep the rows in memory whatever else needs it; the limit on locked memory must allow it"),
    NUMBER(shards, "shards", 0, 256, "0", "parts that copied rows are placed on by size and expected reads; 0: one per NUMA node"),
    NUMBER(shard_capacity_mib, "MiB", 0, 17592186044415, "0", "the most rows on a shard, all models together; a table may lie on several; 0: no limit"),
    NUMBER(scrub_interval_s, "s", 0, 604800, "60", "pause between background checks of what is served; 0: never"),
    NUMBER(scrub_rate_mib_s, "MiB/s", 1, 65536, "64", "how fast that check reads"),
    NUMBER(max_stream_requests, "requests", 1, 65536, "64", "in work at a time of one RankStream call; more are left unread"),
    TEXT(predictor_model, "name", "", "the model that TorchRec's Predict asks; not needed where one model is served"),
    TEXT(access_log, "stderr|FILE", "", "write a JSON line for each call that has ended; a file is appended to"),
    NUMBER(access_log_sample, "calls", 1, 1000000000, "1", "one call in so many has its line in the access log"),
    NUMBER(access_log_slow_ms, "ms", 0, 86400000, "100", "calls that took so long have their line always"),
    CHOICE(log_level, log_levels, "info", "the least important lines to log"),
};
/* clang-format on */
#define TABLE_SIZE (sizeof table / sizeof table[0])

const struct rk_option *rk_options_table(size_t *count)
{
    *count = TABLE_SIZE;
    return table;
}

static char *text_of(const struct rk_options *options, const struct rk_option *option)
{
    return (char *)options + option->offset;
}

static uint64_t *number_of(const struct rk_options *options, const struct rk_option *option)
{
    return (uint64_t *)((char *)options + option->offset);
}

void rk_options_init(struct rk_options *options)
{
    memset(options, 0, sizeof *options);
    for (size_t i = 0; i < TABLE_SIZE; i++)
        rk_option_set(options, &table[i], table[i].initial, strlen(table[i].initial), NULL);
}

static bool same_name(const char *key, const char *name, size_t length)
{
    for (size_t i = 0; i < length; i++)
        if (key[i] == '\0' || key[i] != (name[i] == '-' ? '_' : name[i]))
            return false;
    return key[length] == '\0';
}

const struct rk_option *rk_option_find(const char *name, size_t length)
{
    for (size_t i = 0; i < TABLE_SIZE; i++)
        if (same_name(table[i].name, name, length))
            return &table[i];
    return NULL;
}

/* How many letters must be changed, added or dropped to make one word of the other. */
static size_t edit_distance(const char *a, size_t a_length, const char *b, size_t b_length)
{
    size_t row[64];
    if (b_length >= sizeof row / sizeof row[0])
        return SIZE_MAX;
    for (size_t j = 0; j <= b_length; j++)
        row[j] = j;
    for (size_t i = 1; i <= a_length; i++) {
        size_t diagonal = row[0];
        row[0] = i;
        for (size_t j = 1; j <= b_length; j++) {
            char letter = a[i - 1] == '-' ? '_' : a[i - 1];
            size_t changed = diagonal + (letter != b[j - 1]);
            size_t shorter = (row[j] < row[j - 1] ? row[j] : row[j - 1]) + 1;
            diagonal = row[j];
            row[j] = changed < shorter ? changed : shorter;
        }
    }
    return row[b_length];
}

const char *rk_option_suggest(const char *name, size_t length)
{
    static _Thread_local char text[128];
    const char *best = NULL;
    size_t best_distance = length / 3 + 1;
    for (size_t i = 0; i < TABLE_SIZE && length < 64; i++) {
        size_t distance = edit_distance(name, length, table[i].name, strlen(table[i].name));
        if (distance <= best_distance && (best == NULL || distance < best_distance)) {
            best = table[i].name;
            best_distance = distance;
        }
    }
    if (best == NULL)
        return "";
    snprintf(text, sizeof text, "did you mean '%s'?", best);
    return text;
}

static bool parse_number(const char *text, size_t length, uint64_t *number)
{
    *number = 0;
    for (size_t i = 0; i < length; i++) {
        if (text[i] < '0' || text[i] > '9' || __builtin_mul_overflow(*number, 10u, number) ||
            __builtin_add_overflow(*number, (uint64_t)(text[i] - '0'), number))
            return false;
    }
    return length > 0;
}

static enum rk_status set_choice(struct rk_options *options, const struct rk_option *option, const char *text,
                                 size_t length, struct rk_error *error)
{
    char allowed[128] = "";
    size_t end = 0;
    for (size_t i = 0; option->choices[i] != NULL; i++) {
        if (strlen(option->choices[i]) == length && memcmp(option->choices[i], text, length) == 0) {
            *number_of(options, option) = i;
            return RK_OK;
        }
        end += (size_t)snprintf(allowed + end, sizeof allowed - end, "%s%s", i > 0 ? ", " : "", option->choices[i]);
    }
    return rk_error_set(error, RK_INVALID, "%s is '%.*s'; it takes one of: %s", option->name,
                        (int)(length < 64 ? length : 64), text, allowed);
}

enum rk_status rk_option_set(struct rk_options *options, const struct rk_option *option, const char *text,
                             size_t length, struct rk_error *error)
{
    if (option->type == RK_OPTION_CHOICE)
        return set_choice(options, option, text, length, error);
    if (option->type == RK_OPTION_TEXT) {
        if (length >= RK_OPTION_TEXT_BYTES || memchr(text, '\0', length) != NULL)
            return rk_error_set(error, RK_INVALID,
                                "%s is %zu bytes long; it takes text of at most %d bytes without NUL", option->name,
                                length, RK_OPTION_TEXT_BYTES - 1);
        memcpy(text_of(options, option), text, length);
        text_of(options, option)[length] = '\0';
        return RK_OK;
    }
    uint64_t number;
    if (!parse_number(text, length, &number) || number < option->least || number > option->most)
        return rk_error_set(error, RK_INVALID,
                            "%s is '%.*s'; it takes a whole number from %" PRIu64 " to %" PRIu64 "%s%s", option->name,
                            (int)(length < 64 ? length : 64), text, option->least, option->most,
                            option->unit != NULL ? " " : "", option->unit != NULL ? option->unit : "");
    *number_of(options, option) = number;
    return RK_OK;
}

int rk_option_format(const struct rk_options *options, const struct rk_option *option, char *text, size_t capacity)
{
    if (option->type == RK_OPTION_TEXT)
        return snprintf(text, capacity, "%s", text_of(options, option));
    if (option->type == RK_OPTION_CHOICE)
        return snprintf(text, capacity, "%s", option->choices[*number_of(options, option)]);
    return snprintf(text, capacity, "%" PRIu64, *number_of(options, option));
}

enum rk_status rk_options_check(const struct rk_options *options, struct rk_error *error)
{
    if (options->model_repository[0] == '\0')
        return rk_error_set(error, RK_INVALID,
                            "model_repository is not set; give --model-repository DIR, or the key in "
                            "the configuration file");
    if (options->row_memory == 0 && (options->shards > 0 || options->shard_capacity_mib > 0))
        return rk_error_set(error, RK_INVALID,
                            "%s is %" PRIu64
                            ", but row_memory is mapped: mapped rows lie on no shard; leave one of them "
                            "out",
                            options->shards > 0 ? "shards" : "shard_capacity_mib",
                            options->shards > 0 ? options->shards : options->shard_capacity_mib);
    struct rk_priorities priorities;
    enum rk_status status = rk_priorities_parse(options->priority_weights, &priorities, error);
    if (status == RK_OK)
        status = rk_listeners_check(options, error);
    return status == RK_OK ? rk_gate_check(options, error) : status;
}

void rk_options_print_help(FILE *stream)
{
    for (size_t i = 0; i < TABLE_SIZE; i++) {
        const struct rk_option *option = &table[i];
        char flag[96];
        size_t length = (size_t)snprintf(flag, sizeof flag, "--%s ", option->name);
        for (size_t j = 0; j < length; j++)
            if (flag[j] == '_')
                flag[j] = '-';
        if (option->type == RK_OPTION_CHOICE) {
            for (size_t c = 0; option->choices[c] != NULL; c++)
                length +=
                    (size_t)snprintf(flag + length, sizeof flag - length, "%s%s", c > 0 ? "|" : "", option->choices[c]);
        } else {
            snprintf(flag + length, sizeof flag - length, "%s", option->type == RK_OPTION_TEXT ? option->unit : "N");
        }
        fprintf(stream, "  %-34s %s", flag, option->help);
        if (option->type == RK_OPTION_NUMBER)
            fprintf(stream, " [%" PRIu64 "..%" PRIu64 " %s, default %s]\n", option->least, option->most, option->unit,
                    option->initial);
        else if (option->initial[0] != '\0')
            fprintf(stream, " [default %s]\n", option->initial);
        else
            fprintf(stream, "\n");
    }
}

void rk_options_print_sample(FILE *stream)
{
    fprintf(stream, "# rankd's configuration: every option with its default. Flags on the command line override it.\n");
    for (size_t i = 0; i < TABLE_SIZE; i++) {
        const struct rk_option *option = &table[i];
        fprintf(stream, "\n# %s\n", option->help);
        if (option->type == RK_OPTION_NUMBER)
            fprintf(stream, "# %" PRIu64 " to %" PRIu64 " %s\n%s: %s\n", option->least, option->most, option->unit,
                    option->name, option->initial);
        else
            fprintf(stream, "%s%s: \"%s\"\n", option->initial[0] == '\0' ? "# " : "", option->name, option->initial);
    }
}
