"""Runs kosoku's Autobahn cases and judges the report itself: kosoku's own exit status forgives NON-STRICT and missing cases.

Usage: kosoku_report.py ADDRESS PARALLELISM SECONDS [all | CASE ...]; without cases, all but those of sections 12 and 13, which
compress. Prints what is not as it must be, and ends with 1 if anything is.
"""

import json
import pathlib
import subprocess
import sys
import tempfile

# Autobahn only reports what the server does in these; there is nothing to pass.
INFORMATIONAL = {"7.1.6", "7.13.1", "7.13.2"}
# Of Autobahn 0.10.9: the whole suite, and without compression.
ALL_CASES, PLAIN_CASES = 517, 301


def judge(case, result):
    allowed = {"OK", "INFORMATIONAL"} if case in INFORMATIONAL else {"OK"}
    return result["behavior"] in allowed and result["behaviorClose"] in allowed


def main():
    address, parallelism, seconds, cases = sys.argv[1], sys.argv[2], sys.argv[3], sys.argv[4:]
    if cases == ["all"]:
        chosen, expected = [], ALL_CASES
    elif cases:
        chosen, expected = [word for case in cases for word in ("-i", case)], len(cases)
    else:
        chosen, expected = ["-x", "12.*", "-x", "13.*"], PLAIN_CASES
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
    if wrong or len(results) != expected:
        sys.exit(1)


main()
