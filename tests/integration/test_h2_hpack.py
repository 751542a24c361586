#!/usr/bin/python3
"""Header compression: the 8 cases of h2spec's list "hpack" (https://github.com/summerwind/h2spec), sent to a running rankd, and those that it lacks."""

from h2_frames import (COMPRESSION_ERROR, HEADER_TABLE_SIZE, REQUEST, Case, CasesTest, ListedCases, acked, answered, block, call, connection_error, data,
                       ended, headers, integer, settings, text)
from rankd_fixture import main

CALL = block(REQUEST)
WRONG = connection_error(COMPRESSION_ERROR)
STATIC_ENTRIES, TABLE_BYTES = 61, 4096

# Of "x-test", then a value, both Huffman-coded by hand (RFC 7541, appendix B): the codes of its letters and what follows them.
NAME = b"\x00\x85\xf2\xb2\x4a\x84\xff"


def after(representation):
    """A call whose headers end with this."""
    return [headers(1, CALL + representation)]


def before(representation):
    return [headers(1, representation + CALL)]


CASES = [
    Case("2.3.3", "indexed field with an index past both tables", after(integer(STATIC_ENTRIES + 9, 7, 0x80)), WRONG),
    Case("2.3.3", "literal field with an index past both tables", after(integer(STATIC_ENTRIES + 9, 6, 0x40) + text("")), WRONG),
    Case("4.2", "dynamic table size update at the end of the header block", after(integer(1, 5, 0x20)), WRONG),
    Case("5.2", "Huffman-coded string with padding longer than 7 bits", after(NAME + b"\x84\x49\x50\x9f\xff"), WRONG),
    Case("5.2", "Huffman-coded string padded with zeros", after(NAME + b"\x83\x49\x50\x90"), WRONG),
    Case("5.2", "Huffman-coded string with the EOS symbol", after(NAME + b"\x87\x49\x51\xff\xff\xff\xfa\x7f"), WRONG),
    Case("6.1", "indexed field with index 0", after(b"\x80"), WRONG),
    Case("6.3", "dynamic table size update above SETTINGS_HEADER_TABLE_SIZE", before(integer(TABLE_BYTES + 1, 5, 0x20)), WRONG),
]

COUNTS = {"2.3.3": 2, "4.2": 1, "5.2": 3, "6.1": 1, "6.3": 1}

ADDED = b"\x40" + text("x-test") + text("conform")  # goes into the table
FIRST_ADDED = integer(STATIC_ENTRIES + 1, 7, 0x80)
EMPTIED = integer(0, 5, 0x20)

BEYOND = [
    Case("2.3.2", "an entry that an earlier call added", [headers(1, CALL + ADDED, end=False), data(1), ended(1), headers(3, CALL + FIRST_ADDED, end=False),
                                                         data(3)], answered(3)),
    Case("2.3.2", "one that is not there yet", [call(1), headers(3, CALL + FIRST_ADDED)], WRONG),
    Case("4.3", "one that a smaller table has evicted", [headers(1, CALL + ADDED), ended(1), headers(3, EMPTIED + CALL + FIRST_ADDED)], WRONG),
    Case("4.4", "an entry larger than the table empties it", [headers(1, CALL + ADDED + b"\x40" + text("x-long") + text("v" * TABLE_BYTES), end=False), data(1),
                                                             ended(1), headers(3, CALL + FIRST_ADDED)], WRONG),
    Case("4.2", "dynamic table size update between two fields", [headers(1, block(REQUEST[:2]) + EMPTIED + block(REQUEST[2:]))], WRONG),
    Case("4.2", "our own smaller table is of the other direction", [settings((HEADER_TABLE_SIZE, 0)), acked(2), headers(1, CALL + ADDED, end=False), data(1),
                                                                  ended(1), headers(3, CALL + FIRST_ADDED, end=False), data(3)], answered(3)),
    Case("5.1", "an integer without end", after(b"\xff" + b"\x80" * 20 + b"\x01"), WRONG),
    Case("5.1", "an integer past 32 bits", after(b"\xff\xff\xff\xff\xff\x7f"), WRONG),
    Case("5.1", "an integer longer than it need be", [headers(1, CALL + b"\x0f\xab\x80\x00" + text("conform"), end=False), data(1)], answered()),
    Case("5.2", "a string past the end of the block", after(b"\x00" + integer(100, 7) + b"x"), WRONG),
    Case("5.2", "a string of 4 GiB", after(b"\x00" + integer(0xffffffff, 7) + b"x"), WRONG),
    Case("5.2", "a block that ends inside a field", after(b"\x40"), WRONG),
    Case("6.2.1", "literal field with an index of all ones", after(b"\x7f\xff\xff\xff\xff\x0f"), WRONG),
    Case("6.3", "dynamic table size update of 4 GiB", before(integer(0xffffffff, 5, 0x20)), WRONG),
]


class TestHpack(ListedCases, CasesTest):
    cases, counts, total = CASES, COUNTS, 8

    def test_cases_beyond_the_list(self):
        self.run_cases(BEYOND)


if __name__ == "__main__":
    main()
