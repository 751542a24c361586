"""What the libraries of the lower rooms call, read from their symbols: they never end the process, write to its standard streams, read
its environment or call a room above. (assert may: it reports a fault of our own.)"""

import re
import subprocess
import sys
import unittest

NM, LIBRARIES = sys.argv[1], dict(zip(("quant", "embeddings", "model"), sys.argv[2:5]))
del sys.argv[1:]

FORBIDDEN = {"exit", "_exit", "_Exit", "quick_exit", "abort", "printf", "__printf_chk", "vprintf", "puts", "putchar", "perror", "psignal",
             "stdout", "stderr", "syslog", "__syslog_chk", "err", "errx", "warn", "warnx", "error",
             "getenv", "secure_getenv", "setenv", "getopt", "getopt_long"}
# The mask that tests use to run older instruction sets is read once, where kernels are chosen.
ALLOWED = {("kernels.c.o", "getenv"), ("kernels.c.o", "secure_getenv")}


def symbols(library):
    """(object, name) of what is undefined, and the set of names defined."""
    listing = subprocess.run([NM, "--format=posix", "-A", library], capture_output=True, text=True, check=True).stdout
    undefined, defined = [], set()
    for line in listing.splitlines():
        match = re.match(r"^.*\[(.+)\]: (\S+) ([A-Za-z])", line)
        if match:
            member, name, kind = match.groups()
            if kind == "U":
                undefined.append((member.split("/")[-1], name))
            elif kind.isupper():
                defined.add(name)
    return undefined, defined


class TestSymbols(unittest.TestCase):
    def test_lower_rooms_never_exit_print_or_read_the_environment(self):
        for room, library in LIBRARIES.items():
            undefined, defined = symbols(library)
            self.assertTrue(defined, f"no symbols in {library}")
            wrong = [f"{member} of {room} uses {name}" for member, name in undefined if name in FORBIDDEN
                     and not any(member.endswith(allowed) and name == what for allowed, what in ALLOWED)]
            self.assertFalse(wrong, "\n" + "\n".join(wrong))

    def test_rooms_call_only_rooms_below(self):
        known = set()
        for room, library in LIBRARIES.items():
            undefined, defined = symbols(library)
            known |= defined
            upward = sorted({f"{member} of {room} calls {name}, which is no function of {room} or below"
                             for member, name in undefined if name.startswith("rk_") and name not in known})
            self.assertFalse(upward, "\n" + "\n".join(upward))

    def test_names_that_leave_a_file_begin_with_rk(self):
        ours = ("rk_", "__asan", "__odr_asan", "__ubsan", "__tsan", "asan.", "__gcov", "__llvm", "__profc", "__start", "__stop")
        for room, library in LIBRARIES.items():
            strangers = sorted(name for name in symbols(library)[1] if not name.startswith(ours))
            self.assertFalse(strangers, f"{room} exports names without rk_: " + " ".join(strangers))


if __name__ == "__main__":
    unittest.main(verbosity=2)
