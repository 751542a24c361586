/* rankd's command line: flags from the table of options, and a few that are not options. */
#ifndef RANKD_SERVER_COMMAND_LINE_H
#define RANKD_SERVER_COMMAND_LINE_H

#include <stdbool.h>

#include "server/options.h"

struct rk_command_line {
    struct rk_options options;
    bool check, help, version, print_config;
};

/* Reads the flags, and before they apply the file that --config names: flags override it. RK_INVALID and the like say
 * which flag or which place in the file is wrong. With help, version or print_config nothing else has been looked at.
 */
enum rk_status rk_command_line_parse(int argc, char *const *argv, struct rk_command_line *line, struct rk_error *error);

#endif
