"""Common corruptions of Hendrycks and Dietterich 2019: a function each on a batch of images, in NumPy."""
