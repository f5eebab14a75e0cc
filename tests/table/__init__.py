"""The forms of `tests/forms.py`: models and data as people have them."""
