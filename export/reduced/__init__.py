"""Models of fewer bits: int8 and float16, chosen and evaluated on labelled photos."""
