"""Which part of an image is in focus: blur maps and masks from a learnt local metric."""
