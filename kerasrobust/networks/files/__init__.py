"""Other people's model files: one file a format; `formats` lists them."""
