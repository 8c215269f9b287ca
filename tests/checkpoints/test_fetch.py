"""Fetching: pinned, gone on with after an interruption, one at a time, and never half of a folder."""

import gzip
import hashlib
import io
import json
import pickle
import shutil
import signal
import socket
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import httpx
import pytest
import torch

from looper.checkpoints import download, fetch, load, manifest, sources, store
from looper.checkpoints.convert import SHARED_CODEC
from looper.checkpoints.sources import WeightsError
from looper.runtime import paths
from testkit import stand_ins
from testkit.hostile import Malicious
from testkit.hub import LARGE, MINI, MUSICGEN, REVISIONS, T5

BIG = "state_dict.bin"


def get(lines=None):
    return fetch.fetch("medium", progress=(lines if lines is not None else []).append)


def left(root):
    return sorted(p.name for p in root.iterdir() if p.name != fetch.LOCK)


def scratch(hub, name=BIG, repository=MUSICGEN):
    """Where an interrupted download of a file lies."""
    folder = repository.replace("/", "--") + "@" + REVISIONS[repository]
    return hub.root / ".fetch-medium" / folder / name


def outdate(hub):
    """Let the folder that is there be one of other files, so that it has to be fetched again."""
    manifest.write_manifest(hub.root / "medium", "medium", source={})


def pin(hub, change):
    sources = json.loads((hub.root / "sources.json").read_text())
    change(sources["repositories"])
    (hub.root / "sources.json").write_text(json.dumps(sources))


def without_network(monkeypatch):
    monkeypatch.setattr(socket.socket, "connect", lambda *a: pytest.fail("reached for the network"))
    monkeypatch.setattr(socket, "getaddrinfo", lambda *a, **k: pytest.fail("asked for an address"))


# --- pins ------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_first_fetch_records_what_it_got_and_the_next_must_match(hub):
    lines = []
    out = get(lines)
    assert out == hub.root / "medium"
    assert load.load(out).name == "medium"
    assert any(BIG in line for line in lines)
    recorded = json.loads((hub.root / "sources.json").read_text())["repositories"]
    for (repository, name), data in hub.files.items():
        assert recorded[repository]["revision"] == REVISIONS[repository]
        assert recorded[repository]["files"][name] == {
            "size": len(data),
            "sha256": hashlib.sha256(data).hexdigest(),
        }
    assert json.loads((out / "manifest.json").read_text())["source"] == recorded
    assert left(hub.root) == ["medium", "sources.json"]
    outdate(hub)
    get()
    outdate(hub)
    hub.files[MUSICGEN, BIG] += b"!"
    with pytest.raises(WeightsError, match=r"state_dict.bin at a* is not the pinned file"):
        get()
    manifest.verify(out)


def test_another_revision_than_the_pinned_is_refused(hub):
    pin(hub, lambda repositories: repositories[T5].update(revision="c" * 40))
    with pytest.raises(WeightsError, match=r"gave revision b*, not c*"):
        get()
    assert left(hub.root) == ["sources.json"]


def test_a_file_that_the_repository_lacks_is_named(hub):
    del hub.files[T5, "spiece.model"]
    with pytest.raises(WeightsError, match=r"t5-base at b* has no spiece\.model"):
        get()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["state_dict.bin", "compression_state_dict.bin"])
@pytest.mark.parametrize("how", ["truncated", "grown", "other content of the same size", "a bomb"])
def test_what_is_not_the_pinned_file_is_refused_before_it_is_unpickled(hub, tmp_path, monkeypatch, name, how):
    get()
    outdate(hub)
    right = hub.files[MUSICGEN, name]
    mark = tmp_path / "executed"
    hub.files[MUSICGEN, name] = {
        "truncated": right[: len(right) // 2],
        "grown": right + b"\0" * 1000,
        "other content of the same size": bytes(len(right)),
        "a bomb": pickle.dumps(Malicious(mark)),
    }[how]
    monkeypatch.setattr(torch, "load", lambda *a, **k: pytest.fail("unpickled an unpinned file"))
    with pytest.raises(WeightsError, match=name):
        get()
    assert not mark.exists()
    manifest.verify(hub.root / "medium")
    assert left(hub.root) == ["medium", "sources.json"]


def test_only_known_models_are_fetched():
    with pytest.raises(WeightsError, match="knows large, medium"):
        fetch.fetch("huge")


def test_the_committed_pins_name_whole_revisions():
    pins = sources.read_sources(paths.WEIGHTS)
    for name in ("small", "medium", "large"):
        for repository in pins["models"][name].values():
            assert len(pins["repositories"][repository]["revision"]) == 40


def test_the_hubs_token_stays_with_the_hub(hub):
    get()
    assert len(hub.tokens) == len(hub.files) and set(hub.tokens) == {None}


# --- interruptions ---------------------------------------------------------------------------------


def test_a_connection_that_breaks_off_is_gone_on_with_where_it_broke(hub):
    size = len(hub.files[MUSICGEN, BIG])
    hub.break_after[BIG] = size // 4 + 1
    get()
    assert [start for name, start, _ in hub.requests if name == BIG] == [
        None,
        *(f"bytes={k * (size // 4 + 1)}-" for k in (1, 2, 3)),
    ]
    assert hub.sent(BIG) == size


def test_a_connection_that_brings_nothing_is_given_up_and_what_came_is_kept(hub):
    pin(hub, lambda r: r[MUSICGEN]["files"].update({BIG: {"size": None, "sha256": None}}))
    size = len(hub.files[MUSICGEN, BIG])
    hub.break_after[BIG] = 0
    with pytest.raises(WeightsError, match=r"could not fetch facebook/musicgen-medium.*goes on from"):
        get()
    assert len(hub.requests) == 4
    scratch(hub).write_bytes(hub.files[MUSICGEN, BIG][:1000])
    with pytest.raises(WeightsError, match="could not fetch"):
        get()
    assert scratch(hub).stat().st_size == 1000
    hub.break_after.clear()
    get()
    assert hub.sent(BIG) == size - 1000


def test_a_connection_that_stalls_is_left_and_gone_on_with(hub, monkeypatch):
    half = len(hub.files[MUSICGEN, BIG]) // 2 + 1
    hub.break_after[BIG] = half
    hub.stall.add(BIG)
    monkeypatch.setattr(fetch, "TIMEOUT", 1.0)
    get()
    assert [start for name, start, _ in hub.requests if name == BIG] == [None, f"bytes={half}-"]
    manifest.verify(hub.root / "medium")


def killed(hub, name, **environment):
    """Kill a fetching process in the middle of a file; return the bytes of it that were sent."""
    half = len(next(data for (_, n), data in hub.files.items() if n == name)) // 2
    hub.break_after[name] = half
    hub.stall.add(name)
    process = hub.process(**environment)
    path = scratch(hub, name, T5 if name == "model.safetensors" else MUSICGEN)
    deadline = time.monotonic() + 120
    while not path.is_file() or path.stat().st_size < half:
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    hub.stall.clear()
    hub.break_after.clear()
    return half


@pytest.mark.slow
@pytest.mark.parametrize("name", LARGE)
def test_a_killed_fetch_is_gone_on_with_by_the_next_and_blocks_nobody(hub, name):
    sent = killed(hub, name)
    before = list(hub.requests)
    get()
    again = hub.requests[len(before) :]
    right = {n: len(data) for (_, n), data in hub.files.items()}
    assert {n: (start, size) for n, start, size in again if n in LARGE} == {
        **{n: (None, right[n]) for n in LARGE if n not in {b for b, *_ in before}},
        name: (f"bytes={sent}-", right[name] - sent),
    }
    manifest.verify(hub.root / "medium")
    assert left(hub.root) == ["medium", "sources.json"]


@pytest.mark.slow
@pytest.mark.parametrize(
    "damage",
    [
        lambda data: b"\0" * 1000,
        lambda data: data + b"x",
        lambda data: data[:-1] + bytes([data[-1] ^ 1]),
        lambda data: data[::-1],
        lambda data: data[1:500],
    ],
    ids=["other bytes", "too long", "a wrong last byte", "wrong throughout", "a hole"],
)
def test_a_damaged_partial_file_is_thrown_away_and_fetched_once_more(hub, damage):
    right = hub.files[MUSICGEN, BIG]
    scratch(hub).parent.mkdir(parents=True)
    scratch(hub).write_bytes(damage(right))
    get()
    assert hub.requests[-1][0] != BIG
    assert [r for r in hub.requests if r[0] == BIG][-1] == (BIG, None, len(right))
    assert sum(name == BIG for name, *_ in hub.requests) <= 2
    manifest.verify(hub.root / "medium")


def test_a_damaged_partial_file_of_a_file_that_is_refused_does_not_loop(hub):
    right = hub.files[MUSICGEN, BIG]
    pin(hub, lambda r: r[MUSICGEN]["files"][BIG].update(sha256="0" * 64))
    scratch(hub).parent.mkdir(parents=True)
    scratch(hub).write_bytes(right[:1000])
    with pytest.raises(WeightsError, match="not the pinned file"):
        get()
    assert [r[1:] for r in hub.requests] == [("bytes=1000-", len(right) - 1000), (None, len(right))]
    assert left(hub.root) == ["sources.json"]


def test_a_file_that_is_there_whole_is_not_asked_for_again(hub):
    scratch(hub).parent.mkdir(parents=True)
    scratch(hub).write_bytes(hub.files[MUSICGEN, BIG])
    get()
    assert hub.sent(BIG) == 0


def test_a_hub_that_knows_no_ranges_is_asked_for_the_whole(hub):
    hub.ignore_ranges = True
    scratch(hub).parent.mkdir(parents=True)
    scratch(hub).write_bytes(hub.files[MUSICGEN, BIG][:1000])
    get()
    assert [r for r in hub.requests if r[0] == BIG] == [(BIG, None, len(hub.files[MUSICGEN, BIG]))]
    manifest.verify(hub.root / "medium")


def test_a_file_without_end_is_left_when_it_is_too_long(hub, monkeypatch):
    right = hub.files[MUSICGEN, BIG]
    pin(hub, lambda r: r[MUSICGEN]["files"][BIG].update(size=len(right)))
    hub.files[MUSICGEN, BIG] = right + bytes(20_000_000)
    longest = 0
    unlink = Path.unlink

    def watched(path, **kwargs):
        nonlocal longest
        if path.name == BIG:
            longest = max(longest, path.stat().st_size)
        unlink(path, **kwargs)

    monkeypatch.setattr(Path, "unlink", watched)
    with pytest.raises(WeightsError, match="not the pinned file"):
        get()
    assert len(right) < longest < len(right) + 2_000_000


def test_what_was_kept_of_another_revision_is_removed(hub):
    old = scratch(hub).parent.with_name("facebook--musicgen-medium@" + "d" * 40)
    old.mkdir(parents=True)
    (old / BIG).write_bytes(b"x" * 1000)
    hub.break_after[BIG] = 0
    with pytest.raises(WeightsError, match="could not fetch"):
        get()
    assert not old.exists()


def test_an_interrupted_fetch_leaves_the_old_folder_and_the_next_goes_on(hub):
    get()
    outdate(hub)

    def interrupt(line):
        if "compression" in line:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fetch.fetch("medium", progress=interrupt)
    manifest.verify(hub.root / "medium")
    sent = hub.sent(BIG)
    get()
    assert hub.sent(BIG) == sent
    assert left(hub.root) == ["medium", "sources.json"]


def test_a_fetch_interrupted_while_converting_converts_again_without_a_download(hub, monkeypatch):
    def interrupt(*args):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("looper.checkpoints.convert._convert_t5", interrupt)
        get()
    sent = hub.sent(BIG)
    get()
    assert hub.sent(BIG) == sent
    manifest.verify(hub.root / "medium")
    assert left(hub.root) == ["medium", "sources.json"]


# --- two at once -----------------------------------------------------------------------------------


@pytest.mark.slow
def test_two_processes_fetch_one_after_the_other_and_each_file_once(hub):
    hub.stall.add(BIG)
    first = hub.process()
    deadline = time.monotonic() + 120
    while not hub.requests and time.monotonic() < deadline:
        time.sleep(0.02)
    second = hub.process()
    waiting = ""
    while "waiting" not in waiting:
        line = second.stdout.readline()
        assert line, waiting
        waiting += " " + line.strip()
    hub.stall.clear()
    outputs = [process.communicate(timeout=120)[0] for process in (first, second)]
    assert [first.returncode, second.returncode] == [0, 0], outputs
    assert "another fetch into" in waiting
    assert "here already" in outputs[1].replace("\n", " ")
    assert {name: hub.sent(name) for _, name in hub.files} == {n: len(d) for (_, n), d in hub.files.items()}
    manifest.verify(hub.root / "medium")
    assert left(hub.root) == ["medium", "sources.json"]


# --- disk ------------------------------------------------------------------------------------------


def test_a_disk_without_room_is_refused_before_anything_is_fetched(hub, monkeypatch):
    total = sum(map(len, hub.files.values()))
    usage = shutil.disk_usage(hub.root)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=2 * total - 1))
    with pytest.raises(WeightsError, match=r"medium needs .* GB free in .*weights.*LOOPER_WEIGHTS"):
        get()
    assert not hub.requests
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=2 * total))
    get()


def test_room_is_needed_for_what_is_still_to_come_only_and_what_is_kept_stays(hub, monkeypatch):
    total, kept = sum(map(len, hub.files.values())), len(hub.files[MUSICGEN, BIG])
    scratch(hub).parent.mkdir(parents=True)
    scratch(hub).write_bytes(hub.files[MUSICGEN, BIG])
    usage = shutil.disk_usage(hub.root)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=2 * total - kept - 1))
    with pytest.raises(WeightsError, match="GB free"):
        get()
    assert scratch(hub).stat().st_size == kept
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=2 * total - kept))
    get()


def test_a_disk_that_fills_all_the_same_says_so_and_the_next_fetch_goes_on(hub, monkeypatch):
    def full(*args):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("looper.checkpoints.download._tell", full)
        with pytest.raises(WeightsError, match=r"cannot write to .*No space left on device; make room"):
            get()
    kept = scratch(hub).stat().st_size
    assert kept
    get()
    assert hub.requests[1][1] == f"bytes={kept}-" or kept == len(hub.files[MUSICGEN, BIG])


def test_a_root_that_cannot_be_made_is_named(hub, monkeypatch):
    (hub.root / "file").write_text("")
    with pytest.raises(WeightsError, match=r"cannot write to .*file/deeper.*LOOPER_WEIGHTS"):
        fetch.fetch("medium", root=hub.root / "file" / "deeper", progress=lambda line: None)


# --- offline ---------------------------------------------------------------------------------------


def test_an_unreachable_hub_is_an_error_in_plain_words(hub, monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(WeightsError, match=r"could not fetch facebook/musicgen-medium.*network"):
        get()


def test_weights_that_are_here_are_got_without_the_network(hub, monkeypatch):
    get()
    without_network(monkeypatch)
    lines = []
    assert get(lines) == hub.root / "medium"
    assert "here already" in lines[-1]


def test_a_damaged_folder_is_fetched_again(hub):
    out = get()
    (out / "lm.safetensors").write_bytes(b"")
    get()
    manifest.verify(out)


def test_weights_at_hand_are_found_and_loaded_without_the_network(hub, monkeypatch):
    get()
    without_network(monkeypatch)
    assert load.load(store.find("medium")).name == "medium"


def test_without_weights_and_network_it_is_said_how_to_get_them(hub, monkeypatch):
    without_network(monkeypatch)
    with pytest.raises(WeightsError, match="run `looper weights get medium`"):
        store.find("medium")


# --- a hub that lies -------------------------------------------------------------------------------


def test_a_redirect_from_tls_to_an_open_connection_is_refused():
    wanted = download.Wanted("a/b", "c" * 40, "x.bin", "https://hub/x.bin", 3, None)

    def answer(request):
        if request.url.scheme == "https":
            return httpx.Response(302, headers={"Location": "http://storage/x.bin"})
        return httpx.Response(200, content=b"abc")

    with (
        httpx.Client(transport=httpx.MockTransport(answer), follow_redirects=True) as client,
        tempfile.TemporaryDirectory() as here,
        pytest.raises(WeightsError, match=r"over an open connection \(http://storage/x\.bin\)"),
    ):
        download.download(wanted, Path(here) / "x.bin", client, lambda *_: None)


@pytest.mark.slow
@pytest.mark.parametrize(
    "where", ["ftp://127.0.0.1/x", "file:///etc/passwd", "http://127.0.0.1:1/x", "//", "x" * 5000]
)
def test_a_redirect_that_leads_nowhere_is_said_and_nothing_comes_of_it(hub, where):
    hub.elsewhere = where
    with pytest.raises(WeightsError, match=r"could not fetch facebook/musicgen-medium"):
        get()
    assert not (hub.root / "medium").exists()


def test_redirects_in_a_circle_end(hub):
    hub.elsewhere = f"{hub.address}/{MUSICGEN}/resolve/x/{BIG}"
    with pytest.raises(WeightsError, match=r"could not fetch .*[Rr]edirect"):
        get()


@pytest.mark.slow
@pytest.mark.parametrize("encoding", ["gzip", "deflate, gzip", "br"])
def test_what_comes_packed_is_refused_and_not_unpacked(hub, encoding):
    for name, data in hub.files.items():
        hub.files[name] = gzip.compress(bytes(10**7)) if len(data) < 10**5 else data
    hub.headers["Content-Encoding"] = encoding
    with pytest.raises(WeightsError, match="came packed"):
        get()
    assert not (hub.root / "medium").exists()


def test_a_length_that_lies_changes_nothing_of_what_is_wanted(hub):
    hub.claimed = 10
    with pytest.raises(WeightsError, match=r"not the pinned file|could not fetch"):
        get()
    hub.claimed = 10**12  # the connection ends too early, with all that is wanted
    get()
    manifest.verify(hub.root / "medium")


def test_a_byte_now_and_then_is_left(hub, monkeypatch):
    monkeypatch.setattr(download, "SLOW_SECONDS", 0.2)
    hub.drip = 0.01
    hub.files = {name: data[:200] for name, data in hub.files.items()}
    with pytest.raises(WeightsError, match=r"could not fetch .*too slowly"):
        get()


@pytest.mark.parametrize(
    "info",
    [
        {},
        {"id": 1},
        {"id": "x", "sha": "../../x", "siblings": []},
        {"id": "x", "sha": "a" * 40, "siblings": [1]},
    ],
)
def test_a_hub_that_makes_no_sense_is_refused_and_names_no_folder(hub, info):
    hub.info = info
    pin(hub, lambda r: [repository.update(revision=None) for repository in r.values()])
    with pytest.raises(WeightsError, match=r"hub|has no"):
        get()
    assert sorted(path.name for path in hub.root.parent.iterdir() if path.name != "weights") == []


# --- published models of other kinds ---------------------------------------------------------------


@pytest.fixture
def stereo_hub(hub, monkeypatch, tmp_path):
    """The hub with a stereo model that, as the published ones, only names its codec; nobody has pinned it."""
    published = stand_ins.publish(tmp_path / "stereo", replace(MINI, stereo=True))
    repository = "facebook/musicgen-stereo-small"
    pointer = io.BytesIO()
    torch.save({"pretrained": SHARED_CODEC, "exported": True, "version": "1.3.0"}, pointer)
    hub.files[repository, BIG] = (published / BIG).read_bytes()
    hub.files[repository, "compression_state_dict.bin"] = pointer.getvalue()
    monkeypatch.setitem(REVISIONS, repository, "d" * 40)
    known = json.loads((hub.root / "sources.json").read_text())
    known["models"]["stereo-small"] = {"published": repository, "t5": T5, "codec": MUSICGEN}
    known["repositories"][repository] = {
        "revision": None,
        "files": {n: {"size": None, "sha256": None} for n in (BIG, "compression_state_dict.bin")},
    }
    (hub.root / "sources.json").write_text(json.dumps(known))
    return hub


@pytest.mark.slow
def test_a_stereo_model_that_names_its_codec_gets_it_from_another_repository_alone(stereo_hub):
    lines = []
    out = fetch.fetch("stereo-small", progress=lines.append)
    model = load.load(out)
    assert (model.channels, model.lm.n_q) == (2, 8)
    assert stereo_hub.sent(BIG) == len(stereo_hub.files["facebook/musicgen-stereo-small", BIG])
    assert any("no revision of facebook/musicgen-stereo-small is pinned yet" in line for line in lines)


def test_what_a_fetch_takes_of_a_repository_forgets_nothing_of_its_other_files(stereo_hub):
    fetch.fetch("stereo-small", progress=lambda line: None)
    recorded = json.loads((stereo_hub.root / "sources.json").read_text())["repositories"]
    assert recorded["facebook/musicgen-stereo-small"]["revision"] == "d" * 40
    assert recorded[MUSICGEN]["files"][BIG] == {"size": None, "sha256": None}
    assert recorded[MUSICGEN]["files"]["compression_state_dict.bin"]["size"] > 0
    lines = []
    fetch.fetch("stereo-small", progress=lines.append)
    assert "is here already" in lines[-1]
    manifest.verify(get())


def test_the_published_models_are_known_by_name_and_pinned_where_a_revision_is_known():
    known = json.loads((paths.WEIGHTS / "sources.json").read_text())
    assert {
        "melody",
        "melody-large",
        "stereo-small",
        "stereo-medium",
        "stereo-large",
        "stereo-melody",
    } <= set(known["models"])
    for name, parts in known["models"].items():
        assert parts["published"] == f"facebook/musicgen-{name}"
        for repository in parts.values():
            pin = known["repositories"][repository]
            assert pin["revision"] is None or len(pin["revision"]) == 40
        if parts.get("codec"):
            assert (
                known["repositories"][parts["codec"]]["files"]["compression_state_dict.bin"]["size"]
                == 236_001_935
            )
