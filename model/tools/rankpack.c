/* rankpack: everything a model engineer does to model files. The table below is all there is to know about its command
 * line. */
#include <stddef.h>

#include "model/tools/commands.h"

static const char *const import_examples[] = {
    "rankpack import --config config.json --weights model.safetensors --output models/steam/1",
    "rankpack import --config config.json --weights model.safetensors.index.json --output models/big/7 \\\n"
    "      --golden-requests requests.jsonl --golden-scores expected.jsonl --shard-bytes 16G",
    NULL};
static const char *const inspect_examples[] = {
    "rankpack inspect models/steam/1", "rankpack inspect models/steam/1 --json",
    "rankpack inspect models/ctr/1 --plan --shards 4 --capacity 64G --requests requests.jsonl --plot plan.svg", NULL};
static const char *const verify_examples[] = {
    "rankpack verify models/steam/1",
    "rankpack verify models/steam/1 --requests requests.jsonl --expected expected.jsonl", NULL};
static const char *const score_examples[] = {
    "rankpack score models/steam/1 --requests requests.jsonl",
    "rankpack score models/steam/1 --requests requests.jsonl --top 10",
    "rankpack score models/steam/1 --requests requests.jsonl --top 10 --value 'play * binge^0.5'",
    "rankpack score models/steam/1 --requests requests.jsonl --expected expected.jsonl", NULL};
static const char *const eval_examples[] = {
    "rankpack eval models/steam/1 models/steam/2 --requests requests.jsonl --expected expected.jsonl",
    "rankpack eval fp32/1 int8/1 int4/1 --requests requests.jsonl --expected expected.jsonl --plot eval.svg",
    "rankpack eval models/steam/1 models/steam/2 --requests requests.jsonl --json", NULL};
static const char *const quantize_examples[] = {
    "rankpack quantize models/steam/1 --rows int8 --towers int8 --output models/steam/2",
    "rankpack quantize models/steam/1 --rows 'user=int8,*=int4' --towers top=int8 --output models/steam/2",
    "rankpack quantize models/steam/1 --plan plan.json --calibrate requests.jsonl --output models/steam/2", NULL};
static const char *const calibrate_examples[] = {
    "rankpack calibrate models/steam/1 --requests requests.jsonl --expected expected.jsonl",
    "rankpack calibrate models/steam/1 --requests requests.jsonl --expected expected.jsonl --output models/steam/2",
    NULL};
static const char *const plan_examples[] = {
    "rankpack plan models/steam/1 --requests requests.jsonl --expected expected.jsonl --max-auc-loss 0.001 \\\n"
    "      --output plan.json",
    "rankpack plan models/steam/1 --requests requests.jsonl --max-bytes 256K --prune --output plan.json",
    "rankpack quantize models/steam/1 --plan plan.json --output models/steam/2", NULL};
static const char *const synth_examples[] = {
    "rankpack synth --shape dlrm-26x128 --max-rows 100000 --output models/synth/1",
    "rankpack synth --shape mlperf-dlrm-dcnv2 --max-rows 1000000 --output models/mlperf/1 \\\n"
    "      --requests 100 --candidates 256 --requests-output requests.jsonl",
    "rankpack synth --table user:1000000:64 --table item:200000:64 --context-features 1 --bottom 8-64 --top 0-128-1 "
    "\\\n"
    "      --output models/small/1",
    NULL};

#define OPTION(name, value, help)                                                                                      \
    {                                                                                                                  \
        name, value, help, false, false                                                                                \
    }
#define REQUIRED(name, value, help)                                                                                    \
    {                                                                                                                  \
        name, value, help, true, false                                                                                 \
    }
#define REPEATED(name, value, help)                                                                                    \
    {                                                                                                                  \
        name, value, help, false, true                                                                                 \
    }
#define FLAG(name, help)                                                                                               \
    {                                                                                                                  \
        name, NULL, help, false, false                                                                                 \
    }

const struct cli_command rankpack_commands[] = {
    {.name = "import",
     .summary = "make a package from config.json and safetensors",
     .examples = import_examples,
     .run = command_import,
     .options = {REQUIRED("config", "FILE", "config.json: how the tensors fit together"),
                 REQUIRED("weights", "FILE", "model.safetensors, or the .index.json of a sharded set"),
                 REQUIRED("output", "DIR", "the package to make, REPOSITORY/NAME/VERSION"),
                 OPTION("golden-requests", "FILE",
                        "JSON lines whose first requests become golden; made up if left out"),
                 OPTION("golden-scores", "FILE", "the trainer's scores of these requests, which the engine must meet"),
                 OPTION("golden-count", "N", "how many golden requests to keep (8)"),
                 OPTION("shard-bytes", "BYTES", "cut tables into files of at most so many bytes (64G)"),
                 OPTION("shard-rows", "N", "cut tables into files of at most so many rows")}},
    {.name = "inspect",
     .operand = "MODEL_DIR",
     .summary = "show tables, architecture and cost",
     .examples = inspect_examples,
     .run = command_inspect,
     .options = {FLAG("json", "print JSON"),
                 OPTION("ids-per-feature", "N", "rows per bag to reckon the cost with (1)"),
                 FLAG("plan", "show which rows would lie on which shard of a server"),
                 OPTION("shards", "N", "with --plan: how many shards there are (1)"),
                 OPTION("capacity", "SIZE", "with --plan: what each of them holds at most (K, M, G, T)"),
                 OPTION("candidates", "N", "with --plan: candidates per request (256)"),
                 OPTION("requests", "FILE", "with --plan: JSON lines that are read like the requests to come"),
                 OPTION("plot", "FILE", "with --plan: draw it into an SVG file")}},
    {.name = "verify",
     .operand = "MODEL_DIR",
     .summary = "check every checksum and every row, and replay the golden requests",
     .examples = verify_examples,
     .run = command_verify,
     .options = {FLAG("json", "print JSON"), OPTION("requests", "FILE", "score these requests too (with --expected)"),
                 OPTION("expected", "FILE", "the scores that they must have")}},
    {.name = "score",
     .operand = "MODEL_DIR",
     .summary = "score requests without a server",
     .examples = score_examples,
     .run = command_score,
     .options = {REQUIRED("requests", "FILE", "JSON lines, '-' for standard input"),
                 OPTION("batch", "N", "candidates per batch (256)"),
                 OPTION("top", "K", "print a table of the best K candidates of each request instead of JSON"),
                 OPTION("head", "NAME", "the head that --top sorts by (the default value model, or the first)"),
                 OPTION("value-model", "NAME", "add values by this one of the model's value models; --top sorts by them"),
                 OPTION("value", "FORMULA",
                        "add values by this: 0.7*play + 0.3*binge, 0.7*logit(play) + 0.3*logit(binge), or "
                        "play * binge^0.5; --top sorts by them"),
                 OPTION("expected", "FILE",
                        "compare with these scores instead of printing; AUC per head if they have labels")}},
    {.name = "quantize",
     .operand = "MODEL_DIR",
     .summary = "make the same model in smaller number formats",
     .examples = quantize_examples,
     .run = command_quantize,
     .options = {REQUIRED("output", "DIR", "the package to make"),
                 OPTION("rows", "FORMATS", "of the tables: one for all, or TABLE=FORMAT,... with shell patterns"),
                 OPTION("towers", "FORMATS", "fp32, bf16 or int8: one for all, or bottom=..,interaction=..,top=.."),
                 OPTION("plan", "FILE", "formats and kept rows from a plan, instead of --rows and --towers"),
                 OPTION("calibrate", "FILE",
                        "JSON lines: int8 layers get fixed input ranges, those that round what they read in these "
                        "requests with the least squared error, so that the largest may be clipped; left out: each row "
                        "finds its own range, which is more accurate and a little slower"),
                 OPTION("shard-bytes", "BYTES", "cut tables into files of at most so many bytes (as the source)"),
                 OPTION("shard-rows", "N", "cut tables into files of at most so many rows"),
                 FLAG("json", "print JSON")}},
    {.name = "eval",
     .operand = "MODEL_DIR",
     .many_operands = true,
     .summary = "compare models: size, AUC, normalised entropy, logit errors, top-10 overlap",
     .examples = eval_examples,
     .run = command_eval,
     .options = {REQUIRED("requests", "FILE", "JSON lines that every model scores"),
                 OPTION("expected", "FILE",
                        "the true logits, and labels for AUC and normalised entropy; left out: the baseline's logits"),
                 OPTION("baseline", "MODEL_DIR", "the model that the others are compared with (the first)"),
                 OPTION("plot", "FILE", "draw size against accuracy into an SVG file"), FLAG("json", "print JSON")}},
    {.name = "calibrate",
     .operand = "MODEL_DIR",
     .summary = "fit each head's scale and shift to labels, so that probabilities are what they say (Platt)",
     .examples = calibrate_examples,
     .run = command_calibrate,
     .options = {REQUIRED("requests", "FILE", "JSON lines: what the model scores; best those that it was not trained on"),
                 REQUIRED("expected", "FILE", "labels of these requests"),
                 OPTION("output", "DIR", "the calibrated package to make; left out: only the fit is shown"),
                 FLAG("json", "print JSON; its calibration can be put into config.json")}},
    {.name = "plan",
     .operand = "MODEL_DIR",
     .summary = "choose a row format for each table under a limit on AUC loss or bytes",
     .examples = plan_examples,
     .run = command_plan,
     .options = {REQUIRED("requests", "FILE", "the sample: JSON lines on which everything is measured"),
                 OPTION("expected", "FILE", "labels of these requests"),
                 OPTION("max-auc-loss", "LOSS",
                        "the fewest bytes with at most this loss of any head's AUC, one standard error to spare"),
                 OPTION("max-bytes", "SIZE", "the least loss within so many bytes of rows and weights (K, M, G, T)"),
                 OPTION("formats", "NAMES", "row formats to choose from: int8,int4 (integers, fp16 and MX)"),
                 FLAG("prune", "drop rows that the sample does not touch; they read the mean of all dropped rows"),
                 OPTION("holdout-requests", "FILE",
                        "requests that decide nothing: what the plan costs on them is shown"),
                 OPTION("holdout-expected", "FILE", "labels of these"),
                 OPTION("towers", "FORMATS", "what the towers become: int8, or top=int8,bottom=bf16 (as they are)"),
                 REQUIRED("output", "FILE", "the plan, for rankpack quantize --plan"), FLAG("json", "print JSON")}},
    {.name = "synth",
     .summary = "make a package, and requests, of a given shape",
     .examples = synth_examples,
     .run = command_synth,
     .options = {OPTION("output", "DIR", "the package to make; without it, only requests are made"),
                 OPTION("shape", "NAME", "a known shape: dlrm-26x128, mlperf-dlrm-dcnv2; what follows changes it"),
                 OPTION("tables", "N", "number of tables, of --rows x --dim (8)"),
                 OPTION("rows", "N", "rows of each table (100000)"),
                 OPTION("dim", "N", "dim of each table (16)"),
                 REPEATED("table", "NAME:ROWS:DIM", "one table, instead of --tables"),
                 OPTION("max-rows", "N", "no table has more rows"),
                 OPTION("bottom", "WIDTHS", "dense inputs and bottom MLP: 13-512-256-128"),
                 OPTION("top", "WIDTHS", "top MLP: 479-1024-1024-512-256-1; the first may be left out as 0"),
                 OPTION("interaction", "OP", "dot, cat or dcn_v2 (dot)"),
                 OPTION("cross-layers", "N", "layers of dcn_v2 (3)"),
                 OPTION("cross-rank", "N", "rank of dcn_v2 (512)"),
                 OPTION("context-features", "N", "how many features belong to the context (half)"),
                 OPTION("context-dense", "N", "how many dense inputs belong to the context (half)"),
                 OPTION("pooling-factor", "N", "ids per bag in the requests (1, or the shape's)"),
                 OPTION("row-format", "FORMAT", "of rows: fp32, fp16, bf16, int8, int4, int2 (fp32)"),
                 FLAG("weighted", "context features carry weights"),
                 OPTION("heads", "N", "number of heads (the last width of --top)"),
                 OPTION("seed", "N", "another model of the same shape (1)"),
                 OPTION("name", "NAME", "the model's name (synth)"),
                 OPTION("shard-bytes", "BYTES", "cut tables into files of at most so many bytes (64G)"),
                 OPTION("shard-rows", "N", "cut tables into files of at most so many rows"),
                 OPTION("requests", "N", "how many requests to make"),
                 OPTION("candidates", "N", "candidates per request (100)"),
                 OPTION("requests-output", "FILE", "where the requests go, '-' for standard output")}},
    {.name = NULL},
};

int main(int argc, char **argv)
{
    return cli_main(argc, argv);
}
