"""Breakpoints: from how many columns or lines on there is more to see. Everything fits into 80 columns, 24 lines."""

from __future__ import annotations

DETAILS = 150
"""Columns of a screen with details, help or cards beside its table."""
BESIDE = 120
"""Columns of the list of runs with what is known of one beside it."""
COMPARISON = 140
"""Columns of the comparison with its list beside the results."""
STAGES = 120
"""Columns of the monitor with the list of stages beside the tabs."""
ATTACKS = 116
"""Columns of the attacks' table with all its columns."""
SUMMARY = 22
"""Lines of a result's pane with the summary above its figures."""
FULL = 100
"""Columns of a pane in which names are written out."""
CHARTS = 88
"""Columns of the curves' pane with all charts at once."""
