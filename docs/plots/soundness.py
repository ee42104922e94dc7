#!/usr/bin/env python3
"""Draws docs/plots/soundness_detection.svg and soundness_gain.svg and prints the tables of docs/soundness.md. Needs nothing but Python."""

import math
import os

HERE = os.path.dirname(os.path.abspath(__file__))
STYLE = (
    '<style>text{font:13px sans-serif;fill:#333}.t{font-size:15px;font-weight:600}.s{font-size:11px;fill:#666}'
    "line.a{stroke:#999}line.g{stroke:#ddd}@media(prefers-color-scheme:dark){text{fill:#ddd}.s{fill:#aaa}line.g{stroke:#444}"
    "rect.b{fill:#1e1e1e}}</style>"
)
COLOURS = ("#c33", "#e90", "#2b7", "#47c", "#b4b")
RATES = (0.01, 0.03, 0.1, 0.3)
NODES = (1, 3, 10, 30, 100, 1000)


def missed(rate, nodes):
    """The chance that no honest node draws a false share of a trusted key."""
    return (1 - rate) ** nodes


def trust(rate):
    """Audited shares that a key has at stake before one of its shares goes unaudited."""
    return math.ceil(round(1 / rate, 9))


def gain(rate, nodes, lies):
    """What so many false shares bring in expectation, in shares: all are kept when none is drawn, all is lost when one is."""
    kept = missed(rate, nodes) ** lies
    return lies * kept - trust(rate) * (1 - kept)


def svg(name, width, height, body):
    with open(os.path.join(HERE, name), "w") as file:
        file.write(f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}">{STYLE}')
        file.write(f'<rect class="b" width="{width}" height="{height}" fill="#fff"/>{body}</svg>\n')


def plot(name, title, xs, xlabel, xtick, ylabel, yticks, ytext, curves, place_x):
    left, top, width, height = 70, 40, 560, 280
    low, high = yticks[0], yticks[-1]

    def x(v):
        return left + place_x(v) * width

    def y(v):
        return top + height - (min(max(v, low), high) - low) / (high - low) * height

    out = [f'<text class="t" x="{left}" y="22">{title}</text>']
    for v in xtick:
        out.append(f'<line class="g" x1="{x(v)}" y1="{top}" x2="{x(v)}" y2="{top + height}"/>')
        out.append(f'<text class="s" x="{x(v)}" y="{top + height + 16}" text-anchor="middle">{v:,}</text>')
    for v in yticks:
        out.append(f'<line class="g" x1="{left}" y1="{y(v)}" x2="{left + width}" y2="{y(v)}"/>')
        out.append(f'<text class="s" x="{left - 6}" y="{y(v) + 4}" text-anchor="end">{ytext(v)}</text>')
    out.append(f'<text class="s" x="{left + width / 2}" y="{top + height + 34}" text-anchor="middle">{xlabel}</text>')
    out.append(f'<text class="s" x="{left - 50}" y="{top - 8}">{ylabel}</text>')
    for (label, curve), colour in zip(curves, COLOURS):
        points = " ".join(f"{x(v):.1f},{y(curve(v)):.1f}" for v in xs)
        out.append(f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="2"/>')
    for i, ((label, _), colour) in enumerate(zip(curves, COLOURS)):
        out.append(f'<text class="s" x="{left + width + 8}" y="{top + 14 + 18 * i}" style="fill:{colour}">{label}</text>')
    svg(name, left + width + 130, top + height + 46, "".join(out))


def main():
    logs = [10 ** (i / 20) for i in range(61)]
    plot(
        "soundness_detection.svg",
        "Chance that one false share of a trusted key is found",
        logs, "honest nodes that get it", (1, 3, 10, 30, 100, 300, 1000),
        "found", (0, 0.2, 0.4, 0.6, 0.8, 1.0), lambda v: f"{v:.1f}",
        [(f"audit rate {rate:g}", lambda n, rate=rate: 1 - missed(rate, n)) for rate in RATES],
        lambda v: math.log10(v) / 3,
    )
    plot(
        "soundness_gain.svg",
        "What k false shares bring, of a key with no more at stake than trust takes",
        range(1, 41), "false shares before it stops, k", (1, 10, 20, 30, 40),
        "shares", (-40, -30, -20, -10, 0), lambda v: f"{v}",
        [(f"rate {rate:g}, {nodes} node{'s' * (nodes > 1)}", lambda k, rate=rate, nodes=nodes: gain(rate, nodes, k))
         for rate, nodes in ((0.1, 1), (0.1, 3), (0.1, 10), (0.03, 1), (0.03, 10))],
        lambda v: (v - 1) / 39,
    )
    print("| audit rate | trust takes |" + "".join(f" {n:,} node{'s' * (n > 1)} |" for n in NODES))
    print("|---|---|" + "---|" * len(NODES))
    for rate in RATES:
        row = "".join(f" {1 - missed(rate, n):.3f} ({gain(rate, n, 1):+.1f}) |" for n in NODES)
        print(f"| {rate:g} | {trust(rate)} shares |{row}")
    best = max(gain(rate, nodes, k) for rate in (i / 1000 for i in range(1, 1000)) for nodes in (1, 2, 3, 10) for k in range(1, 200))
    print(f"the best of all rates from 0.001 to 0.999, 1 to 10 nodes and 1 to 199 lies: {best:+.5f} shares")


if __name__ == "__main__":
    main()
