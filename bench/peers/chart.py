"""Ratios as horizontal bars on a logarithmic scale, in SVG."""

import math
from xml.sax.saxutils import escape

COLOURS = {"redis": "#c0392b", "etcd": "#2c7fb8", "limit": "#7f8c8d"}
ROW, LEFT, WIDTH, TOP = 14, 230, 560, 50


def bars(ratios, title, figure):
    """One bar for each cell and peer: right of the middle line ours is larger."""
    rows = [(cell, peer, row[figure]) for cell, peers in ratios.items() for peer, row in peers.items()
            if row.get(figure)]
    reach = max([abs(math.log10(ratio)) for _, _, ratio in rows] + [1.0])
    at = lambda ratio: LEFT + WIDTH / 2 * (1 + math.log10(ratio) / reach)
    height = TOP + ROW * len(rows) + 30
    out = [f'<svg xmlns="http://www.w3.org/2000/svg" width="{LEFT + WIDTH + 80}" height="{height}" '
           'font-family="sans-serif" font-size="11">',
           '<rect width="100%" height="100%" fill="white"/>',
           f'<text x="10" y="20" font-size="15">{escape(title)}</text>']
    for mark in (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50):
        if abs(math.log10(mark)) <= reach:
            out.append(f'<line x1="{at(mark):.1f}" x2="{at(mark):.1f}" y1="{TOP - 5}" y2="{height - 25}" '
                       f'stroke="{"black" if mark == 1 else "#dddddd"}"/>')
            out.append(f'<text x="{at(mark):.1f}" y="{TOP - 10}" text-anchor="middle">{mark}x</text>')
    for number, (cell, peer, ratio) in enumerate(rows):
        y = TOP + ROW * number
        begin, end = sorted((at(1), at(ratio)))
        out.append(f'<text x="{LEFT - 6}" y="{y + 10}" text-anchor="end">{escape(cell)} / {peer}</text>')
        out.append(f'<rect x="{begin:.1f}" y="{y + 1}" width="{max(end - begin, 1):.1f}" height="{ROW - 3}" '
                   f'fill="{COLOURS.get(peer, "#555555")}"/>')
        out.append(f'<text x="{end + 4:.1f}" y="{y + 10}">{ratio:.2f}</text>')
    out.append("</svg>\n")
    return "\n".join(out)
