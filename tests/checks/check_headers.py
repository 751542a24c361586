"""Every header compiles alone: whoever includes it needs nothing before it."""

import concurrent.futures
import os
import pathlib
import re
import subprocess
import sys
import unittest

ROOT, BUILD, COMPILER = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]), sys.argv[3:]
del sys.argv[1:]
ROOMS = ("quant", "proto", "embeddings", "model", "server")
# What pkg-config says about the libraries that headers of ours may include.
LIBRARIES = ("libevent_core", "libnghttp2", "libprotobuf-c", "jansson", "yaml-0.1", "libxxhash", "openssl")


def flags():
    result = subprocess.run(["pkg-config", "--cflags", *LIBRARIES], capture_output=True, text=True, check=False)
    return result.stdout.split() if result.returncode == 0 else []


def compile_alone(header, extra):
    name = header.relative_to(ROOT)
    command = [*COMPILER, "-std=gnu17", "-D_GNU_SOURCE", "-Wall", "-Wextra", "-Werror", "-fsyntax-only", f"-I{ROOT}", f"-I{BUILD}", *extra,
               "-x", "c", "-"]
    result = subprocess.run(command, input=f'#include "{name}"\n#include "{name}"\n', capture_output=True, text=True, check=False)
    return f"{name}: {result.stderr.strip()[:500]}" if result.returncode else None


class TestHeaders(unittest.TestCase):
    def test_every_header_compiles_alone_and_twice(self):
        headers = [path for room in ROOMS for path in sorted((ROOT / room).rglob("*.h"))]
        self.assertGreater(len(headers), 10)
        extra = flags()
        with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
            wrong = [error for error in pool.map(lambda header: compile_alone(header, extra), headers) if error]
        self.assertFalse(wrong, "\n" + "\n".join(wrong))


if __name__ == "__main__":
    unittest.main(verbosity=2)
