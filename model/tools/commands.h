/* What each command does, one file each. They return exit codes. */
#ifndef RANKD_MODEL_TOOLS_COMMANDS_H
#define RANKD_MODEL_TOOLS_COMMANDS_H

#include "model/tools/cli.h"

int command_import(const struct cli_arguments *arguments);
int command_inspect(const struct cli_arguments *arguments);
int command_verify(const struct cli_arguments *arguments);
int command_quantize(const struct cli_arguments *arguments);
int command_score(const struct cli_arguments *arguments);
int command_eval(const struct cli_arguments *arguments);
int command_calibrate(const struct cli_arguments *arguments);
int command_plan(const struct cli_arguments *arguments);
int command_synth(const struct cli_arguments *arguments);

#endif
