"""The closing tables: function x backend for every dtype, with the worst error; on the terminal and as HTML.

Before them, what failed, by its cause.
"""

from __future__ import annotations

import html
import platform
from collections.abc import Sequence
from pathlib import Path

from . import capabilities, failures
from .backends import HALF, STANDARD, Backend
from .failures import Group
from .recording import Comparison, Worst

ORDER = (*STANDARD, *HALF)


def header(backends: Sequence[Backend], absent: dict[str, str]) -> list[str]:
    """One line a backend: what runs, in which version and where, and what does not run and why."""
    lines = [f"{b.name}: {b.module.__name__} {b.version}, device {b.place}" for b in backends]
    return lines + [f"{name}: not run ({reason})" for name, reason in absent.items()]


def terminal(worst: Worst, groups: Sequence[Group], backends: Sequence[Backend], absent: dict[str, str]) -> list[str]:
    """What failed, and a table a dtype; empty if nothing was compared and nothing failed."""
    lines: list[str] = []
    names = [b.name for b in backends] + list(absent)
    for dtype in _dtypes(worst):
        rows = [(f, [_cell(worst, f, b, dtype, absent) for b in names]) for f in _functions(worst, dtype)]
        first = max(len(dtype), *(len(f) for f, _ in rows))
        widths = [max(len(n), *(len(cells[i]) for _, cells in rows)) for i, n in enumerate(names)]
        lines += ["", _joined(dtype, names, first, widths)]
        lines += [_joined(function, cells, first, widths) for function, cells in rows]
    if lines:
        lines = [
            *_failed(groups),
            "worst error against the truth, relative to the largest entry of the result",
            *lines,
            "",
        ]
        lines += [f"{name}: not run ({reason})" for name, reason in absent.items()]
    return lines


def _failed(groups: Sequence[Group]) -> list[str]:
    return ["failures by cause", "", *failures.lines(groups), ""] if groups else []


def _joined(first: str, cells: Sequence[str], width: int, widths: Sequence[int]) -> str:
    return "  ".join([first.ljust(width), *(c.rjust(w) for c, w in zip(cells, widths, strict=True))])


def _dtypes(worst: Worst) -> list[str]:
    present = {dtype for _, _, dtype in (*worst.cells, *worst.failed)}
    return [d for d in ORDER if d in present]


def _functions(worst: Worst, dtype: str | None = None) -> list[str]:
    """In the order of the capability table; derivatives, and tests of no single function, at the end."""
    present = {f for f, _, d in (*worst.cells, *worst.failed) if dtype in (None, d)}
    order = {row.function: i for i, row in enumerate(capabilities.ROWS)}

    def place(name: str) -> tuple[bool, bool, int, str]:
        function = name.partition(" ")[0]
        return function not in order, " " in name, order.get(function, 0), name

    return sorted(present, key=place)


def _cell(worst: Worst, function: str, backend: str, dtype: str, absent: dict[str, str]) -> str:
    key = (function, backend, dtype)
    c = worst.cells.get(key)
    if c is not None and not c.passed:
        return f"FAIL {c.error:.0e}"
    if key in worst.failed:
        return f"FAIL ({worst.failed[key]})"
    if c is None:
        return "not run" if backend in absent else "-"
    return f"{c.error:.0e}"


def write_html(
    path: Path, worst: Worst, groups: Sequence[Group], backends: Sequence[Backend], absent: dict[str, str], outcome: str
) -> None:
    """One self-contained page."""
    running = "".join(
        f"<tr><th>{_esc(b.name)}</th><td>{_esc(b.module.__name__)} {_esc(b.version)}</td><td>{_esc(b.place)}</td></tr>"
        for b in backends
    )
    resting = "".join(
        f'<tr><th>{_esc(name)}</th><td colspan="2" class="off">not run: {_esc(reason)}</td></tr>'
        for name, reason in absent.items()
    )
    tables = "".join(_html_table(worst, d, [b.name for b in backends], absent) for d in _dtypes(worst))
    path.parent.mkdir(parents=True, exist_ok=True)
    page = _PAGE.format(
        outcome=_esc(outcome),
        python=_esc(f"Python {platform.python_version()} on {platform.platform()}"),
        backends=running + resting,
        failures=_html_failures(groups),
        tables=tables or "<p>No comparison was made.</p>",
    )
    path.write_text(page, encoding="utf-8")


def _html_failures(groups: Sequence[Group]) -> str:
    if not groups:
        return ""
    head = "".join(f"<th>{name}</th>" for name in ("tests", "cause", "functions", "backends", "for example"))
    cells = [(str(len(g.failures)), g.cause, ", ".join(g.functions), ", ".join(g.backends), g.example) for g in groups]
    body = "".join(f"<tr>{''.join(f'<td>{_esc(cell)}</td>' for cell in row)}</tr>" for row in cells)
    return f'<h2>Failures by cause</h2><table id="failures"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>'


def _html_table(worst: Worst, dtype: str, running: Sequence[str], absent: dict[str, str]) -> str:
    head = "".join(f"<th>{_esc(name)}</th>" for name in (*running, *absent))
    body = "".join(
        f"<tr><th>{_esc(function)}</th>"
        + "".join(_html_cell(worst, (function, name, dtype), absent.get(name)) for name in (*running, *absent))
        + "</tr>"
        for function in _functions(worst, dtype)
    )
    return f"<h2>{_esc(dtype)}</h2><table><thead><tr><th>function</th>{head}</tr></thead><tbody>{body}</tbody></table>"


def _html_cell(worst: Worst, key: tuple[str, str, str], reason: str | None) -> str:
    c: Comparison | None = worst.cells.get(key)
    if key in worst.failed and (c is None or c.passed):
        return f'<td class="bad">FAIL<small>{worst.failed[key]} tests</small></td>'
    if c is None:
        return f'<td class="off" title="{_esc(reason)}">not run</td>' if reason else '<td class="off">–</td>'
    kind = "ok" if c.passed else "bad"
    return f'<td class="{kind}">{c.error:.1e}<small>{"≤" if c.passed else ">"} {c.allowed:.1e}</small></td>'


def _esc(text: str | None) -> str:
    return html.escape(text or "")


_PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>ssm_core conformance</title>
<style>
body {{ font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 75rem; padding: 0 1rem; color: #1b1f24; }}
h2 {{ margin-top: 2rem; }}
table {{ border-collapse: collapse; font-variant-numeric: tabular-nums; }}
th, td {{ border: 1px solid #d5d9de; padding: .3rem .7rem; text-align: right; white-space: nowrap; }}
th:first-child, #backends td {{ text-align: left; }}
thead th {{ background: #f3f5f7; }}
tbody th {{ font-weight: 500; }}
small {{ display: block; color: #57606a; }}
.ok {{ background: #eefaf0; }}
.bad {{ background: #ffdcd8; font-weight: 600; }}
.off {{ color: #8b949e; }}
#failures td {{ text-align: left; white-space: normal; overflow-wrap: anywhere; vertical-align: top; }}
@media (max-width: 60rem) {{ body {{ margin: 1rem; overflow-x: auto; }} }}
</style>
<h1>ssm_core conformance</h1>
<p>{outcome}<br>{python}</p>
<table id="backends"><thead><tr><th>backend</th><th>library</th><th>device</th></tr></thead>
<tbody>{backends}</tbody></table>
{failures}
<p>Each cell holds the worst error of all comparisons against the truth, relative to the largest entry of the result,
and below it the error allowed; FAIL with a number of tests where these ended before a comparison, or after one that
passed. A row in parentheses: tests of a file that are about no single function.
A dash: the library has no such dtype, or the function has no use for it.</p>
{tables}
</html>
"""
