"""Data to train a GenRM on: labelled solutions (`build`), and critiques of them to imitate (`critiques`)."""
