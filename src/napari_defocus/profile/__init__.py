"""What counts as sharp: the sharpness limit, and a classifier learnt from a user's own images."""
