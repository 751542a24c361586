"""What the benchmark scripts share: the options that all of them have, and the programs of the build that they measure."""

import argparse
import json
import os
import pathlib
import subprocess
import sys

SOURCE = pathlib.Path(__file__).resolve().parents[2]


def parser(doc):
    """For a script whose docstring begins with one sentence of what it measures; the script adds what is its own."""
    made = argparse.ArgumentParser(description=doc.split("\n\n")[0])
    made.add_argument("--build", type=pathlib.Path, default=SOURCE / "build", help="the build directory")
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


def synthetic(options, name, shape, num_requests=32, candidates=512):
    """A made-up package and its requests, in BUILD/bench, made once. shape: options of rankpack synth."""
    rankpack, folder = options.build / "model/tools/rankpack", options.build / "bench"
    package, requests = folder / name / "1", folder / f"{name}-{num_requests}x{candidates}.jsonl"
    folder.mkdir(parents=True, exist_ok=True)
    if not (package.exists() and requests.exists()):
        print(f"making {name} in {folder}", file=sys.stderr, flush=True)
        if package.exists():
            (package / "manifest.json").unlink()
            for file in package.iterdir():
                file.unlink()
            package.rmdir()
        quietly(rankpack, "synth", *shape, "--output", package, "--requests", num_requests, "--candidates", candidates, "--requests-output", requests)
    return package, requests


def quantised(options, package, rows, towers):
    """The package with rows and towers in these formats, made once."""
    made = package.parent.with_name(f"{package.parent.name}-{rows}-{towers}") / package.name
    if not made.exists():
        print(f"making {made.parent.name}", file=sys.stderr, flush=True)
        quietly(options.build / "model/tools/rankpack", "quantize", package, "--rows", rows, "--towers", towers, "--output", made)
    return made


def measure(options, program, *arguments):
    """What a C benchmark of the build prints as JSON."""
    run = subprocess.run([str(options.build / "tests/bench" / program), *map(str, arguments), "--json"], stdout=subprocess.PIPE, text=True)
    if run.returncode != 0:
        sys.exit(run.returncode)
    return json.loads(run.stdout)


def print_json(results):
    print(json.dumps(results, indent=2))
