"""What every file of the tree keeps to: one job per file, no notes to self left behind, no names of somebody's own machine."""

import pathlib
import re
import subprocess
import sys
import unittest

ROOT = pathlib.Path(sys.argv.pop(1))

MAX_LINES = 600
MAX_COLUMNS = 160
DATA = {".jsonl", ".safetensors", ".tsv", ".bin"}
# Split, so that this file does not find itself.
MARKS = ["TO" + "DO", "FIX" + "ME", "X" + "XX", "HA" + "CK", "not " + "implemented", "for " + "now"]
HOMES = re.compile(r"(?<![\w.])/(?:home|work|Users|root)/\w+")


def tracked():
    """Files that git tracks or would; without git, what is there but for build folders."""
    listed = subprocess.run(["git", "-C", str(ROOT), "-c", f"safe.directory={ROOT}", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
                            capture_output=True, check=False)
    if listed.returncode == 0:
        names = [name for name in listed.stdout.decode().split("\0") if name]
    else:
        names = [str(path.relative_to(ROOT)) for path in ROOT.rglob("*")]
        names = [name for name in names if not re.match(r"build|\.git/", name)]
    return [ROOT / name for name in sorted(names) if (ROOT / name).is_file()]


def text_of(path):
    """The file's text; None for data and for what is no text (corpora)."""
    if path.suffix in DATA or "corpus" in path.parts or path.name == "LICENSE":
        return None
    try:
        return path.read_bytes().decode()
    except UnicodeDecodeError:
        return None


TEXTS = [(str(path.relative_to(ROOT)), text) for path in tracked() for text in [text_of(path)] if text is not None]


class TestFiles(unittest.TestCase):
    def test_the_tree_was_found(self):
        self.assertGreater(len(TEXTS), 30)

    def test_no_file_holds_two_jobs(self):
        long = [f"{name}: {text.count(chr(10))} lines; split it (at most {MAX_LINES})" for name, text in TEXTS
                if name.endswith((".c", ".cc", ".h", ".py")) and text.count("\n") > MAX_LINES]
        self.assertFalse(long, "\n" + "\n".join(long))

    def test_no_notes_to_self_are_left(self):
        pattern = re.compile("|".join(rf"\b{mark}\b" for mark in MARKS))
        found = [f"{name}:{number}: {line.strip()[:100]}" for name, text in TEXTS
                 for number, line in enumerate(text.splitlines(), 1) if pattern.search(line)]
        self.assertFalse(found, "\n" + "\n".join(found))

    def test_no_paths_of_somebodys_machine(self):
        found = [f"{name}:{number}: {line.strip()[:100]}" for name, text in TEXTS
                 for number, line in enumerate(text.splitlines(), 1) if HOMES.search(line)]
        self.assertFalse(found, "\n" + "\n".join(found))

    def test_no_trailing_blanks_tabs_or_endless_lines(self):
        wrong = [f"{name}:{number}: {line[:60]!r}" for name, text in TEXTS if name.endswith((".c", ".cc", ".h", ".py", ".proto", "meson.build"))
                 for number, line in enumerate(text.split("\n"), 1)
                 if line != line.rstrip() or "\t" in line or len(line) > MAX_COLUMNS]
        self.assertFalse(wrong, "\n" + "\n".join(wrong))

    def test_every_source_file_says_first_what_it_is_for(self):
        silent = [name for name, text in TEXTS if name.endswith((".c", ".cc", ".h")) and not text.startswith(("/*", "//"))]
        self.assertFalse(silent, "\n" + "\n".join(silent))

    def test_packages_are_listed_once_with_a_reason(self):
        rows = [line.split(None, 2) for line in (ROOT / "deploy/packages").read_text().splitlines() if line and line[0] != "#"]
        names = [row[0] for row in rows]
        self.assertEqual(sorted(set(names)), sorted(names))
        for row in rows:
            self.assertEqual(3, len(row), f"{row}: package, group, reason")
            self.assertIn(row[1], ("build", "runtime", "test", "ci", "bench"))


if __name__ == "__main__":
    unittest.main(verbosity=2)
