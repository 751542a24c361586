"""What the benchmark scripts share: the options that all of them have, and the programs of the build that they measure."""

import argparse
import json
import os
import pathlib
import subprocess
import sys
import zlib

SOURCE = pathlib.Path(__file__).resolve().parents[2]


def parser(doc, makes_models=False):
    """For a script whose docstring begins with one sentence of what it measures; the script adds what is its own."""
    made = argparse.ArgumentParser(description=doc.split("\n\n")[0])
    made.add_argument("--build", type=pathlib.Path, default=SOURCE / "build", help="the build directory")
    if makes_models:
        made.add_argument("--made", type=pathlib.Path, help="where made-up packages and requests are, and stay for the next time (BUILD/bench)")
    made.add_argument("--json", action="store_true", help="print JSON")
    return made


def fixture(build):
    """The integration tests' fixture, set to this build: RankdServer, repository_of, where the programs are."""
    os.environ["RANKD_BUILD"] = str(build)
    sys.path.insert(0, str(SOURCE / "tests/integration"))
    import rankd_fixture
    return rankd_fixture


def quietly(*command):
    """Runs a command whose output matters only when it fails."""
    run = subprocess.run([str(part) for part in command], capture_output=True, text=True)
    if run.returncode != 0:
        sys.exit(f"{pathlib.Path(str(command[0])).name} failed: {run.stderr.strip()}")


# ---- made-up models ----

def made_folder(options):
    folder = options.made or options.build / "bench"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def rankpack(options, *command):
    quietly(options.build / "model/tools/rankpack", *command)


def is_missing(path):
    """Whether something has to be made yet; says so."""
    if not path.exists():
        print(f"making {path}", file=sys.stderr, flush=True)
    return not path.exists()


def named(name, shape):
    """A changed shape is another model."""
    return f"{name}-{zlib.crc32(' '.join(map(str, shape)).encode()):08x}"


def synthetic(options, name, shape):
    """A made-up package. shape: options of rankpack synth."""
    package = made_folder(options) / named(name, shape) / "1"
    if is_missing(package):
        rankpack(options, "synth", *shape, "--output", package)
    return package


def synthetic_requests(options, name, shape, num_requests=32, candidates=512):
    """Requests that fit a package of this shape."""
    requests = made_folder(options) / f"{named(name, shape)}-{num_requests}x{candidates}.jsonl"
    if is_missing(requests):
        half = requests.with_suffix(".half")
        rankpack(options, "synth", *shape, "--requests", num_requests, "--candidates", candidates, "--requests-output", half)
        half.rename(requests)
    return requests


def quantised(options, package, rows, towers, sample=None):
    """The package with rows and towers in these formats; with a sample of requests, int8 layers have fixed input ranges."""
    made = package.parent.with_name(f"{package.parent.name}-{rows}-{towers}{'-calibrated' if sample else ''}") / package.name
    if is_missing(made):
        rankpack(options, "quantize", package, "--rows", rows, "--towers", towers, "--output", made, *(["--calibrate", sample] if sample else []))
    return made


def measure(options, program, *arguments):
    """What a C benchmark of the build prints as JSON."""
    run = subprocess.run([str(options.build / "tests/bench" / program), *map(str, arguments), "--json"], stdout=subprocess.PIPE, text=True)
    if run.returncode != 0:
        sys.exit(run.returncode)
    return json.loads(run.stdout)


def print_json(results):
    print(json.dumps(results, indent=2))
