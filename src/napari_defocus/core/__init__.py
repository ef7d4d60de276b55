"""What every room stands on: errors, progress, tiles, threads, devices."""
