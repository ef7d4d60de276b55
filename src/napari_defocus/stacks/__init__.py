"""Focus stacks and time series: best plane, depth map, fused image."""
