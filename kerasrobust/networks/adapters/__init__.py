"""What stands between attacks and a model of other conventions: its range of pixels, layout and kind of outputs."""
