"""Runs kosoku's Autobahn cases and judges the report itself: kosoku's own exit status forgives NON-STRICT and missing cases.

Usage: kosoku_report.py ADDRESS PARALLELISM SECONDS COUNT PATTERN ...; a pattern that begins with - leaves its cases out. There must be
COUNT of them. Prints what is not as it must be, and ends with 1 if anything is.
"""

import json
import pathlib
import resource
import subprocess
import sys
import tempfile
import time

# Autobahn only reports what the server does in these; there is nothing to pass.
INFORMATIONAL = {"7.1.6", "7.13.1", "7.13.2"}


def judge(case, result):
    allowed = {"OK", "INFORMATIONAL"} if case in INFORMATIONAL else {"OK"}
    return result["behavior"] in allowed and result["behaviorClose"] in allowed


def main():
    address, parallelism, seconds, expected, *patterns = sys.argv[1:]
    chosen = [word for text in patterns for word in (("-x", text[1:]) if text.startswith("-") else ("-i", text))]
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        kosoku = pathlib.Path(sys.executable).parent / "kosoku"
        run = subprocess.run(
            [kosoku, "-p", parallelism, *chosen, "-o", folder, address], capture_output=True, text=True, timeout=float(seconds))
        index = pathlib.Path(folder) / "index.json"
        if not index.exists():
            sys.exit(f"kosoku wrote no report: {run.stdout}{run.stderr}")
        results = next(iter(json.loads(index.read_text()).values()))
    wrong = {case: result for case, result in results.items() if not judge(case, result)}
    for case, result in sorted(wrong.items()):
        print(case, result["behavior"], result["behaviorClose"])
    informational = sum(result["behavior"] == "INFORMATIONAL" for result in results.values())
    print(f"{len(results)} cases, {informational} informational, {len(wrong)} not as they must be")
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    print(f"{time.monotonic() - started:.1f} s, for {used.ru_utime + used.ru_stime:.1f} s of which kosoku itself computed")
    if wrong or len(results) != int(expected):
        sys.exit(1)


if __name__ == "__main__":
    main()
