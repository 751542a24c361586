"""A roofline plot as SVG: operations per second against operations per byte, under what memory and multipliers could give.

Each model's stages are points: lookups (a multiply-add for each element, the rows' bytes), interaction and towers (the bytes of weights,
read once per batch, and of the vectors that dot multiplies), and the whole. The slanted line is the rate at which rows can be gathered,
the level ones are the peaks of the number formats. Weights and vectors come from caches, so those stages may be above the slanted line."""

import html
import math

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 900, 560, 80, 230, 40, 60
COLOURS = ["#4269d0", "#efb118", "#ff725c", "#6cc5b0", "#3ca951", "#ff8ab7", "#a463f2", "#97bbf5", "#9c6b4e"]
MARKS = {"lookup": "circle", "interaction": "square", "towers": "diamond", "whole": "cross"}


def points(found):
    """(stage, operations per byte, operations per second) of the largest batch."""
    row = max(found["results"], key=lambda result: result["batch"])
    stages, result = row["stages"], []
    whole = {"us": row["us_per_batch"], **{key: sum(stage[key] for stage in stages.values()) for key in ("macs", "bytes")}}
    for name, stage in {**stages, "whole": whole}.items():
        if stage["macs"] > 0 and stage["bytes"] > 0 and stage["us"] > 0:
            result.append((name, 2 * stage["macs"] / stage["bytes"], 2e6 * stage["macs"] / stage["us"]))
    gather = 1e6 * stages["lookup"]["bytes"] / row["gather_us"] if row["gather_us"] > 0 else 0
    return result, gather


def mark(shape, x, y, colour):
    if shape == "circle":
        return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="5" fill="{colour}"/>'
    if shape == "square":
        return f'<rect x="{x - 5:.1f}" y="{y - 5:.1f}" width="10" height="10" fill="{colour}"/>'
    if shape == "diamond":
        return f'<path d="M{x:.1f} {y - 7:.1f} l6 7 l-6 7 l-6 -7 z" fill="{colour}"/>'
    return f'<path d="M{x - 5:.1f} {y - 5:.1f} l10 10 m0 -10 l-10 10" stroke="{colour}" stroke-width="3"/>'


def draw(path, results):
    found = {name: points(result) for name, result in results.items()}
    peaks = {name: 2e6 * max(result["macs_per_us"][name] for result in results.values()) for name in ("fp32", "bf16", "int8")}
    gather = max(rate for _, rate in found.values())
    every = [point for stages, _ in found.values() for point in stages]
    x_range = [math.floor(math.log10(min(p[1] for p in every))), math.ceil(math.log10(max(p[1] for p in every)))]
    y_range = [math.floor(math.log10(min(p[2] for p in every))), math.ceil(math.log10(max(peaks.values())))]

    def x_of(value):
        return LEFT + (math.log10(value) - x_range[0]) / (x_range[1] - x_range[0]) * (WIDTH - LEFT - RIGHT)

    def y_of(value):
        return HEIGHT - BOTTOM - (math.log10(value) - y_range[0]) / (y_range[1] - y_range[0]) * (HEIGHT - TOP - BOTTOM)

    out = [f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{HEIGHT}" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" font-size="12">',
           f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
           f'<text x="{LEFT}" y="24" font-size="15">rankd on one core: operations per second against operations per byte, largest batch</text>']
    for power in range(x_range[0], x_range[1] + 1):
        x = x_of(10 ** power)
        out.append(f'<path d="M{x:.1f} {TOP} V{HEIGHT - BOTTOM}" stroke="#ddd"/>'
                   f'<text x="{x:.1f}" y="{HEIGHT - BOTTOM + 18}" text-anchor="middle">{10.0 ** power:g}</text>')
    for power in range(y_range[0], y_range[1] + 1):
        y = y_of(10 ** power)
        out.append(f'<path d="M{LEFT} {y:.1f} H{WIDTH - RIGHT}" stroke="#ddd"/>'
                   f'<text x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{10.0 ** (power - 9):g}</text>')
    out.append(f'<text x="{(LEFT + WIDTH - RIGHT) / 2}" y="{HEIGHT - 16}" text-anchor="middle">operations per byte read</text>')
    out.append(f'<text x="20" y="{HEIGHT / 2}" transform="rotate(-90 20 {HEIGHT / 2})" text-anchor="middle">billion operations per second</text>')
    low_x, high_x = 10 ** x_range[0], 10 ** x_range[1]
    for name, peak in peaks.items():
        if peak <= 0:
            continue
        knee = max(low_x, min(high_x, peak / gather))
        out.append(f'<path d="M{x_of(knee):.1f} {y_of(peak):.1f} H{WIDTH - RIGHT}" stroke="black" fill="none"/>'
                   f'<text x="{WIDTH - RIGHT + 6}" y="{y_of(peak) + 4:.1f}">{name} peak</text>')
    start, end = max(low_x, 10 ** y_range[0] / gather), min(high_x, max(peaks.values()) / gather)
    out.append(f'<path d="M{x_of(start):.1f} {y_of(start * gather):.1f} L{x_of(end):.1f} {y_of(end * gather):.1f}" stroke="black" fill="none"/>'
               f'<text x="{x_of(start) + 6:.1f}" y="{y_of(start * gather) - 8:.1f}">rows gathered, {gather / 1e9:.1f} GB/s</text>')
    for number, (name, (stages, _)) in enumerate(found.items()):
        colour = COLOURS[number % len(COLOURS)]
        for stage, intensity, rate in stages:
            out.append(f'<g><title>{html.escape(name)}, {stage}: {rate / 1e9:.1f} Gop/s, {intensity:.3g} op/byte</title>'
                       f'{mark(MARKS[stage], x_of(intensity), y_of(rate), colour)}</g>')
        y = HEIGHT - BOTTOM - 20 * (len(found) - number)
        out.append(f'<rect x="{WIDTH - RIGHT + 12}" y="{y - 10}" width="10" height="10" fill="{colour}"/>'
                   f'<text x="{WIDTH - RIGHT + 28}" y="{y}">{html.escape(name)}</text>')
    for number, stage in enumerate(MARKS):
        y = HEIGHT - BOTTOM - 20 * len(found) - 112 + 22 * number
        out.append(f'{mark(MARKS[stage], WIDTH - RIGHT + 17, y - 4, "#555")}<text x="{WIDTH - RIGHT + 28}" y="{y}">{stage}</text>')
    out.append("</svg>")
    with open(path, "w", encoding="utf-8") as file:
        file.write("\n".join(out) + "\n")
