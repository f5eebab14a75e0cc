"""Twins: faster copies of a network that follow its weights, for the gradients that attacks and training take.

All that other folders need is here: `of` gives the twin of a classifier, `of_model` that of a Keras model in training,
`chosen_precision` says which one is fastest, `local_of` computes parts of one.
"""

from kerasrobust.twins.folding import Twin
from kerasrobust.twins.local import Kept, Local, Region, local_of, part_of
from kerasrobust.twins.precision import MEANING, checked_precision, chosen_precision, meaning_of, of, of_model, try_out

__all__ = [
    "MEANING", "Kept", "Local", "Region", "Twin", "checked_precision", "chosen_precision", "local_of", "meaning_of",
    "of", "of_model", "part_of", "try_out",
]  # fmt: skip
