"""The audit says what is known, and never that nothing is when nobody answered."""

import json

import httpx
import pytest

from scripts import audit
from scripts.audit import CANARY, NoAnswerError, known

PACKAGES = [("alpha", "1.0"), ("beta", "2.0")]
VULNERABLE = {CANARY: ["PYSEC-2021-66"], ("beta", "2.0"): ["GHSA-1", "GHSA-2"]}


def service(vulnerable=VULNERABLE, change=lambda results: results):
    """A client of a stand-in for osv.dev."""

    def answer(request):
        if request.method == "GET":
            id = request.url.path.rpartition("/")[2]
            return httpx.Response(200, json={"id": id, "aliases": ["CVE-2"], "summary": f"about {id}"})
        queries = json.loads(request.content)["queries"]
        assert all(q["package"]["ecosystem"] == "PyPI" for q in queries)
        asked = [(q["package"]["name"], q["version"]) for q in queries]
        results = [{"vulns": [{"id": id} for id in vulnerable[p]]} if p in vulnerable else {} for p in asked]
        return httpx.Response(200, json={"results": change(results)})

    return httpx.Client(base_url="http://osv", transport=httpx.MockTransport(answer))


def broken(answer):
    return httpx.Client(base_url="http://osv", transport=httpx.MockTransport(answer))


def test_vulnerable_packages_are_found_and_sound_ones_are_not():
    assert known(PACKAGES, service()) == {("beta", "2.0"): ["GHSA-1", "GHSA-2"]}
    assert known(PACKAGES[:1], service()) == {}


def test_an_accepted_vulnerability_is_left_out_alone(monkeypatch):
    monkeypatch.setitem(audit.ACCEPTED, "GHSA-1", "not used")
    assert known(PACKAGES, service()) == {("beta", "2.0"): ["GHSA-2"]}


def test_a_vulnerability_is_told_in_a_line():
    assert audit.about("GHSA-1", service()) == "GHSA-1 (CVE-2): about GHSA-1"
    assert audit.about("GHSA-1", broken(lambda request: httpx.Response(500))) == "GHSA-1"


def refuse(request):
    raise httpx.ConnectError("no route")


SILENCES = {
    "offline": broken(refuse),
    "an error": broken(lambda request: httpx.Response(503)),
    "not found": broken(lambda request: httpx.Response(404)),
    "a login page": broken(lambda request: httpx.Response(200, text="<html>")),
    "another answer": broken(lambda request: httpx.Response(200, json=[])),
    "no results": broken(lambda request: httpx.Response(200, json={})),
    "results of another kind": broken(lambda request: httpx.Response(200, json={"results": [1, 2, 3]})),
    "too few results": service(change=lambda results: results[:-1]),
    "a service that knows nothing": service({}),
}


@pytest.mark.parametrize("how", SILENCES)
def test_no_answer_is_never_an_all_clear(how):
    with pytest.raises(NoAnswerError):
        known(PACKAGES, SILENCES[how])


@pytest.mark.slow
def test_offline_it_says_so_and_fails(capsys):
    assert audit.main("http://127.0.0.1:9") == 2
    out, err = capsys.readouterr()
    assert "could not reach the advisory service: nothing was checked" in err
    assert "0" not in out
