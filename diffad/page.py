"""One self-contained HTML page: nothing is loaded from elsewhere; light and dark, phone and desktop."""

from __future__ import annotations

import base64
import re
from collections.abc import Sequence
from html import escape

from diffad.tables import MISSING, NOTHING

STYLE = """
:root { color-scheme: light dark; --ink: #1f2328; --muted: #59636e; --line: #d8dde3; --paper: #ffffff;
  --card: #f6f8fa; --accent: #0072B2; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e8eb; --muted: #9aa4af; --line: #30363d;
  --paper: #161b22; --card: #1f262e; --accent: #56B4E9; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 2rem 1.1rem 4rem; max-width: 46rem;
  background: var(--paper); color: var(--ink);
  font: 1rem/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", sans-serif;
  -webkit-text-size-adjust: 100%; }
h1 { font-size: 1.65rem; line-height: 1.2; margin: 0 0 .3rem; text-wrap: balance; }
h2 { font-size: 1.2rem; margin: 2.6rem 0 .7rem; padding-top: .9rem; border-top: 1px solid var(--line); }
h3 { font-size: 1rem; margin: 1.4rem 0 .4rem; }
p { margin: .6rem 0; } ul { padding-left: 1.2rem; } li { margin: .35rem 0; }
.sub, .note, figcaption { color: var(--muted); } .note, figcaption { font-size: .875rem; }
.lead { background: var(--card); border-left: 4px solid var(--accent); border-radius: 4px;
  padding: .8rem 1rem; margin: 1.2rem 0; }
.lead p { margin: .35rem 0; } .lead b { font-variant-numeric: tabular-nums; }
figure { margin: 1rem 0; } figure img { display: block; width: 100%; height: auto; }
.wide { overflow-x: auto; margin: .4rem 0 .8rem; }
table { border-collapse: collapse; font-size: .9rem; font-variant-numeric: tabular-nums; min-width: 100%; }
p.caption { font-size: .9rem; margin: 1.1rem 0 .2rem; } .wide + p.caption { margin-top: 1.6rem; }
th, td { padding: .32rem .7rem; text-align: right; white-space: nowrap;
  border-bottom: 1px solid var(--line); }
th { font-weight: 600; } thead th { border-bottom: 2px solid var(--line); vertical-align: bottom; }
.groups th { border-bottom: 0; padding-bottom: 0; text-align: center; }
.groups span:not(:empty) { display: block; border-bottom: 1px solid var(--line); }
th:first-child, td:first-child { text-align: left; padding-left: 0;
  white-space: normal; min-width: 5.5rem; }
td.nothing { color: var(--muted); font-size: .78rem; white-space: normal; min-width: 4.6rem;
  line-height: 1.15; }
td.strong { font-weight: 700; }
td small { display: block; font-weight: 400; font-size: .8rem; color: var(--muted); white-space: nowrap; }
dl { display: grid; grid-template-columns: minmax(7rem, auto) 1fr; gap: .3rem 1.1rem; margin: .6rem 0; }
dt { color: var(--muted); } dd { margin: 0; overflow-wrap: anywhere; } .flag { white-space: nowrap; }
details { margin: .8rem 0; } summary { cursor: pointer; color: var(--accent); }
pre { background: var(--card); padding: .9rem; border-radius: 4px; overflow-x: auto;
  font-size: .78rem; line-height: 1.45; }
@media (max-width: 30rem) { body { padding-top: 1.2rem; } dl { grid-template-columns: 1fr; gap: 0; }
  dd { margin-bottom: .5rem; } th, td { padding: .32rem .5rem; }
  .wide th:first-child, .wide td:first-child { position: sticky; left: 0; background: var(--paper); z-index: 1;
    min-width: 7rem; } }
@media print { details > * { display: block; } body { max-width: none; } }
"""


def page(
    title: str, subtitle: str, sections: Sequence[tuple[str, str]], *, style: str = "", script: str = ""
) -> str:
    """The whole page; sections are (heading, HTML), an empty heading for one that needs none.

    `style` is added to that of all pages; `script` runs last, and the page has to read well without it.
    """
    body = "\n".join(
        f"<section>{f'<h2>{escape(heading)}</h2>' if heading else ''}\n{html}\n</section>"
        for heading, html in sections
        if html
    )
    code = f"<script>{script}</script>\n" if script else ""
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<title>{escape(title)}</title>\n<link rel="icon" href="data:,">\n<style>{STYLE}{style}</style>\n</head>\n'
        f'<body>\n<h1>{escape(title)}</h1>\n<p class="sub">{escape(subtitle)}</p>\n{body}\n{code}</body>\n</html>\n'
    )


def figure(themes: tuple[bytes, bytes], alt: str, caption: str) -> str:
    """A figure as PNG files in the light and in the dark theme, inlined; the reader's system chooses."""
    light, dark = ("data:image/png;base64," + base64.b64encode(png).decode("ascii") for png in themes)
    return (
        f'<figure><picture><source media="(prefers-color-scheme: dark)" srcset="{dark}">'
        f'<img src="{light}" alt="{escape(alt)}"></picture>'
        f"<figcaption>{text(caption)}</figcaption></figure>"
    )


def table(
    lines: Sequence[Sequence[str]],
    *,
    groups: Sequence[tuple[str, int]] = (),
    caption: str = "",
    strong: Sequence[int] = (),
) -> str:
    """A table; `lines` begin with the head, `groups` are (name, columns) above it, `strong` columns in bold."""
    head = "".join(f'<th scope="col">{text(cell)}</th>' for cell in lines[0])
    above = "".join(
        f'<th scope="colgroup" colspan="{span}"><span>{text(name)}</span></th>' for name, span in groups
    )
    body = "\n".join(
        "<tr>" + "".join(_cell(cell, i in strong) for i, cell in enumerate(line)) + "</tr>"
        for line in lines[1:]
    )
    groups_row = f'<tr class="groups">{above}</tr>' if above else ""
    # The caption stays outside of what scrolls sideways, so that it wraps on a phone.
    title = paragraph(caption, "caption") if caption else ""
    return (
        f'{title}<div class="wide"><table><thead>{groups_row}<tr>{head}</tr></thead>'
        f"<tbody>\n{body}\n</tbody></table></div>"
    )


def _cell(content: str, strong: bool) -> str:
    """A cell; a second line of its text is set small."""
    first, _, second = content.partition("\n")
    small = f"<small>{text(second)}</small>" if second else ""
    kind = "nothing" if first in (NOTHING, MISSING) else "strong" if strong else ""
    return f'<td class="{kind}">{text(first)}{small}</td>' if kind else f"<td>{text(first)}{small}</td>"


def text(plain: str) -> str:
    """Text as HTML; sigma and its value stay on one line, and so does an option of a command."""
    shown = escape(plain).replace("σ = ", "σ\u00a0=\u00a0")
    return re.sub(r"(?<!\S)--\w[\w-]*", r'<span class="flag">\g<0></span>', shown)


def facts(pairs: Sequence[tuple[str, str]]) -> str:
    """A list of names and values."""
    return "<dl>" + "".join(f"<dt>{text(k)}</dt><dd>{text(v)}</dd>" for k, v in pairs) + "</dl>"


def bullets(items: Sequence[str]) -> str:
    """A list of sentences."""
    return "<ul>" + "".join(f"<li>{text(item)}</li>" for item in items) + "</ul>"


def leading(results: Sequence[tuple[str, str]]) -> str:
    """The result of the page, set off: (name, sentence) pairs."""
    lines = "".join(f"<p><b>{text(name)}</b>: {text(said)}</p>" for name, said in results)
    return f'<div class="lead">{lines}</div>'


def paragraph(plain: str, kind: str = "") -> str:
    """One paragraph; `kind` is `note`, `sub` or `caption` for other sizes."""
    return f'<p class="{kind}">{text(plain)}</p>' if kind else f"<p>{text(plain)}</p>"


def folded(summary: str, html: str) -> str:
    """Something that opens on demand; nothing if there is nothing in it."""
    return html and f"<details><summary>{escape(summary)}</summary>{html}</details>"


def preformatted(plain: str) -> str:
    """Text as it is, for example JSON."""
    return f"<pre>{escape(plain)}</pre>"
