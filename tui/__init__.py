"""The terminal UI of kerasrobust. It never imports TensorFlow; what computes runs in a child process."""
