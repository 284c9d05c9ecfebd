"""Compares the last measurements with the targets: each row met, not met or not run."""

from __future__ import annotations

import json
from collections import Counter

from benchmarks.harness import OUT, TARGETS


def main() -> int:
    """Print each target; return 0 if at least nine in ten are met."""
    measured = {}
    for path in sorted(OUT.glob("*.json")):
        measured.update({row["job"]: row for row in json.loads(path.read_text())["rows"]})
    counts: Counter[str] = Counter()
    for job, targets in json.loads(TARGETS.read_text()).items():
        judged = {v["against"]: v for v in measured.get(job, {}).get("verdicts", [])}
        for against, target in targets.items():
            verdict = judged.get(against, {"state": "not run", "ratio": None})
            wanted = f"<= {target['most']:g}x" if "most" in target else f">= {target['faster']:g}x faster"
            ratio = "" if verdict["ratio"] is None else f"{verdict['ratio']:.2f}x"
            print(f"{verdict['state']:<8} {job:<48} {against:<14} {wanted:<16} {ratio}")
            counts[verdict["state"]] += 1
    total = sum(counts.values())
    print(f"{counts['met']} of {total} met, {counts['not met']} not met, {counts['not run']} not run")
    return 0 if counts["met"] >= 0.9 * total else 1


if __name__ == "__main__":
    raise SystemExit(main())
