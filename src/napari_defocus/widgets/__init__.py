"""The napari side: layers in, the library's calls in the background, layers out."""
