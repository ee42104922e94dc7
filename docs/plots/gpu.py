#!/usr/bin/env python3
"""Draws docs/plots/gpu_roofline.svg and gpu_energy.svg from the figures of docs/performance-gpu.md. Needs nothing but Python."""

import math
import os

HERE = os.path.dirname(os.path.abspath(__file__))
STYLE = (
    '<style>text{font:13px sans-serif;fill:#333}.t{font-size:15px;font-weight:600}.s{font-size:11px;fill:#666}'
    "line.a{stroke:#999}line.g{stroke:#ddd}@media(prefers-color-scheme:dark){text{fill:#ddd}.s{fill:#aaa}line.g{stroke:#444}"
    "rect.b{fill:#1e1e1e}}</style>"
)


def svg(name, width, height, body):
    with open(os.path.join(HERE, name), "w") as file:
        file.write(f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}">{STYLE}')
        file.write(f'<rect class="b" width="{width}" height="{height}" fill="#fff"/>{body}</svg>\n')


def roofline():
    """Operations a byte against TOPS, both axes logarithmic."""
    left, top, width, height = 70, 40, 560, 300
    x0, x1, y0, y1 = 1, 5, 2, 3.5

    def x(v):
        return left + (math.log10(v) - x0) / (x1 - x0) * width

    def y(v):
        return top + height - (math.log10(v) - y0) / (y1 - y0) * height

    out = [f'<text class="t" x="{left}" y="22">Roofline of one H200: the standard shape</text>']
    for decade in range(x0, x1 + 1):
        out.append(f'<line class="g" x1="{x(10**decade)}" y1="{top}" x2="{x(10**decade)}" y2="{top + height}"/>')
        out.append(f'<text class="s" x="{x(10**decade)}" y="{top + height + 16}" text-anchor="middle">{10**decade:,}</text>')
    for value in (100, 200, 500, 1000, 2000, 3000):
        out.append(f'<line class="g" x1="{left}" y1="{y(value)}" x2="{left + width}" y2="{y(value)}"/>')
        out.append(f'<text class="s" x="{left - 6}" y="{y(value) + 4}" text-anchor="end">{value}</text>')
    out.append(f'<text class="s" x="{left + width / 2}" y="{top + height + 34}" text-anchor="middle">int8 operations a byte moved</text>')
    out.append(f'<text class="s" x="{left - 40}" y="{top - 8}">TOPS</text>')
    # (label, bytes a second, colour): tensor rate is the flat part.
    for label, rate, colour, at, side in (
        ("HBM 4.27 TB/s", 4.27e12, "#2b7", 140, 1),
        ("L2 about 7 TB/s", 7e12, "#47c", 240, -1),
        ("shared memory 28.9 TB/s at 1,710 MHz", 28.9e12, "#b4b", 330, 1),
    ):
        knee = 1979e12 / rate
        start = max(10, 100e12 / rate)
        out.append(f'<line x1="{x(start)}" y1="{y(rate * start / 1e12)}" x2="{x(knee)}" y2="{y(1979)}" stroke="{colour}" stroke-width="2"/>')
        anchor = "start" if side > 0 else "end"
        out.append(f'<text class="s" x="{x(at * 1e12 / rate) + 8 * side}" y="{y(at) + 4}" text-anchor="{anchor}" style="fill:{colour}">{label}</text>')
    for value, label, dash, up in (
        (1979, "1,979 data sheet", "", 5),
        (1847, "1,847 tensor cores alone, at the power limit", "5 4", -11),
        (1565, "1,565 end to end", "2 3", -11),
    ):
        out.append(f'<line x1="{x(300)}" y1="{y(value)}" x2="{left + width}" y2="{y(value)}" stroke="#c33" stroke-dasharray="{dash}"/>')
        out.append(f'<text class="s" x="{left + width - 4}" y="{y(value) - up}" text-anchor="end" style="fill:#c33">{label}</text>')
    # Each product at its intensity for each level.
    for label, intensity, tops, colour in (
        ("1st, shared memory", 8388608 / 98304, 1561, "#b4b"),
        ("2nd, shared memory", 8388608 / 131072, 1572, "#b4b"),
        ("1st, L2", 8388608 / 16384, 1561, "#47c"),
        ("2nd, L2", 8388608 / 32768, 1572, "#47c"),
        ("attempt, HBM", 1073741824 / 140000, 1565, "#2b7"),
    ):
        out.append(f'<circle cx="{x(intensity)}" cy="{y(tops)}" r="5" fill="{colour}"><title>{label}: {intensity:.0f} op/B</title></circle>')
        out.append(f'<text class="s" transform="rotate(50 {x(intensity)} {y(tops) + 14})" x="{x(intensity)}" y="{y(tops) + 14}">{label}</text>')
    svg("gpu_roofline.svg", 660, 400, "".join(out))


def energy():
    """Stacked energy of an operation, in pJ, from differences between variants of one kernel."""
    bars = (
        ("tensor cores alone", (("products", 0.369, "#c33"),)),
        ("1st product, A from memory", (("products", 0.369, "#c33"), ("A and W to shared memory, epilogue, idle", 0.0895, "#e95"))),
        ("1st product, A made on chip", (("products", 0.369, "#c33"), ("W to shared memory, idle", 0.033, "#e95"), ("epilogue, Y1 out", 0.0119, "#bb4"), ("making A", 0.0286, "#4a7"))),
        ("2nd product, outputs stored", (("products", 0.369, "#c33"), ("A and W to shared memory, epilogue, idle", 0.0645, "#e95"))),
        ("2nd product, hashed on chip", (("products", 0.369, "#c33"), ("A and W to shared memory, epilogue, idle", 0.0619, "#e95"), ("hashing", 0.0089, "#47c"))),
    )
    out = ['<text class="t" x="20" y="22">Energy of an int8 operation at the power limit, pJ</text>']
    scale, left = 820, 220
    for at, (label, parts) in enumerate(bars):
        y, x = 44 + at * 44, left
        out.append(f'<text x="{left - 8}" y="{y + 17}" text-anchor="end">{label}</text>')
        for part, value, colour in parts:
            out.append(f'<rect x="{x:.1f}" y="{y}" width="{value * scale:.1f}" height="24" fill="{colour}"><title>{part}: {value} pJ</title></rect>')
            x += value * scale
        out.append(f'<text x="{x + 6:.1f}" y="{y + 17}">{sum(v for _, v, _ in parts):.3f}</text>')
    for at, (part, colour) in enumerate((("products", "#c33"), ("operands to shared memory, idle", "#e95"), ("epilogue, Y1", "#bb4"), ("making A", "#4a7"), ("hashing", "#47c"))):
        out.append(f'<rect x="{20 + at * 95 + (110 if at > 1 else 0)}" y="272" width="12" height="12" fill="{colour}"/>')
        out.append(f'<text class="s" x="{36 + at * 95 + (110 if at > 1 else 0)}" y="282">{part}</text>')
    svg("gpu_energy.svg", 680, 300, "".join(out))


roofline()
energy()
