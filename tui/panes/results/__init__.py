"""What a run has found, a pane for each kind of result; `tab` has them all."""
