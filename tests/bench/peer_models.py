"""What bench_peers.py and bench_served.py share: the models, the inputs, and how a peer's process is started.

Of each model there are two packages with the same weights: `split`, with a context, and `flat`, to which every feature comes with the candidate."""

import json
import pathlib
import subprocess
import sys
import types

import bench_common

SIZES = (1, 32, 128, 512)
REQUEST = 270
CANDIDATES = 16384  # in all batches of a size together, but at most MAX_BATCHES of them
MAX_BATCHES = 512


def say(text):
    print(text, file=sys.stderr, flush=True)


# ---- options ----

def parser(doc):
    made = bench_common.parser(doc)
    made.add_argument("--venv", type=pathlib.Path, help="where peers/install put the peers (BUILD/peers-venv)")
    made.add_argument("--rows", type=int, default=100000, help="of each of the 26 tables (100000 rows are 49 MiB a table)")
    made.add_argument("--models", default=",".join(MODELS))
    return made


def parse(made):
    options = made.parse_args()
    options.venv = options.venv or options.build / "peers-venv"
    if not (options.venv / "bin/python").exists():
        raise SystemExit(f"no peers in {options.venv}: run tests/bench/peers/install {options.venv}")
    unknown = set(options.models.split(",")) - set(MODELS)
    if unknown:
        raise SystemExit(f"no such model: {', '.join(sorted(unknown))}; there are {', '.join(MODELS)}")
    return options


# ---- a peer's process ----

def program(options, name):
    """The words that start one of the programs in peers/."""
    return [options.venv / "bin/python", pathlib.Path(__file__).parent / "peers" / name]


def environment(options, threads):
    """As PyTorch's own tuning guide says: jemalloc that keeps its memory, and huge pages for tables."""
    made = {"OMP_NUM_THREADS": str(threads), "THP_MEM_ALLOC_ENABLE": "1", "TORCHINDUCTOR_CACHE_DIR": str(options.build / "peers-cache"),
            "TORCHINDUCTOR_COMPILE_THREADS": "1", "PYTHONWARNINGS": "ignore", "TORCH_LOGS": "-all", "TORCH_CPP_LOG_LEVEL": "ERROR"}
    jemalloc = next(iter(pathlib.Path("/usr/lib").glob("*-linux-gnu/libjemalloc.so.2")), None)
    if jemalloc is not None:
        made.update(LD_PRELOAD=str(jemalloc), MALLOC_CONF="oversize_threshold:1,metadata_thp:auto,dirty_decay_ms:-1,muzzy_decay_ms:-1")
    return made


# ---- models ----

def make(words, output):
    """Runs a command that makes `output`, unless that is there."""
    if not output.exists():
        say(f"making {output}")
        output.parent.mkdir(parents=True, exist_ok=True)
        subprocess.run([str(word) for word in words], check=True, stdout=subprocess.DEVNULL)
    return output


def everything_per_candidate(config):
    """The same model, to which every feature comes with the candidate."""
    config["dense"] = {"context": [], "candidate": [f"{side}_{name}" for side, names in config["dense"].items() for name in names]}
    for feature in config["features"]:
        feature["side"] = "candidate"
    return config


def synthetic(fixture, folder, rows):
    """The package as it is, the one without a context, and requests of the first: bigger than any batch."""
    requests = folder / "requests.jsonl"
    shape = [fixture.RANKPACK, "synth", "--shape", "dlrm-26x128", "--max-rows", rows]
    split = make([*shape, "--output", folder / "split", "--requests", 32, "--candidates", 512, "--requests-output", requests], folder / "split")
    return split, make([*shape, "--context-features", 0, "--context-dense", 0, "--output", folder / "flat"], folder / "flat"), requests


def demo(fixture, folder, _rows):
    folder.mkdir(parents=True, exist_ok=True)
    config = folder / "config.json"
    config.write_text(json.dumps(everything_per_candidate(json.loads((fixture.DEMO / "config.json").read_text(encoding="utf-8")))))
    command = [fixture.RANKPACK, "import", "--weights", fixture.DEMO / "model.safetensors"]
    return (make([*command, "--config", fixture.DEMO / "config.json", "--output", folder / "split"], folder / "split"),
            make([*command, "--config", config, "--output", folder / "flat"], folder / "flat"), fixture.DEMO / "requests.jsonl")


MODELS = {"dlrm-26x128": synthetic, "steam": demo}


# ---- batches ----

def joined(context, candidate):
    """One row with the user in it."""
    return {key: (context.get(key, []) + candidate.get(key, []) if key == "dense" else {**context.get(key, {}), **candidate.get(key, {})})
            for key in ("dense", "ids", "weights")}


def write_batches(requests, folder):
    """A file of batches for each size, and one of requests; their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    requests = [json.loads(line) for line in open(requests, encoding="utf-8")]
    candidates = [candidate for request in requests for candidate in request["candidates"]]
    contexts = [request["context"] for request in requests]
    # Row i has candidate i and a user of another request than that of row i + 1.
    rows = [joined(contexts[i % len(contexts)], candidate) for i, candidate in enumerate(candidates)]
    files = {}
    for size in (*SIZES, REQUEST):
        files[size] = folder / f"{size}.jsonl"
        with open(files[size], "w", encoding="utf-8") as file:
            for batch in range(max(1, min(MAX_BATCHES, CANDIDATES // size))):
                source, context = (candidates, contexts[batch % len(contexts)]) if size == REQUEST else (rows, {})
                of_batch = [source[(batch * size + i) % len(source)] for i in range(size)]
                file.write(json.dumps({"context": context, "candidates": of_batch}) + "\n")
    return files


def made(options, fixture, name):
    """The packages (split, flat, and both in int8) and {size: file of batches} of a model, made unless they are there."""
    folder = options.build / "bench" / (f"peers-{name}-{options.rows}" if MODELS[name] is synthetic else f"peers-{name}")
    split, flat, requests = MODELS[name](fixture, folder, options.rows)
    quantized = {f"{package.name}_int8": make([fixture.RANKPACK, "quantize", package, "--rows", "int8", "--towers", "int8", "--output",
                                               folder / f"{package.name}-int8"], folder / f"{package.name}-int8") for package in (split, flat)}
    return types.SimpleNamespace(split=split, flat=flat, folder=folder, files=write_batches(requests, folder / "batches"), **quantized)
