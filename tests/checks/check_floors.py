"""The floors of the house, from the ground: quant, embeddings, model, server; proto lies beside quant and only server uses it. A file
includes only from its own room and from rooms below, by path from the root."""

import pathlib
import re
import sys
import unittest

ROOT = pathlib.Path(sys.argv.pop(1))

MAY_INCLUDE = {
    "quant": {"quant"},
    "proto": {"proto", "quant/base"},
    "embeddings": {"embeddings", "quant"},
    "model": {"model", "embeddings", "quant"},
    "server": {"server", "model", "embeddings", "quant", "proto"},
}
PROGRAM_FOLDERS = ("model/tools", "server/tools")  # programs: nothing includes from them but themselves
INCLUDE = re.compile(r'^\s*#\s*include\s+"([^"]+)"', re.M)
ANGLE = re.compile(r"^\s*#\s*include\s+<((?:quant|embeddings|model|server|proto)/[^>]+)>", re.M)


def sources(room):
    return sorted(path for path in (ROOT / room).rglob("*.[ch]"))


def relative(path):
    return str(path.relative_to(ROOT))


def room_allows(room, target):
    return any(target.startswith(prefix + "/") for prefix in MAY_INCLUDE[room])


class TestFloors(unittest.TestCase):
    def test_rooms_include_only_rooms_below(self):
        wrong = [f"{relative(path)} includes {target}; {room} may include from {', '.join(sorted(MAY_INCLUDE[room]))}"
                 for room in MAY_INCLUDE for path in sources(room)
                 for target in INCLUDE.findall(path.read_text()) if not room_allows(room, target)]
        self.assertFalse(wrong, "\n" + "\n".join(wrong))

    def test_includes_are_by_path_from_the_root(self):
        wrong = [f"{relative(path)} includes {target}, which is no file in the tree"
                 for room in [*MAY_INCLUDE, "tests"] if (ROOT / room).is_dir() for path in sources(room)
                 for target in INCLUDE.findall(path.read_text())
                 if not (ROOT / target.replace(".pb-c.h", ".proto")).is_file()
                 and not (room == "tests" and (path.parent / target).is_file())]
        wrong += [f"{relative(path)} includes <{target}>: our own headers go in quotes"
                  for room in MAY_INCLUDE for path in sources(room) for target in ANGLE.findall(path.read_text())]
        self.assertFalse(wrong, "\n" + "\n".join(wrong))

    def test_nobody_includes_from_the_folders_of_programs(self):
        wrong = [f"{relative(path)} includes {target}"
                 for room in MAY_INCLUDE for path in sources(room) for target in INCLUDE.findall(path.read_text())
                 for folder in PROGRAM_FOLDERS if target.startswith(folder + "/") and not relative(path).startswith(folder + "/")]
        self.assertFalse(wrong, "\n" + "\n".join(wrong))

    def test_headers_have_guards_that_name_their_path(self):
        wrong = []
        for room in MAY_INCLUDE:
            for path in sources(room):
                if path.suffix == ".h":
                    guard = "RANKD_" + re.sub(r"\W", "_", relative(path)).upper()
                    if f"#ifndef {guard}\n#define {guard}\n" not in path.read_text():
                        wrong.append(f"{relative(path)} lacks the guard {guard}")
        self.assertFalse(wrong, "\n" + "\n".join(wrong))


if __name__ == "__main__":
    unittest.main(verbosity=2)
