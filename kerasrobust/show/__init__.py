"""How runs are told and drawn: console, report, comparisons, files of examples. No TensorFlow here."""
