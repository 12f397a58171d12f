"""`sa2va doctor`: what a bug report needs, and what usually goes wrong."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict

from . import options

EXAMPLES = """examples:
  sa2va doctor
  sa2va doctor --json > report.json

The exit code is 0 when nothing failed, else 1. No worker is started and the
network is not used. It takes a few seconds: the libraries of the worker are
imported, to see whether they can be.
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
    options.add_json(parser)
    parser.set_defaults(command=run)


def run(arguments: argparse.Namespace) -> int:
    """Called by `main` with the parsed arguments; returns the exit code."""
    from .checks import examine

    failed = 0
    findings = []
    for check, finding in examine():
        failed += finding.level == "fail"
        findings.append({"check": check, **asdict(finding)})
        if not arguments.json:
            print(f"{finding.level:4}  {check:13}  {finding.message}", flush=True)
            if finding.advice:
                print(f"{'':21}-> {finding.advice}", flush=True)
    if arguments.json:
        print(json.dumps({"failed": failed, "findings": findings}, indent=2, ensure_ascii=False))
    else:
        print(f"\n{failed} of {len(findings)} failed." if failed else "\nNothing failed.")
    return 1 if failed else 0
