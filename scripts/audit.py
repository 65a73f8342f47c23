"""Ask the database of known vulnerabilities (https://osv.dev, which pip-audit asks, too) about constraints.txt.

Says in one line that it is not reachable, where that is so: a machine without internet can be tested, too.
"""

from __future__ import annotations

import json
import re
import sys
import threading
import urllib.request
from pathlib import Path
from typing import Any

DATABASE = "https://api.osv.dev/v1/querybatch"
SECONDS = 20
"""For everything: a name server that never answers keeps nobody waiting."""
ACCEPTED: dict[str, str] = {}
"""Id of a vulnerability -> why it does not touch us."""


def pinned(text: str) -> dict[str, str]:
    """Package -> version."""
    return dict(re.findall(r"^([A-Za-z0-9_.-]+)==(\S+)$", text, re.MULTILINE))


def known(packages: dict[str, str], database: str) -> list[str]:
    """`package==version: id, id` of each package with a vulnerability. OSError or ValueError where there is no answer."""
    asked = [{"package": {"name": name, "ecosystem": "PyPI"}, "version": version} for name, version in packages.items()]
    request = urllib.request.Request(
        database, json.dumps({"queries": asked}).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=SECONDS) as response:
        answers: list[dict[str, Any]] = json.load(response)["results"]
    found: list[str] = []
    for (name, version), answer in zip(packages.items(), answers, strict=True):
        ids = [one["id"] for one in answer.get("vulns", []) if one["id"] not in ACCEPTED]
        found += [f"{name}=={version}: {', '.join(ids)}"] if ids else []
    return found


def main(constraints: Path, database: str = DATABASE) -> int:
    """1 where something is known, else 0."""
    packages, told = pinned(constraints.read_text()), list[list[str] | str]()

    def ask() -> None:
        try:
            told.append(known(packages, database))
        except (OSError, ValueError, KeyError, TypeError) as error:
            told.append(str(error))

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(SECONDS)
    answer = told[0] if told else f"no answer in {SECONDS} s"
    if isinstance(answer, str):
        print(f"audit: not done, {database} cannot be reached ({answer})")
        return 0
    print("\n".join(answer) or f"audit: nothing is known against these {len(packages)} packages")
    return int(bool(answer))


if __name__ == "__main__":
    sys.exit(main(Path(__file__).parents[1] / "constraints.txt"))
