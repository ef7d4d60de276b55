"""How well a map tells blurred from sharp: scores, reports, comparison, baselines."""
