"""How runs are reported and drawn: console, report, comparisons, files of examples. No TensorFlow here."""
