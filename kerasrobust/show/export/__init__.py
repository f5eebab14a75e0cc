"""What leaves the program: a run's tables, figures, images and curves as files for others. No TensorFlow here."""
