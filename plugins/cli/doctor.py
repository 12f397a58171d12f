"""`sa2va doctor`: what a bug report needs, and what usually goes wrong."""

from __future__ import annotations

import argparse
import json
from collections import Counter
from dataclasses import asdict

from . import options

EXAMPLES = """examples:
  sa2va doctor
  sa2va doctor --full --json > report.json

Each line is ok, a warning (something may surprise) or a problem (something
does not work), with the command that helps. The exit code is 1 when there is a
problem, else 0. No worker is started and the network is not used. Versions are
looked up and PyTorch is asked for its devices; --full also imports all that the
worker imports and tries optional libraries, which takes several times as long.
"""


def add_to(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the command."""
    parser = commands.add_parser(
        "doctor",
        help="check this installation",
        description="Check what usually goes wrong and say what to do about it. Its output belongs into a bug report.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--full", action="store_true", help="import the worker's libraries, and try the optional ones"
    )
    options.add_json(parser)
    parser.set_defaults(command=run)


def run(arguments: argparse.Namespace) -> int:
    """Called by `main` with the parsed arguments; returns the exit code."""
    from .checks import examine

    findings = []
    count: Counter[str] = Counter()
    for check, finding in examine(full=arguments.full):
        count[finding.level] += 1
        findings.append({"check": check, **asdict(finding)})
        if not arguments.json:
            print(f"{finding.level:7}  {check:13}  {finding.message}", flush=True)
            if finding.advice:
                print(f"{'':24}-> {finding.advice}", flush=True)
    problems, warnings = count["problem"], count["warning"]
    if arguments.json:
        report = {"problems": problems, "warnings": warnings, "findings": findings}
        print(json.dumps(report, indent=2, ensure_ascii=False))
    else:
        print(f"\nproblems: {problems}, warnings: {warnings}")
    return 1 if problems else 0
