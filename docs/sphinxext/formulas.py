"""The formulas of docstrings, which are written for a terminal, in LaTeX.

>>> latex("x_k = Ab x_{k-1} + Bb u_k,   y_k = C x_k")
'x_k = \\\\overline{A} \\\\, x_{k - 1} + \\\\overline{B} \\\\, u_k, \\\\qquad y_k = C \\\\, x_k'
"""

from __future__ import annotations

import re

GREEK = [
    "alpha", "beta", "gamma", "delta", "epsilon", "zeta", "eta", "theta", "kappa", "lambda", "mu", "nu", "xi", "pi",
    "rho", "sigma", "tau", "phi", "chi", "psi", "omega",
]  # fmt: skip
FUNCTIONS = ["exp", "log", "tanh", "sinh", "cosh", "sin", "cos", "max", "min", "det", "Re", "Im"]
OPERATORS = [
    "softplus", "sigmoid", "silu", "gelu", "relu", "softmax", "diag", "conv", "norm", "dropout", "pool", "sign",
    "cond", "rot", "erf", "glu",
]  # fmt: skip
WORDS = [
    "a", "all", "an", "and", "are", "as", "at", "before", "beside", "block", "blocks", "both", "by", "columns",
    "complex", "conjugate", "delayed", "discrete", "continuous", "each", "else", "every", "first", "five", "for",
    "from", "further", "half", "heads", "if", "in", "input", "into", "is", "it", "its", "last", "least", "left",
    "lower", "bound", "made", "makes", "matrix", "meets", "most", "next", "none", "normal", "of", "on", "one", "or",
    "otherwise", "output", "over", "pairs", "parts", "past", "right", "same", "sample", "saved", "sequence", "so",
    "state", "states", "step", "steps", "tap", "taps", "that", "the", "then", "their", "time", "to", "turned",
    "under", "unit", "up", "via", "was", "what", "where", "which", "whose", "with", "without", "again",
]  # fmt: skip
SYMBOLS = {
    "<=": r"\le",
    ">=": r"\ge",
    "!=": r"\ne",
    "->": r"\to",
    "<-": r"\leftarrow",
    "...": r"\ldots",
    "..": r"\,..\,",
    " . ": r" \cdot ",
    "&": r"\&",
    "%": r"\%",
    "#": r"\#",
    "inf": r"\infty",
}
TOKEN = re.compile(
    r"(?P<gap> {2,})|(?P<dot> \. )|(?P<space> )|(?P<symbol>\.\.\.|\.\.|<=|>=|!=|->|<-|[&%#])"
    r"|(?P<script>[_^]\{)|(?P<number>\d+(?:\.\d+)?)|(?P<name>[A-Za-zα-ωΑ-Ω]\w*'*)|(?P<other>.)"
)


def latex(block: str) -> str:
    r"""LaTeX of a block, a line an equation where they are long, aligned at their left."""
    lines = [line_latex(part) for line in block.strip().split("\n") for part in parts(line)]
    if len(lines) == 1:
        return lines[0]
    return "\\begin{aligned}\n" + " \\\\\n".join(f"& {line}" for line in lines) + "\n\\end{aligned}"


def parts(line: str) -> list[str]:
    return re.split(r"(?<=[,;]) {3,}", line) if len(line) > 60 else [line]


def line_latex(line: str) -> str:
    out: list[str] = []
    before = ""
    for found in TOKEN.finditer(roots(line.strip())):
        kind, text = found.lastgroup, found[0]
        if kind == "gap":
            out.append(r"\qquad")
        elif kind == "dot":
            out.append(r"\cdot")
        elif kind == "space":
            continue
        elif kind == "symbol":
            out.append(SYMBOLS[text])
        elif kind == "name":
            if text == "a" and before == "word":
                text = "a "
            product = before in ("name", "number", ")", "}", "'") and found.start() and line_space(found)
            out.append((r"\, " if product and text.strip() not in WORDS else "") + name_latex(text))
        else:
            out.append(text)
        before = "word" if text in WORDS and text != "a" else kind if kind in ("name", "number") else text
    return tidy(" ".join(out))


def line_space(found: re.Match[str]) -> bool:
    return found.string[found.start() - 1] == " "


def roots(line: str) -> str:
    """sqrt(...) as a radical: its brackets become braces, behind a mark that no formula has."""
    while (start := line.find("sqrt(")) >= 0:
        depth, end = 0, start + 4
        for end in range(start + 4, len(line)):
            depth += (line[end] == "(") - (line[end] == ")")
            if depth == 0:
                break
        line = f"{line[:start]}\0{{{line[start + 5 : end]}}}{line[end + 1 :]}"
    return line


def name_latex(name: str) -> str:
    primes = "'" * name.count("'")
    base, _, index = name.rstrip("'").partition("_")
    if name == "a " or (name in WORDS and name != "a"):
        return rf"\text{{~{name.strip()}~}}"
    if not index:
        return symbol(base) + primes + ("_" if name.rstrip("'").endswith("_") else "")
    if (
        len(base) > 1
        and len(index) > 1
        and base not in (*GREEK, "Ab", "Bb", "sum", "prod", "softmax", "poles", "max", "dt")
    ):
        return "\\mathtt{" + name.rstrip("'").replace("_", r"\_") + "}" + primes
    if len(index) > 1 and not re.fullmatch(r"[a-z]{2}|\d\w|\d+\w*", index):
        return symbol(base) + "_{\\mathrm{" + index.replace("_", ",") + "}}" + primes
    return f"{symbol(base)}_" + (f"{{{index}}}" if len(index) > 1 else index) + primes


def symbol(name: str) -> str:
    if name.lower() in GREEK:
        return "\\" + name
    if name[-1:].isdigit() and name[:-1].lower() in GREEK:
        return f"\\{name[:-1]}_{name[-1]}"
    if name in ("Ab", "Bb"):
        return rf"\overline{{{name[0]}}}"
    if name in ("sum", "prod"):
        return "\\" + name
    if name in FUNCTIONS or name in OPERATORS:
        return rf"\operatorname{{{name}}}"
    if name == "inf":
        return r"\infty"
    if name in ("dt", "ds"):
        return rf"\mathit{{{name}}}"
    return name if len(name) == 1 else rf"\mathrm{{{name}}}"


def tidy(text: str) -> str:
    """Indices and powers beside what they belong to, words in one piece; the mark of a root as its command."""
    text = re.sub(r"~\} (?:\\, )?\\text\{~", " ", text)
    text = re.sub(r"\^ ?(\([^()]*\))", r"^{\1}", text)
    text = re.sub(r" *([_^]) *(\{?) *", r"\1\2", text)
    text = text.replace("\0 {", r"\sqrt{").replace("\0{", r"\sqrt{")
    text = re.sub(r"\^(-?)\s*(\d+|[A-Za-z]) ?", r"^{\1\2} ", text) if re.search(r"\^-", text) else text
    text = re.sub(r" +\}", "}", text)
    return re.sub(r"\( ", "(", re.sub(r" +([),;])", r"\1", text)).replace("*", r"\ast")
