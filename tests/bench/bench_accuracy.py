#!/usr/bin/python3
"""What number formats cost in accuracy on the steam model: size, AUC loss, normalised entropy and logit errors of each.

    bench_accuracy.py [--build DIR] [--plot FILE.svg] [--json]

Every format of rows with fp32 towers, every format of towers with fp32 rows, combinations, and plans: rankpack makes the packages, rankpack eval
measures them on all requests, and +- is the standard error of a loss on so few of them. Targets stand beside what they are for. The last table
makes the plan of ten times smaller from one half of the requests and shows what it costs on the other half, which the plan has not seen:
pruning by a sample forgets rows that other requests need, so a sample must be as large as the traffic it stands for."""

import json
import pathlib
import subprocess
import sys
import tempfile

import bench_common

ROWS = ["fp16", "bf16", "int8", "int4", "int2", "fp8_e4m3", "fp8_e5m2", "mxfp8_e4m3", "mxfp8_e5m2", "mxfp6_e2m3", "mxfp6_e3m2", "mxfp4_e2m1", "mxint8"]
TOWERS = ["bf16", "int8"]
TARGETS = {"rows int8, towers int8": 0.0002, "rows int4": 0.001, "plan 10x smaller": 0.002}  # AUC loss of any head


def arguments():
    parser = bench_common.parser(__doc__)
    parser.add_argument("--plot", type=pathlib.Path, help="draw size against accuracy into this SVG file")
    return parser.parse_args()


class Maker:
    """Packages in a folder, and figures of them."""

    def __init__(self, fixture, folder):
        self.program, self.folder, self.demo = fixture.RANKPACK, folder, fixture.DEMO
        self.base = folder / "fp32/1"
        self.rankpack("import", "--config", self.demo / "config.json", "--weights", self.demo / "model.safetensors", "--output", self.base)
        self.packages = {"fp32": self.base}

    def rankpack(self, *words):
        result = subprocess.run([str(word) for word in (self.program, *words)], capture_output=True, text=True)
        if result.returncode != 0:
            sys.exit(f"rankpack {words[0]}: {result.stderr}")
        return result.stdout

    def quantize(self, name, *options):
        print(f"making {name}", file=sys.stderr, flush=True)
        self.packages[name] = self.folder / name.replace(" ", "-").replace(",", "") / "1"
        self.rankpack("quantize", self.base, *options, "--output", self.packages[name])

    def tenth(self):
        return json.loads(self.rankpack("inspect", self.base, "--json"))["bytes"] // 10

    def plan(self, name, requests, expected, *options):
        plan = self.folder / "plan.json"
        figures = self.rankpack("plan", self.base, "--requests", requests, "--expected", expected, *options, "--output", plan, "--json")
        self.quantize(name, "--plan", plan)
        return json.loads(figures)

    def evaluate(self, requests, expected, names, plot=None):
        more = ["--plot", plot] if plot else []
        text = self.rankpack("eval", *(self.packages[name] for name in names), "--requests", requests, "--expected", expected, *more, "--json")
        return {name: model for name, model in zip(names, json.loads(text)["models"])}


def halves(demo, folder):
    """Odd and even requests, each with their expected scores."""
    paths = []
    for half in range(2):
        for name in ("requests.jsonl", "expected.jsonl"):
            lines = (demo / name).read_text(encoding="utf-8").splitlines()[half::2]
            paths.append(folder / f"half-{half}-{name}")
            paths[-1].write_text("\n".join(lines) + "\n", encoding="utf-8")
    return paths[:2], paths[2:]


def print_table(models):
    heads = [head["name"] for head in next(iter(models.values()))["heads"]]
    print(f"{'':24} {'bytes':>9} {'smaller':>8}" + "".join(f"  {name + ' AUC loss':>22} {'p99.9 error':>11} {'top 10':>7}" for name in heads) + "  target")
    for name, model in models.items():
        line = f"{name:24} {model['bytes']:>9} {model['ratio']:>7.2f}x"
        for head in model["heads"]:
            line += f"  {head['auc_loss']:>+11.5f} +-{head['auc_loss_error']:.5f} {head['p999_error']:>13.2g} {100 * head['top_10_overlap']:>6.1f}%"
        target = TARGETS.get(name)
        if target is not None:
            worst = max(head["auc_loss"] for head in model["heads"])
            line += f"  at most {target}: {'met' if worst <= target and (name != 'plan 10x smaller' or model['ratio'] >= 10) else 'MISSED'}"
        print(line)


def main():
    options = arguments()
    with tempfile.TemporaryDirectory(prefix="bench-accuracy-") as folder:
        maker = Maker(bench_common.fixture(options.build), pathlib.Path(folder))
        whole = maker.demo / "requests.jsonl", maker.demo / "expected.jsonl"
        for rows in ROWS:
            maker.quantize(f"rows {rows}", "--rows", rows)
        for towers in TOWERS:
            maker.quantize(f"towers {towers}", "--towers", towers)
            for rows in ("int8", "int4"):
                maker.quantize(f"rows {rows}, towers {towers}", "--rows", rows, "--towers", towers)
        maker.plan("plan loss 0.001", *whole, "--max-auc-loss", "0.001", "--towers", "bf16")
        maker.plan("plan 10x smaller", *whole, "--max-bytes", maker.tenth(), "--prune", "--towers", "int8")
        models = maker.evaluate(*whole, list(maker.packages), options.plot)
        fit, holdout = halves(maker.demo, maker.folder)
        maker.plan("plan 10x from half", *fit, "--max-bytes", maker.tenth(), "--prune", "--towers", "int8")
        names = ["fp32", "plan 10x from half"]
        seen, unseen = maker.evaluate(*fit, names), maker.evaluate(*holdout, names)
        if options.json:
            print(json.dumps({"models": models, "targets": TARGETS, "half_seen": seen[names[1]], "half_unseen": unseen[names[1]]}, indent=2))
            return
        print_table(models)
        print("\nten times smaller, planned on one half of the requests:")
        print_table({"on that half": seen[names[1]], "on the other half": unseen[names[1]]})


if __name__ == "__main__":
    main()
