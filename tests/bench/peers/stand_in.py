"""Stand-ins for the accelerator libraries that PyPI's PyTorch for Linux is linked with.

Without the libraries of CUDA (2 GB to fetch, 5 GB on disk) the wheel does not even load, though nothing on a processor calls them. For each one that is
needed and not in the wheel, an empty library of its name with the functions that PyTorch refers to is compiled beside PyTorch's own; every
function returns 100, which CUDA calls "no device". The code that computes on the processor is untouched."""

import collections
import re
import subprocess

VENDOR = re.compile(r"lib(cu|nccl|nv)")
FUNCTION = re.compile(r"_*(cu|nccl|nv)\w+$")


def _output(*command):
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def _references(folder):
    """The names of the libraries that are needed and missing, and {symbol version, which is a library's name or nothing: functions}."""
    here = {path.name for path in folder.iterdir()}
    missing, functions = set(), collections.defaultdict(set)
    for library in sorted(folder.glob("*.so*")):
        needed = re.findall(r"\(NEEDED\).*\[(.*)\]", _output("readelf", "--dynamic", "--wide", str(library)))
        missing.update(name for name in needed if VENDOR.match(name) and name not in here)
        for line in _output("readelf", "--dyn-syms", "--wide", str(library)).splitlines():
            fields = line.split()
            if len(fields) >= 8 and fields[6] == "UND":
                name, _, version = fields[7].partition("@")
                if FUNCTION.match(name):
                    functions[version.strip("@")].add(name)
    return missing, functions


def compile_stand_ins(folder):
    """Into `folder`, PyTorch's lib/. Returns the names of the libraries made: none where they are there."""
    missing, functions = _references(folder)
    for library in sorted(missing):
        # Versions are mostly named as the library; functions without one, or with one that no library is named for, go into all of them.
        versions = {version: names for version, names in functions.items() if version == library or version not in missing}
        code = "".join(f"int {name}(void) {{ return 100; }}\n" for names in versions.values() for name in sorted(names))
        script = "".join(f"{version} {{ global: {' '.join(f'{name};' for name in sorted(names))} }};\n" for version, names in versions.items() if version)
        (folder / "stand_in.map").write_text(script)
        subprocess.run(["gcc", "-shared", "-fPIC", "-nostdlib", "-w", "-fno-builtin", f"-Wl,-soname,{library}",
                        f"-Wl,--version-script={folder / 'stand_in.map'}", "-x", "c", "-", "-o", str(folder / library)], input=code, text=True, check=True)
    (folder / "stand_in.map").unlink(missing_ok=True)
    return sorted(missing)
