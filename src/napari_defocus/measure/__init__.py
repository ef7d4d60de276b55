"""What a detection says of regions and objects: shares, scores, polygons."""
