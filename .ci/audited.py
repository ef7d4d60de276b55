"""Judge the JSON of pip-audit on standard input: known holes fail, and so does a blind audit."""

import json
import sys

packages = json.load(sys.stdin)["dependencies"]
looked_up = [package for package in packages if "skip_reason" not in package]
holes = [(p["name"], p["version"], v["id"]) for p in looked_up for v in p["vulns"]]
for hole in holes:
    print(*hole)
print(f"{len(looked_up)} of {len(packages)} packages were looked up, {len(holes)} known holes")
if not looked_up:
    sys.exit("no package could be looked up: is the index's advisory service in reach?")
sys.exit(bool(holes))
