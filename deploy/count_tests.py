#!/usr/bin/python3
"""Counts individual tests in meson's testlog.json files: Criterion's and unittest's own cases where a program ran many, else one each.
Prints one line: N passed, N failed, N skipped."""

import json
import re
import sys

CRITERION = re.compile(r"Synthesis: Tested: (\d+) \| Passing: (\d+) \| Failing: (\d+) \| Crashing: (\d+)")
UNITTEST = re.compile(r"^Ran (\d+) tests? in [\d.]+s\n\n(?:OK|FAILED|NO TESTS RAN)(?: \((.*)\))?$", re.M)
TAP = re.compile(r"^(not )?ok\b(?:[^#\n]*)(# *(?:SKIP|skip))?", re.M)


def count(test):
    """(passed, failed, skipped) of one entry."""
    output = (test.get("stdout") or "") + "\n" + (test.get("stderr") or "")
    good = test["result"] in ("OK", "EXPECTEDFAIL")
    if test["result"] == "SKIP":
        return 0, 0, 1
    passed = failed = skipped = 0
    for tested, ok, failing, crashing in CRITERION.findall(output):
        passed, failed = passed + int(ok), failed + int(failing) + int(crashing)
        skipped += int(tested) - int(ok) - int(failing) - int(crashing)
    for ran, details in UNITTEST.findall(output):
        numbers = {key: int(value) for key, value in re.findall(r"(failures|errors|skipped|unexpected successes)=(\d+)", details)}
        left_out = numbers.pop("skipped", 0)
        bad = min(sum(numbers.values()), int(ran) - left_out)
        passed, failed, skipped = passed + int(ran) - bad - left_out, failed + bad, skipped + left_out
    if passed + failed + skipped == 0:
        for bad, left_out in TAP.findall(test.get("stdout") or ""):
            passed, failed, skipped = passed + (not bad and not left_out), failed + bool(bad), skipped + bool(left_out)
    if passed + failed + skipped == 0:
        return int(good), int(not good), 0
    if not good and failed == 0:  # all cases passed, yet the program did not: a leak, a crash at exit, a time limit
        failed = 1
    return passed, failed, skipped


def main():
    totals = [0, 0, 0]
    for path in sys.argv[1:]:
        with open(path, encoding="utf-8") as log:
            for line in log:
                totals = [a + b for a, b in zip(totals, count(json.loads(line)))]
    print("{} passed, {} failed, {} skipped".format(*totals))


if __name__ == "__main__":
    main()
