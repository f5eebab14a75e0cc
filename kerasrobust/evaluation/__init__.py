"""What may be said of a model: accuracies, intervals, reasons for doubt."""
