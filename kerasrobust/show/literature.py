"""What to cite for what was run: the papers of attacks and methods. No TensorFlow here."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from kerasrobust.names import uncorrupted
from kerasrobust.records import Result
from kerasrobust.show.figures import attack_name


@dataclass(frozen=True)
class Paper:
    """A paper: who, what, where it appeared, and in which year."""

    authors: str
    title: str
    place: str
    year: int

    def __str__(self) -> str:
        return f"{self.authors} ({self.year}). {self.title}. {self.place}."


_MADRY = "A. Madry, A. Makelov, L. Schmidt, D. Tsipras, A. Vladu"
_CROCE = "F. Croce, M. Hein"
AUTOATTACK = Paper(
    _CROCE,
    "Reliable Evaluation of Adversarial Robustness with an Ensemble of Diverse Parameter-free Attacks",
    "ICML",
    2020,
)
FAB = Paper(_CROCE, "Minimally Distorted Adversarial Examples with a Fast Adaptive Boundary Attack", "ICML", 2020)
L1 = Paper(_CROCE, "Mind the Box: l1-APGD for Sparse Adversarial Attacks on Image Classifiers", "ICML", 2021)
SQUARE = Paper(
    "M. Andriushchenko, F. Croce, N. Flammarion, M. Hein",
    "Square Attack: A Query-Efficient Black-Box Adversarial Attack via Random Search",
    "ECCV",
    2020,
)
CW = Paper("N. Carlini, D. Wagner", "Towards Evaluating the Robustness of Neural Networks", "IEEE S&P", 2017)
PATCH = Paper("T. B. Brown, D. Mané, A. Roy, M. Abadi, J. Gilmer", "Adversarial Patch", "arXiv:1712.09665", 2017)
EOT = Paper("A. Athalye, L. Engstrom, A. Ilyas, K. Kwok", "Synthesizing Robust Adversarial Examples", "ICML", 2018)
OBFUSCATED = Paper(
    "A. Athalye, N. Carlini, D. Wagner",
    "Obfuscated Gradients Give a False Sense of Security: Circumventing Defenses to Adversarial Examples",
    "ICML",
    2018,
)
TRANSFER = Paper(
    "N. Papernot, P. McDaniel, I. Goodfellow",
    "Transferability in Machine Learning: from Phenomena to Black-Box Attacks using Adversarial Samples",
    "arXiv:1605.07277",
    2016,
)
CORRUPTIONS = Paper(
    "D. Hendrycks, T. Dietterich",
    "Benchmarking Neural Network Robustness to Common Corruptions and Perturbations",
    "ICLR",
    2019,
)
SMOOTHING = Paper(
    "J. Cohen, E. Rosenfeld, Z. Kolter", "Certified Adversarial Robustness via Randomized Smoothing", "ICML", 2019
)
UNIFORM = Paper(
    "G. Yang, T. Duan, J. E. Hu, H. Salman, I. Razenshteyn, J. Li",
    "Randomized Smoothing of All Shapes and Sizes",
    "ICML",
    2020,
)
UNION = Paper("F. Tramèr, D. Boneh", "Adversarial Training and Robustness for Multiple Perturbations", "NeurIPS", 2019)
PAPERS: dict[str, tuple[Paper, ...]] = {
    "autoattack": (AUTOATTACK, FAB, SQUARE),
    "pgd": (Paper(_MADRY, "Towards Deep Learning Models Resistant to Adversarial Attacks", "ICLR", 2018),),
    "fgsm": (
        Paper(
            "I. J. Goodfellow, J. Shlens, C. Szegedy", "Explaining and Harnessing Adversarial Examples", "ICLR", 2015
        ),
    ),
    "rfgsm": (
        Paper(
            "F. Tramèr, A. Kurakin, N. Papernot, I. Goodfellow, D. Boneh, P. McDaniel",
            "Ensemble Adversarial Training: Attacks and Defenses",
            "ICLR",
            2018,
        ),
    ),
    "fgsm-rs": (
        Paper(
            "E. Wong, L. Rice, J. Z. Kolter", "Fast Is Better than Free: Revisiting Adversarial Training", "ICLR", 2020
        ),
    ),
    "bim": (
        Paper(
            "A. Kurakin, I. Goodfellow, S. Bengio",
            "Adversarial Examples in the Physical World",
            "ICLR workshop",
            2017,
        ),
    ),
    "mifgsm": (
        Paper(
            "Y. Dong, F. Liao, T. Pang, H. Su, J. Zhu, X. Hu, J. Li",
            "Boosting Adversarial Attacks with Momentum",
            "CVPR",
            2018,
        ),
    ),
    "apgd-ce": (AUTOATTACK,),
    "apgd-dlr": (AUTOATTACK,),
    "apgd-t": (AUTOATTACK,),
    "apgd-margin": (AUTOATTACK, CW),
    "apgd-nearest": (
        AUTOATTACK,
        Paper(
            "A. E. Cinà, J. Rony, M. Pintor, L. Demetrio, A. Demontis, B. Biggio, I. Ben Ayed, F. Roli",
            "AttackBench: Evaluating Gradient-based Attacks for Adversarial Examples",
            "AAAI",
            2025,
        ),
    ),
    "deepfool": (
        Paper(
            "S.-M. Moosavi-Dezfooli, A. Fawzi, P. Frossard",
            "DeepFool: A Simple and Accurate Method to Fool Deep Neural Networks",
            "CVPR",
            2016,
        ),
    ),
    "superdeepfool": (
        Paper(
            "A. Abdollahpoorrostam, M. Abroshan, S.-M. Moosavi-Dezfooli",
            "SuperDeepFool: A New Fast and Accurate Minimal Adversarial Attack",
            "arXiv:2303.12481",
            2023,
        ),
    ),
    "fab": (FAB,),
    "fab-t": (FAB, AUTOATTACK),
    "cw": (CW,),
    "ddn": (
        Paper(
            "J. Rony, L. G. Hafemann, L. S. Oliveira, I. Ben Ayed, R. Sabourin, E. Granger",
            "Decoupling Direction and Norm for Efficient Gradient-Based L2 Adversarial Attacks and Defenses",
            "CVPR",
            2019,
        ),
    ),
    "fmn": (
        Paper(
            "M. Pintor, F. Roli, W. Brendel, B. Biggio",
            "Fast Minimum-norm Adversarial Attacks through Adaptive Norm Constraints",
            "NeurIPS",
            2021,
        ),
    ),
    "pdpgd": (
        Paper(
            "A. Matyasko, L.-P. Chau",
            "PDPGD: Primal-Dual Proximal Gradient Descent Adversarial Attack",
            "arXiv:2106.01538",
            2021,
        ),
    ),
    "sigma-zero": (
        Paper(
            "A. E. Cinà, F. Villani, M. Pintor, L. Schönherr, B. Biggio, M. Pelillo",
            "Sigma-zero: Gradient-based Optimization of l0-norm Adversarial Examples",
            "arXiv:2402.01879",
            2024,
        ),
    ),
    "universal": (
        Paper(
            "S.-M. Moosavi-Dezfooli, A. Fawzi, O. Fawzi, P. Frossard",
            "Universal Adversarial Perturbations",
            "CVPR",
            2017,
        ),
        Paper(
            "A. Shafahi, M. Najibi, Z. Xu, J. Dickerson, L. S. Davis, T. Goldstein",
            "Universal Adversarial Training",
            "AAAI",
            2020,
        ),
    ),
    "patch": (PATCH,),
    "universal-patch": (PATCH,),
    "spatial": (
        Paper(
            "L. Engstrom, B. Tran, D. Tsipras, L. Schmidt, A. Madry",
            "Exploring the Landscape of Spatial Robustness",
            "ICML",
            2019,
        ),
    ),
    "sparse-rs": (
        Paper(
            "F. Croce, M. Andriushchenko, N. D. Singh, N. Flammarion, M. Hein",
            "Sparse-RS: A Versatile Framework for Query-Efficient Sparse Black-Box Adversarial Attacks",
            "AAAI",
            2022,
        ),
    ),
    "square": (SQUARE,),
    "rays": (
        Paper("J. Chen, Q. Gu", "RayS: A Ray Searching Method for Hard-label Adversarial Attack", "KDD", 2020),
    ),
    "surfree": (
        Paper(
            "T. Maho, T. Furon, E. Le Merrer", "SurFree: A Fast Surrogate-Free Black-Box Attack", "CVPR", 2021
        ),
    ),
    "boundary": (
        Paper(
            "W. Brendel, J. Rauber, M. Bethge",
            "Decision-Based Adversarial Attacks: Reliable Attacks Against Black-Box Machine Learning Models",
            "ICLR",
            2018,
        ),
    ),
    "hopskipjump": (
        Paper(
            "J. Chen, M. I. Jordan, M. J. Wainwright",
            "HopSkipJumpAttack: A Query-Efficient Decision-Based Attack",
            "IEEE S&P",
            2020,
        ),
    ),
}  # fmt: skip
"""The papers of each attack, by its registered name."""


def to_cite(result: Result) -> Iterator[tuple[str, Sequence[Paper]]]:
    """Yields what was run, in words, and the papers to cite for it, each paper once."""
    said: set[Paper] = set()

    def new(papers: Sequence[Paper]) -> list[Paper]:
        found = [paper for paper in papers if paper not in said]
        said.update(found)
        return found

    for words, papers in _used(result):
        if found := new(papers):
            yield words, found


def _used(result: Result) -> Iterator[tuple[str, Sequence[Paper]]]:
    entries = [(entry.name, entry.norm, entry.settings.get("eot") or 1) for entry in (*result.attacks, *result.curves)]
    entries += [(row.attack or "", row.norm or "", row.eot or 1) for row in result.rows or ()]
    for name in dict.fromkeys([result.attack, *(name for name, *_ in entries)]):
        yield attack_name(name), PAPERS.get(name, ())
    if any(norm == "l1" and name.startswith(("apgd", "autoattack", "square", "fab")) for name, norm, _ in entries):
        yield "attacks in L1", (L1,)
    if any(eot > 1 for *_, eot in entries):
        yield "gradients averaged over noise (EOT)", (EOT,)
    if any(name == "union" for name, *_ in entries):
        yield "union of threats", (UNION,)
    if any(entry.surrogate for entry in result.attacks):
        yield "transfer", (TRANSFER,)
    if result.audit or result.kind == "randomness":
        yield "audit", (OBFUSCATED,)
    if result.corruptions or uncorrupted(result.data.name) != result.data.name:
        yield "corruptions", (CORRUPTIONS,)
    if result.certificate is not None:
        yield "certificates", (SMOOTHING, *((UNIFORM,) if result.certificate.noise == "uniform" else ()))


def bibtex(versions: Mapping[str, Any]) -> str:
    """Returns a BibTeX entry of the program, in the version that figures were made with.

    Example:
        >>> print(bibtex({"kerasrobust": "0.1.0"}))
        @software{kerasrobust,
          title = {kerasrobust: a robustness laboratory for Keras image classifiers},
          author = {{The kerasrobust developers}},
          version = {0.1.0}
        }
    """
    lines = {
        "title": "{kerasrobust: a robustness laboratory for Keras image classifiers}",
        "author": "{{The kerasrobust developers}}",
        "version": f"{{{versions.get('kerasrobust', 'unknown')}}}",
    }
    return "@software{kerasrobust,\n" + ",\n".join(f"  {key} = {value}" for key, value in lines.items()) + "\n}"
