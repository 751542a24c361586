#!/usr/bin/python3
"""Makes the tables of proto/descriptors.h from a google.protobuf.FileDescriptorSet, as a protobuf compiler writes it.

    embed_descriptors.py SET OUTPUT.c

Reads the set with the few lines below instead of a protobuf library, so that building needs none for Python. Field numbers:
https://github.com/protocolbuffers/protobuf/blob/main/src/google/protobuf/descriptor.proto"""

import pathlib
import sys

# What defines symbols, by message: field number -> the message it holds (None: its name is a symbol, and nothing below it).
SCOPES = {
    "file": {4: "message", 5: "enum", 6: "service", 7: None},
    "message": {2: None, 3: "message", 4: "enum", 6: None, 8: None},  # fields, messages, enums, extensions, oneofs
    "service": {2: None},  # methods
}
ENUM_VALUE = 2


def varint(data, at):
    value = shift = 0
    while True:
        byte = data[at]
        at, value, shift = at + 1, value | (byte & 0x7F) << shift, shift + 7
        if byte < 0x80:
            return value, at


def fields(data):
    """Pairs of field number and content; content is bytes for what has a length, else None."""
    at = 0
    while at < len(data):
        tag, at = varint(data, at)
        if tag & 7 == 2:
            length, at = varint(data, at)
            yield tag >> 3, data[at:at + length]
            at += length
        elif tag & 7 == 0:
            _, at = varint(data, at)
        else:
            at += {1: 8, 5: 4}[tag & 7]


def text(data, number):
    return next((content.decode() for field, content in fields(data) if field == number), "")


def symbols(kind, data, scope):
    """Full names of all that is defined in a message of this kind whose own full name is `scope`."""
    for number, content in fields(data):
        if kind == "enum" and number == ENUM_VALUE:
            yield ".".join(filter(None, [scope.rpartition(".")[0], text(content, 1)]))  # beside their enum, as in C++
        elif number in SCOPES.get(kind, {}):
            name = ".".join(filter(None, [scope, text(content, 1)]))
            yield name
            if SCOPES[kind][number]:
                yield from symbols(SCOPES[kind][number], content, name)


def closure(name, files):
    """The file and all that it imports, each once."""
    found = [name]
    for each in found:
        found += [content.decode() for number, content in fields(files[each]) if number == 3 and content.decode() not in found]
    return found


def main():
    source, output = map(pathlib.Path, sys.argv[1:])
    files = {text(content, 1): content for number, content in fields(source.read_bytes()) if number == 1}
    index = {name: i for i, name in enumerate(files)}
    lines = ["/* Made by embed_descriptors.py. */", '#include "proto/descriptors.h"', ""]
    for name, data in files.items():
        lines.append(f"static const uint8_t bytes_{index[name]}[] = {{")
        lines += ["    " + ", ".join(map(str, data[i:i + 24])) + "," for i in range(0, len(data), 24)]
        lines.append("};")
        lines.append(f"static const uint16_t files_{index[name]}[] = {{{', '.join(str(index[each]) for each in closure(name, files))}}};")
    lines.append("const struct rk_descriptor_file rk_descriptor_files[] = {")
    lines += [f'    {{"{name}", bytes_{i}, sizeof bytes_{i}, files_{i}, sizeof files_{i} / sizeof *files_{i}}},' for name, i in index.items()]
    lines += ["};", f"const size_t rk_num_descriptor_files = {len(files)};", ""]
    found = sorted((symbol.encode(), index[name]) for name, data in files.items() for symbol in symbols("file", data, text(data, 2)))
    lines.append("const struct rk_descriptor_symbol rk_descriptor_symbols[] = {")
    lines += [f'    {{"{symbol.decode()}", {file}}},' for symbol, file in found]
    lines += ["};", f"const size_t rk_num_descriptor_symbols = {len(found)};", ""]
    output.write_text("\n".join(lines))


if __name__ == "__main__":
    main()
