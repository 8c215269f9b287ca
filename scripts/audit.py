"""Hold everything the product installs against the known vulnerabilities at https://osv.dev.

    python -m scripts.audit

Exit status: 0 none is known, 1 some are, 2 it could not be found out. A service that answers but does not know
a vulnerability everybody knows counts as not asked: silence is no all-clear.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

import httpx

from scripts.licences import parts

SERVICE = "https://api.osv.dev"
CANARY = ("jinja2", "2.11.2")  # CVE-2020-28493 and more
ACCEPTED: dict[str, str] = {}  # id: why it does not concern us


class NoAnswerError(RuntimeError):
    """The advisory service did not answer, or not to the point."""


def known(packages: Sequence[tuple[str, str]], client: httpx.Client) -> dict[tuple[str, str], list[str]]:
    """Ids of the vulnerabilities known of each (name, version), accepted ones left out.

    Raises
    ------
    NoAnswerError
        If that could not be found out for all of them.
    """
    asked = [CANARY, *packages]
    queries = [{"package": {"name": n, "ecosystem": "PyPI"}, "version": v} for n, v in asked]
    try:
        reply = client.post("/v1/querybatch", json={"queries": queries})
        reply.raise_for_status()
        results = reply.json()["results"]
        found = [[entry["id"] for entry in result.get("vulns") or []] for result in results]
    except (httpx.HTTPError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise NoAnswerError(f"{type(error).__name__}: {error}") from error
    if len(found) != len(asked):
        raise NoAnswerError(f"asked about {len(asked)} packages, it answered for {len(found)}")
    if not found[0]:
        raise NoAnswerError(f"it knows nothing of {CANARY[0]} {CANARY[1]}, which is known to be vulnerable")
    vulnerable = {
        package: [id for id in ids if id not in ACCEPTED]
        for package, ids in zip(packages, found[1:], strict=True)
    }
    return {package: ids for package, ids in vulnerable.items() if ids}


def about(id: str, client: httpx.Client) -> str:
    """A line on a vulnerability: other names and summary; only its id where that can't be had."""
    try:
        entry = client.get(f"/v1/vulns/{id}").raise_for_status().json()
        return (
            f"{id} ({', '.join(entry.get('aliases') or ['no CVE'])}): {entry.get('summary') or 'no summary'}"
        )
    except (httpx.HTTPError, ValueError, AttributeError, TypeError):
        return id


def main(service: str | None = None) -> int:
    """Audit and tell."""
    argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    ).parse_args([] if service else None)
    packages = [(part.name, part.version) for part in parts()]
    with httpx.Client(base_url=service or os.environ.get("OSV_ENDPOINT") or SERVICE, timeout=60) as client:
        try:
            vulnerable = known(packages, client)
        except NoAnswerError as error:
            print(f"could not reach the advisory service: nothing was checked ({error})", file=sys.stderr)
            return 2
        for (name, version), ids in vulnerable.items():
            print(f"{name} {version}")
            for id in ids:
                print(f"    {about(id, client)}")
    print(f"{len(packages)} packages asked about, {len(vulnerable)} with known vulnerabilities")
    return 1 if vulnerable else 0


if __name__ == "__main__":
    sys.exit(main())
