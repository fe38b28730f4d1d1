"""Runs kosoku as a fuzzing server, a client's test driver against it, and judges the report.

Usage: kosoku_server.py CLIENT [CASE ...]; CLIENT gets the server's URL as its argument.
"""

import json
import pathlib
import subprocess
import sys
import tempfile

from kosoku_report import judge

# Cases 1 to 13 of Autobahn 0.10.9.
LEAST_CASES = 517


def main():
    client, cases = sys.argv[1], sys.argv[2:]
    chosen = [word for case in cases for word in ("-i", case)]
    with tempfile.TemporaryDirectory() as folder:
        kosoku = pathlib.Path(sys.executable).parent / "kosoku"
        server = subprocess.Popen(
            [kosoku, "-m", "fuzzingserver", *chosen, "-o", folder, "127.0.0.1:0"], stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        try:
            address = server.stderr.readline().split()[-1]
            run = subprocess.run([client, address], capture_output=True, text=True, timeout=500)
            if run.returncode != 0:
                sys.exit(f"the client ended with {run.returncode}: {run.stdout}{run.stderr}")
            server.communicate(timeout=60)
        finally:
            server.kill()
            server.wait()
        index = pathlib.Path(folder) / "index.json"
        if not index.exists():
            sys.exit(f"kosoku wrote no report: {run.stdout}")
        results = next(iter(json.loads(index.read_text()).values()))
    wrong = {case: result for case, result in results.items() if not judge(case, result)}
    for case, result in sorted(wrong.items()):
        print(case, result["behavior"], result["behaviorClose"])
    print(f"{len(results)} cases, {len(wrong)} not as they must be")
    if wrong or len(results) < (LEAST_CASES if not cases else len(cases)):
        sys.exit(1)


main()
