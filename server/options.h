/* rankd's options: one table that the command line, the configuration file, the help text, the sample configuration and
 * the tests read. */
#ifndef RANKD_SERVER_OPTIONS_H
#define RANKD_SERVER_OPTIONS_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "quant/base/status.h"

#define RK_OPTION_TEXT_BYTES 1024 /* the longest value of a text option, its NUL included */

struct rk_options {
    char model_repository[RK_OPTION_TEXT_BYTES];
    char listen[RK_OPTION_TEXT_BYTES], listen_tls[RK_OPTION_TEXT_BYTES], listen_admin[RK_OPTION_TEXT_BYTES];
    char tls_certificate[RK_OPTION_TEXT_BYTES], tls_key[RK_OPTION_TEXT_BYTES];
    char tls_client_ca[RK_OPTION_TEXT_BYTES], tls_client_crl[RK_OPTION_TEXT_BYTES];
    char access_file[RK_OPTION_TEXT_BYTES];
    uint64_t tls_client_certificates; /* 0: required, 1: optional */
    uint64_t tls_min_version;         /* 0: 1.2, 1: 1.3 */
    char ready_file[RK_OPTION_TEXT_BYTES];
    char backend[RK_OPTION_TEXT_BYTES], backend_path[RK_OPTION_TEXT_BYTES], backend_options[RK_OPTION_TEXT_BYTES];
    char priority_weights[RK_OPTION_TEXT_BYTES];
    uint64_t workers;     /* 0: as the backend likes it, for the processor one each */
    uint64_t pin_workers; /* 0: no, 1: yes */
    uint64_t event_loops;
    uint64_t in_place_us;
    uint64_t max_batch;
    uint64_t max_queued_requests; /* per model and priority */
    uint64_t max_queued_ms, max_queued_mib;
    uint64_t queue_target_us, queue_interval_ms; /* of overload; target 0: there is none */
    uint64_t degraded_candidates;                /* 0: never */
    uint64_t max_pushback_ms;
    uint64_t memory_limit_mib; /* 0: the control group's */
    uint64_t max_candidates, max_ids, max_message_bytes, min_compressed_bytes;
    uint64_t max_connections, max_connections_per_peer, max_streams;
    uint64_t max_header_count, max_header_bytes;
    uint64_t max_resets_per_s, max_glitches_per_s, max_waiting_output_kib;
    uint64_t slow_timeout_s, settings_timeout_s;
    uint64_t handshake_timeout_s, idle_timeout_s, drain_timeout_s;
    uint64_t ping_interval_s, keepalive_s, keepalive_timeout_s, stall_timeout_s;
    uint64_t max_connection_age_s, connection_age_grace_s;
    uint64_t row_memory;         /* enum rk_row_memory */
    uint64_t lock_memory;        /* 0 or 1 */
    uint64_t shards;             /* 0: one per NUMA node */
    uint64_t shard_capacity_mib; /* 0: no limit */
    uint64_t scrub_interval_s, scrub_rate_mib_s;
    char predictor_model[RK_OPTION_TEXT_BYTES];
    uint64_t max_stream_requests;
    char access_log[RK_OPTION_TEXT_BYTES];
    uint64_t access_log_sample, access_log_slow_ms;
    uint64_t log_level; /* enum rk_log_level */
};

enum rk_option_type { RK_OPTION_TEXT, RK_OPTION_NUMBER, RK_OPTION_CHOICE };

struct rk_option {
    const char *name; /* the key in the file; the flag is --name with '-' for '_' */
    enum rk_option_type type;
    size_t offset;              /* in struct rk_options: char[RK_OPTION_TEXT_BYTES] or uint64_t */
    const char *unit;           /* for people; NULL: none */
    uint64_t least, most;       /* numbers */
    const char *const *choices; /* RK_OPTION_CHOICE: NULL-terminated; the value is the index */
    const char *initial;        /* the default, as one would write it */
    const char *help;
};

/* All options; *count is their number. */
const struct rk_option *rk_options_table(size_t *count);

/* Sets every option to its default. */
void rk_options_init(struct rk_options *options);

/* Finds by key (or by flag: '-' equals '_'). NULL: none. */
const struct rk_option *rk_option_find(const char *name, size_t length);

/* "did you mean 'workers'?" when some option's name is close, else "". Static per thread. */
const char *rk_option_suggest(const char *name, size_t length);

/* Sets one option from text. RK_INVALID: "workers is 'many'; it takes a whole number from 0 to 512". */
enum rk_status rk_option_set(struct rk_options *options, const struct rk_option *option, const char *text,
                             size_t length, struct rk_error *error);

/* The option's value as rk_option_set would take it. Returns the length as snprintf does. */
int rk_option_format(const struct rk_options *options, const struct rk_option *option, char *text, size_t capacity);

/* What cannot be judged value by value: required options, addresses and priorities that parse. */
enum rk_status rk_options_check(const struct rk_options *options, struct rk_error *error);

void rk_options_print_help(FILE *stream);   /* one paragraph per flag */
void rk_options_print_sample(FILE *stream); /* a configuration file with every option at its default */

#endif
