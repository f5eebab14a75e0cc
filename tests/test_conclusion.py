"""What a run says at its end: the accuracies with and without attacks, and an audit's verdict."""

from __future__ import annotations

import io
from typing import Any

from rich.console import Console
from test_console import attack_finished, drawn, finished, started

from kerasrobust.events import Audited, Evaluated, ExamplesSaved
from kerasrobust.records import Result
from kerasrobust.show.audited import audit_of
from kerasrobust.show.figures import format_done
from kerasrobust.show.narrate import narrate
from kerasrobust.show.summaries import summarize
from kerasrobust.show.tables import make_table

WHOLE = Evaluated(clean_accuracy=0.861, clean_interval=[0.85, 0.87], robust_accuracy=0.123, interval=[0.1, 0.15])


def rows(*events: Any) -> list[list[str]]:
    text = drawn([started("attack"), *events, WHOLE, finished()], quiet=True)
    lines = [line.split() for line in text.splitlines()]
    return lines[next(number for number, line in enumerate(lines) if line and set("".join(line)) == {"─"}) + 1 :]


def test_the_clean_accuracy_comes_first_also_if_quiet() -> None:
    clean, pgd, *_ = rows(attack_finished())
    assert clean == ["clean", "86.1", "%", "85.0-87.0"]
    assert pgd[:4] == ["pgd", "linf", "8/255", "31.2"]


def test_several_attacks_end_in_what_they_leave_together_and_one_does_not() -> None:
    found = rows(attack_finished(), attack_finished(attack="square", name="square", attacked=30))
    assert ["all", "together", "12.3", "%", "10.0-15.0"] in found
    assert not any(line[:1] == ["all"] for line in rows(attack_finished()))


def test_trials_of_randomness_are_not_taken_together() -> None:
    trials = [attack_finished(), attack_finished(attack="frozen", name="frozen")]
    text = drawn([started("randomness"), *trials, WHOLE, finished()], quiet=True)
    assert "clean" in text and "all together" not in text


def test_attacks_that_differ_in_their_passes_alone_say_so() -> None:
    plain, averaged = attack_finished(settings={"eot": 1}), attack_finished(settings={"eot": 10})
    assert "pgd, EOT 10 8/255" in (narrate(averaged) or "") and "EOT" not in (narrate(plain) or "")
    assert [" ".join(line[:3]).rstrip(",") for line in rows(plain, averaged)[1:3]] == ["pgd linf 8/255", "pgd, EOT 10"]


def test_names_of_models_are_whole_at_80_columns_where_other_columns_can_give_way() -> None:
    names = ["convnet-random", "convnet-random-pgd"]
    table = make_table(synthetic=False)
    for heading in ("name", "model", "training", "data", "clean", "attack", "epsilon", "robust", "95 %"):
        table.add_column(heading, no_wrap=heading in ("clean", "robust", "95 %"))
    for name in names:
        table.add_row(
            name, "convnet (random)", "standard", "cifar10", "86.2 %", "pgd", "8/255 linf", "33.8 %", "32.9-34.8"
        )
    file = io.StringIO()
    Console(file=file, width=80).print(table)
    lines = file.getvalue().splitlines()
    assert all(len(line.rstrip()) <= 80 for line in lines)
    assert [line.split()[0] for line in lines if line.startswith("convnet-")] == names


def test_an_audit_ends_in_a_verdict_and_a_mark_for_each_check() -> None:
    checked = ["rounding", "few-examples", "zero-gradient"]
    audit = Audited(checked=checked, left_out=["loss-falls"], doubts=["zero-gradient"], notes=["few-examples"])
    *_, first, second, third, fourth, verdict, _ = drawn([audit, finished()], quiet=True).splitlines()
    assert first == "✓ rounding: nothing found"
    assert second == "✓ few-examples: a note, no reason for doubt"
    assert third == "✗ zero-gradient: found"
    assert fourth == "- loss-falls: not looked for"
    assert verdict.startswith("Verdict: 1 reason to doubt the robust accuracy (zero-gradient).")


def test_doubts_that_no_check_looked_for_are_listed_and_nothing_checked_is_no_verdict() -> None:
    found = {"kind": "audit", "warnings": [{"code": "test-in-training", "message": "", "severity": "warning"}]}
    audit = audit_of(Result.parse(found | {"audit": {"checked": ["rounding"], "left_out": []}}))
    assert ("✗", "test-in-training", "found") in list(audit.lines()) and "1 reason" in audit.verdict
    nothing = audit_of(Result.parse({"kind": "audit", "audit": {"checked": [], "left_out": ["rounding"]}}))
    assert nothing.verdict == "Verdict: nothing was looked for, so nothing can be said. Not looked for: rounding."


def test_without_reasons_for_doubt_the_verdict_says_so() -> None:
    found = Result.parse(
        {"kind": "audit", "model": "net", "audit": {"checked": ["rounding", "loss-falls"], "left_out": []},
         "warnings": [{"code": "few-examples", "message": "Few.", "severity": "info"}]}
    )  # fmt: skip
    words = "Verdict: nothing speaks against the robust accuracy, after looking for 2 reasons."
    assert audit_of(found).verdict == words
    assert words in summarize(found)
    assert "Verdict" not in summarize(Result.parse({"kind": "attack", "model": "net"}))


def test_one_is_not_several() -> None:
    saved = ExamplesSaved(path="examples.h5", count=1, attack="pgd")
    assert narrate(saved) == "1 example of pgd in examples.h5"
    one = {"model": "net", "data": {"name": "own", "examples": 1}, "clean_accuracy": 1.0}
    assert "on 1 image of own" in summarize(Result.parse(one))
    assert format_done(1, None, "image") == "1 image" and format_done(1, 3, "image") == "1/3 images"
