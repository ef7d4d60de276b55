"""What is painted: the classes, annotations and super-pixels."""
