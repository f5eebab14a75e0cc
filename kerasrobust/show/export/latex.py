r"""Tables for LaTeX: what the console draws, with booktabs, as a file to `\input`."""

from __future__ import annotations

import re
from collections.abc import Iterable

from rich.table import Table

from kerasrobust.show.export.sheets import Drawn, Sheet, sheets
from kerasrobust.show.export.subject import Part, Subject, slug

_SPECIAL = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "$": r"\$", "&": r"\&", "#": r"\#", "_": r"\_", "%": r"\%",
    "^": r"\textasciicircum{}", "~": r"\textasciitilde{}",
    # As other glyphs in the font encoding that documents begin with.
    "<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}", "`": r"\textasciigrave{}",
    '"': r"{\ttfamily\char34}",
    # A row that begins with one of them would be an argument of the line's end before it.
    "[": "{[}", "]": "{]}", "*": "{*}",
    "±": r"$\pm$", "°": r"$^\circ$", "×": r"$\times$", "∞": r"$\infty$", "ℓ": r"$\ell$", "≤": r"$\le$", "≥": r"$\ge$",
    "−": "$-$", "σ": r"$\sigma$", "ε": r"$\varepsilon$", "…": r"\ldots{}",
}  # fmt: skip
_NORMS = {"linf": r"$\ell_\infty$", "l2": r"$\ell_2$", "l1": r"$\ell_1$", "l0": r"$\ell_0$"}
_PAGE = 45  # Rows; what is longer goes over several pages.
_WIDE, _WRAPPED = 50, r"p{0.6\linewidth}"  # Letters of a column whose cells go over several lines.
_NEEDS = r"""% Written by kerasrobust export. Needs \usepackage{booktabs,longtable}. Names in other scripts than Latin
% need LuaLaTeX or XeLaTeX, and a font that has them."""
_NUMBER = r"-?\d[\d,]*(?:\.\d+)?(?:e[+-]?\d+)?"


def latex_parts(subject: Subject) -> list[Part]:
    """Returns a .tex file for each table that the console draws."""
    return [
        Part.of_text(f"{sheet.name}.tex", f"{sheet.title}: {_rows(sheet.table)}", to_latex(sheet.table, sheet, subject))
        for sheet in sheets(subject)
        if sheet.table is not None
    ]


def _rows(table: Table) -> str:
    return f"{table.row_count:,} row{'' if table.row_count == 1 else 's'}"


def to_latex(table: Table, sheet: Sheet, subject: Subject) -> str:
    """Returns a table as a `table` environment, or as a `longtable` where it doesn't fit a page, with booktabs' rules.

    Percentages keep their sign. Intervals are written `$[24.1, 31.9]$`: Wilson's aren't symmetric, so that plus-minus
    would be another interval.

    Args:
        table: as `show` draws it.
        sheet: the same with its name and title.
        subject: of what it is.
    """
    drawn = Drawn.of(table)
    lines = []
    for place, row in enumerate(drawn.rows):
        lines.append(_line(cell(words, head) for words, head in zip(row, drawn.heads, strict=True)))
        if place in drawn.ruled:
            lines.append(r"\midrule")
    longest = [max(map(len, cells), default=0) for cells in zip(*drawn.rows, strict=True)]
    columns = "".join(
        _WRAPPED if length > _WIDE else "r" if right else "l"
        for length, right in zip(longest, drawn.right, strict=True)
    )
    caption = rf"\caption{{{escape(f'{sheet.title} of {subject.name}')}}}"
    label = rf"\label{{tab:{slug(subject.name)}-{sheet.name}}}"
    head = [r"\toprule", _line(map(escape, drawn.heads)), r"\midrule"]
    note = rf"\footnotesize {escape(drawn.note)}" if drawn.note else ""
    if len(drawn.rows) > _PAGE:
        begin, end = rf"\begin{{longtable}}{{{columns}}}", r"\end{longtable}"
        first = [caption, label + r"\\", *head, r"\endfirsthead"]
        body = [r"{\small", begin, *first, *head, r"\endhead", r"\bottomrule", r"\endfoot", *lines, end]
        whole = [*body, *([rf"\noindent{note}\par"] if note else []), "}"]
    else:
        begin, end = rf"\begin{{tabular}}{{{columns}}}", r"\end{tabular}"
        body = [
            r"\begin{table}",
            r"\centering\small",
            caption,
            label + r"\smallskip",
            begin,
            *head,
            *lines,
            r"\bottomrule",
            end,
        ]
        whole = [*body, *([rf"\\[2pt] {note}"] if note else []), r"\end{table}"]
    return "\n".join([_NEEDS, *whole, ""])


def _line(cells: Iterable[str]) -> str:
    return " & ".join(cells) + r" \\"


def cell(words: str, head: str = "") -> str:
    r"""Returns a cell as LaTeX has it: figures in mathematics, all else escaped.

    Args:
        words: as the console has it.
        head: its column's heading, as `l2` is a norm in a column of norms, and elsewhere may be a name.

    Example:
        >>> cell("27.8 %"), cell("24.1-31.9"), cell("8/255 L2", "epsilon"), cell("my_net")
        ('$27.8$\\,\\%', '$[24.1, 31.9]$', '$8/255$ $\\ell_2$', 'my\\_net')
    """
    if share := re.fullmatch(rf"({_NUMBER}) %", words):
        return rf"${share[1]}$\,\%"
    if interval := re.fullmatch(r"(\d+\.\d)-(\d+\.\d)", words):
        return f"$[{interval[1]}, {interval[2]}]$"
    if re.fullmatch(_NUMBER, words):
        return f"${words.replace(',', '{,}')}$"
    if "dist" in head and words == "infinite":
        return r"$\infty$"
    if head in ("norm", "epsilon"):
        return " ".join(
            _NORMS.get(word.lower(), f"${word}$" if re.fullmatch(rf"{_NUMBER}(/255)?", word) else escape(word))
            for word in words.split()
        )
    return escape(words)


def escape(words: str) -> str:
    r"""Returns text that LaTeX prints as it is, without ligatures of dashes and quotes.

    Example:
        >>> escape("my_net & 50 %")
        'my\\_net \\& 50 \\%'
    """
    plain = "".join(_SPECIAL.get(letter, letter) for letter in " ".join(words.split()) if letter.isprintable())
    return plain.replace("--", "-{}-").replace("--", "-{}-").replace("''", "'{}'").replace("!`", "!{}`")
