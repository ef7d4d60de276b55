"""One way from a file to an image, and one way from a result to a file."""
