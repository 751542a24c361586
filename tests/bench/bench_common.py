"""What the benchmark scripts share: the options that all of them have, and the programs of the build that they measure."""

import argparse
import os
import pathlib
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
