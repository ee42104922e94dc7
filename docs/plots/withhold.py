#!/usr/bin/env python3
"""Draws docs/plots/reliability_withhold.svg from lines of `tops-range --json --adversary withhold`, a file for each share of the hash rate:

    python3 docs/plots/withhold.py 0.10=a.jsonl 0.20=b.jsonl ...

Needs nothing but Python."""

import json
import sys

from soundness import plot


def main():
    points = []
    for argument in sys.argv[1:]:
        rate, path = argument.split("=", 1)
        with open(path) as file:
            runs = [run for run in map(json.loads, file) if "seed" in run]
        gains = [100 * run["gain"] for run in runs]
        off = sum(run["off_main"] for run in runs)
        heads = sum(run["heads"] for run in runs) + off
        points.append((float(rate), sum(gains) / len(gains), min(gains), max(gains), off / heads))
        print(f"| {float(rate):.2f} | {len(runs)} | {points[-1][1]:+.1f} % | {points[-1][2]:+.1f} % … {points[-1][3]:+.1f} % | {100 * points[-1][4]:.0f} % |")
    if len(points) < 2:
        sys.exit("give at least two files as RATE=FILE")

    def between(at):
        def curve(rate):
            for (x0, *a), (x1, *b) in zip(points, points[1:]):
                if x0 <= rate <= x1:
                    return a[at] + (b[at] - a[at]) * (rate - x0) / (x1 - x0)
            return points[-1][1 + at]
        return curve

    plot(
        "reliability_withhold.svg", "What withholding heads brings, against honest mining",
        [point[0] for point in points], "part of the hash rate that withholds", [point[0] for point in points],
        "gain, %", (-30, -20, -10, 0, 10), lambda v: f"{v}",
        [("mean of the runs", between(0)), ("worst run", between(1)), ("best run", between(2))],
        lambda v: (v - points[0][0]) / (points[-1][0] - points[0][0]),
    )


if __name__ == "__main__":
    main()
