"""Training: photos in, a finished run out."""
