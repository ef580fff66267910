"""What pages hold in the place of a marker: tables that the code decides."""

from __future__ import annotations

import importlib
import json
import re
from collections.abc import Callable
from pathlib import Path

from ssm_core.files.pretrained import architectures
from ssm_core.systems.methods import METHODS

from .formulas import latex

ROOT = Path(__file__).parents[2]
MARKER = re.compile(r"^.*<!-- generated: ([\w ]+) -->$", re.MULTILINE)


def filled(text: str) -> str:
    """A page with every marker's line replaced by what it stands for."""
    return MARKER.sub(lambda found: GENERATED[found[1]](), text)


def with_formulas(text: str) -> str:
    """A page with the formulas of discretizations, in the rows of their methods, as LaTeX."""
    for name, record in METHODS.items():
        written = "".join(rf" *\| {re.escape(formula)}" for formula in record.formulas)
        row = " | ".join((f"| `{name}`", *(f"${latex(formula).strip()}$" for formula in record.formulas)))
        text = re.sub(rf"^\| `{name}`{written} *\|$", lambda _, row=row: f"{row} |", text, flags=re.MULTILINE)
    return text


def support_table() -> str:
    """The capability table of the conformance suite; its words become labels that style.css colors."""
    text = importlib.import_module("conformance.capabilities").support_table_markdown()
    text = re.sub(r"^\| (`[\w.]+`)", r"| [\1](api.md#function)", text, flags=re.MULTILINE)
    return re.sub(r"(?<=\| )(generic|fused|yes|no)(?= \|)", r'<span class="support \1">\1</span>', text)


# job -> what is computed; the other ways are those that the row names.
NUMBERS = {
    "s4d-kernel-torch": "the kernel of S4D",
    "s4-torch-backward": "S4, forward and backward",
    "selective-scan": "Mamba's selective scan, forward and backward",
}


def numbers() -> str:
    """Cards of the ratios of docs/measured.json that stand on the front page."""
    rows = json.loads((ROOT / "docs" / "measured.json").read_text(encoding="utf-8"))["rows"]
    cards = []
    for job, what in NUMBERS.items():
        row = next(row for row in rows if row["job"] == job and row["variant"] != "ours")
        memory = f" and {row['memory_ratio']:.0f}x less memory" if row["memory_ratio"] else ""
        cards += [
            f":::{{grid-item-card}} {row['ratio']:.2g}x faster{memory}",
            ":class-card: number",
            f"{what[0].upper()}{what[1:]}, beside {row['variant']}.",
            "",
            f"`nox -s bench -- {job}`",
            ":::",
        ]
    return "\n".join(["::::{grid} 1 1 3 3", ":gutter: 3", "", *cards, "::::", "", MACHINE, ""])


MACHINE = "Measured on two CPU cores in float32; sizes, the other rows and the machine: [performance](performance.md)."


def architecture_table() -> str:
    """Model types x frameworks: what `from_pretrained` opens, and whose modules it gives there."""
    modules = {
        name: "".join(p.read_text(encoding="utf-8") for p in _written(name)) for name in ("torch", "flax", "equinox")
    }
    head = "| `model_type` | published as | model | NumPy and other arrays | PyTorch | Flax | Equinox |"
    lines = [head, "|---|---|---|---|---|---|---|"]
    for kind, architecture in architectures().items():
        file = importlib.import_module(f"ssm_core.files.pretrained.{kind}")
        title = re.sub(r" (is|are) published", "", (file.__doc__ or "").partition("\n")[0].rstrip("."))
        cls = architecture.model.split("`")[1]
        there = [f"`{cls}`" if f"class {cls}(" in text else "no" for text in modules.values()]
        lines.append(f"| `{kind}` | {title} | {architecture.model} | yes | {' | '.join(there)} |")
    return "\n".join(lines) + "\n"


def _written(framework: str) -> list[Path]:
    return sorted((ROOT / "adapters" / framework / "modules").glob("*.py"))


GENERATED: dict[str, Callable[[], str]] = {
    "support table": support_table,
    "architectures": architecture_table,
    "numbers": numbers,
}
