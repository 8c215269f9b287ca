"""Replies as servers give them, files as they come out; and replies that lie."""

import base64
import http.server
import json
import threading

import pytest

import looper
from looper.export.loop_files import write_all
from looper.export.unpack import unpack
from looper.pipeline.maker import LoopMaker
from testkit import command_line
from testkit.fakes import FakeGenerator

NULLS = {f"variation_{k:02d}": None for k in range(4, 21)}


@pytest.fixture(scope="module")
def loops():
    wish = looper.LoopRequest("Café; seed: 9; bars: 3", bpm=93.7, variations=3, max_duration=4, seed=7)
    return LoopMaker(FakeGenerator()).make(wish)


@pytest.fixture(scope="module", params=["wav", "mp3"])
def made(request, loops, tmp_path_factory):
    """What `looper make` writes: bytes by name."""
    return {p.name: p.read_bytes() for p in write_all(loops, tmp_path_factory.mktemp("made"), request.param)}


def data_uri(content, media="audio/x-wav"):
    return f"data:{media};base64,{base64.b64encode(content).decode()}"


def output(contents, address=data_uri):
    return {f"variation_{k:02d}": address(content) for k, content in enumerate(contents, 1)} | NULLS


def written(folder):
    return {p.name: p.read_bytes() for p in folder.rglob("*")}


@pytest.fixture(scope="module")
def web(made):
    """A web server on loopback that has the files, and some odd addresses."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            name = self.path[1:].partition("?")[0]
            if name == "moved":
                self.send_response(302)
                self.send_header("Location", "/" + next(iter(made)))
                return self.end_headers()
            content = made.get(name)
            self.send_response(200 if content else 404)
            self.end_headers()
            return self.wfile.write(content or b"gone")

        def log_message(self, *args):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize("whole_reply", [True, False], ids=["Cog's reply", "what cog predict prints"])
def test_data_uris_become_the_files_that_make_would_have_written(made, tmp_path, whole_reply):
    inner = output(made.values())
    reply = {"id": None, "status": "succeeded", "metrics": {}, "output": inner} if whole_reply else inner
    files = unpack(json.dumps(reply), tmp_path / "a" / "loops")
    assert [file.name for file in files] == list(made)
    assert written(tmp_path / "a" / "loops") == made


def test_the_links_of_a_replicate_prediction_are_downloaded_and_redirects_followed(made, tmp_path, web):
    links = [f"{web}/moved", *(f"{web}/{name}?token=x" for name in list(made)[1:])]
    reply = {"id": "x", "status": "succeeded", "input": {}, "output": output(links, str), "urls": {}}
    unpack(json.dumps(reply), tmp_path)
    assert written(tmp_path) == made


def test_files_of_no_tags_or_the_same_tags_are_called_as_in_the_reply(loops, tmp_path):
    import io

    import soundfile

    bare = io.BytesIO()
    soundfile.write(bare, loops[0].samples, 32000, format="WAV")
    unpack(json.dumps({"take_1": data_uri(bare.getvalue())}), tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["take_1.wav"]
    same = loops[0].encode("flac")
    unpack(json.dumps({"b_1": data_uri(same), "a_1": data_uri(same)}), tmp_path / "same")
    assert sorted(p.name for p in (tmp_path / "same").iterdir()) == ["a_1.flac", "b_1.flac"]


def reply_of(loops, **changes):
    good = data_uri(loops[0].encode("wav"))
    return json.dumps({"output": {"variation_01": good, **changes}})


@pytest.mark.parametrize(
    ("reply", "words"),
    [
        ("", "the reply is empty: save the server's answer as it came"),
        ("<html>", "this is no JSON .*: save the server's answer"),
        ('{"output": {"variation_01": "data:audio', "this is no JSON"),
        ("[" * 100_000, "this is no JSON .*nested too deeply"),
        (b"\xff\xfe\x00", "this is no JSON"),
        ("[]", "no JSON object but a list"),
        (
            '{"status": "failed", "error": "out of memory", "output": null}',
            "failed: out of memory; ask for it",
        ),
        ('{"status": "canceled"}', "was canceled"),
        (
            '{"status": "processing", "output": null}',
            "not over yet .status processing.: fetch its reply again",
        ),
        (
            '{"detail": [{"msg": "39 is less than the minimum of 40"}]}',
            "refused the request: .*minimum of 40",
        ),
        ('{"output": "https://example.org/a.wav"}', "no object of loops but a text: is it another model's"),
        ('{"output": null}', "no object of loops but null"),
        ('{"output": {"variation_01": null}}', "no loops in this reply"),
        ('{"output": {"variation_01": "file:///etc/passwd"}}', "variation_01 is neither a data URI nor"),
        ('{"output": {"variation_01": "/etc/passwd"}}', "variation_01 is neither a data URI nor"),
        ('{"output": {"variation_01": 7}}', "variation_01 is neither a data URI nor"),
        (json.dumps({f"v_{k}": "data:" for k in range(101)}), "holds 101 files, and at most 100"),
    ],
)
def test_a_reply_without_loops_is_a_sentence_with_the_remedy(tmp_path, reply, words):
    with pytest.raises(ValueError, match=words):
        unpack(reply, tmp_path / "loops")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "name", ["../../evil", "/etc/evil", "..", ".", "a/b", "a\\b", "C:evil", ".hidden", "", "a\0b"]
)
def test_a_name_that_climbs_out_of_the_folder_is_refused_and_nothing_is_written(loops, tmp_path, name):
    with pytest.raises(ValueError, match="which no file here may be called"):
        unpack(reply_of(loops, **{name: data_uri(loops[1].encode("wav"))}), tmp_path / "deep" / "loops")
    assert list(tmp_path.iterdir()) == []


def test_tags_that_lie_make_no_odd_names(loops, tmp_path):
    from dataclasses import replace

    prompt = "../../x\\y; seed: 1; variation: 1; model: m; bpm: 1e999; bars: inf; beats_per_bar: 0"
    liar = replace(loops[0], info={**loops[0].info, "prompt": prompt, "model": "..//..; bpm: 5"})
    (file,) = unpack(json.dumps({"variation_01": data_uri(liar.encode("wav"))}), tmp_path / "out")
    assert file.parent == tmp_path / "out" and file.is_file()
    assert list(tmp_path.iterdir()) == [tmp_path / "out"]


@pytest.mark.parametrize(
    ("broken", "words"),
    [
        ("data:audio/x-wav;base64,UklG*", r"variation_02 is a broken data URI"),
        ("data:audio/x-wav;base64,UklGR", r"variation_02 is a broken data URI"),
        ("data:audio/x-wav,RIFF", r"broken data URI \(no base64 in it\)"),
        ("data:", r"broken data URI"),
        (data_uri(b"#!/bin/sh\necho hello\n"), r"variation_02 is no WAV, MP3, FLAC or Ogg file"),
        (data_uri(b""), r"variation_02 is no WAV, MP3, FLAC or Ogg file"),
        ("cut", r"variation_02 is cut short"),
    ],
)
def test_with_one_broken_loop_nothing_is_written(loops, tmp_path, broken, words):
    uri = data_uri(loops[1].encode("wav")[:5000]) if broken == "cut" else broken
    with pytest.raises(ValueError, match=words):
        unpack(reply_of(loops, variation_02=uri), tmp_path / "loops")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("{web}/nothing.wav?secret=1", "127.0.0.1:[0-9]+/nothing.wav answers 404 .*for an hour"),
        ("http://127.0.0.1:1/a.wav", "127.0.0.1:1/a.wav cannot be reached .*check the network"),
        ("http://", "cannot be reached"),
        ("http://[", "cannot be reached"),
        ("https://user:secret@127.0.0.1:1/x", "https://127.0.0.1:1/x cannot be reached"),
    ],
)
def test_a_url_that_gives_nothing_is_a_sentence_without_its_secrets(loops, tmp_path, web, url, words):
    with pytest.raises(OSError, match=words) as raised:
        unpack(reply_of(loops, variation_02=url.format(web=web)), tmp_path / "loops")
    assert "secret" not in str(raised.value)
    assert list(tmp_path.iterdir()) == []


def test_what_is_far_too_large_is_refused_before_it_fills_memory(loops, tmp_path, web, monkeypatch):
    monkeypatch.setattr("looper.export.unpack.MOST_FILE_BYTES", 1000)
    with pytest.raises(ValueError, match="variation_01 is over 0 MB, and no loop is"):
        unpack(reply_of(loops), tmp_path / "loops")
    with pytest.raises(ValueError, match="variation_01 is over"):
        unpack(json.dumps({"variation_01": f"{web}/moved"}), tmp_path / "loops")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_the_command_reads_a_file_or_a_pipe_and_names_what_it_wrote(loops, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    reply = reply_of(loops)
    (tmp_path / "reply.json").write_text(reply)
    one = command_line.run("unpack", "reply.json", "--out", "one")
    two = command_line.process("unpack", "-", "--out", "two", "--json", input=reply)
    assert one.returncode == two.returncode == 0, one.stderr + two.stderr
    assert (tmp_path / one.stdout.strip()).is_file()
    assert (tmp_path / json.loads(two.stdout)["files"][0]).read_bytes() == loops[0].encode("wav")
    for words, said in (
        (["none.json"], "looper: no such file: none.json"),
        (["reply.json", "--out", "reply.json/x"], "choose another folder with --out"),
    ):
        bad = command_line.run("unpack", *words)
        assert bad.returncode == 1 and said in bad.stderr and "Traceback" not in bad.stderr


def test_what_is_there_already_stays_as_it_is(tmp_path, made):
    one = next(iter(made.values()))
    plain = lambda content: json.dumps({"output": {"variation_01": data_uri(content)}})
    [name] = made.keys() & {file.name for file in unpack(plain(one), tmp_path)}
    (tmp_path / name).write_bytes(b"mine")
    [written_to] = unpack(plain(one), tmp_path)
    assert (tmp_path / name).read_bytes() == b"mine" and written_to.read_bytes() == one
    assert unpack(plain(one), tmp_path) == [written_to]  # the same bytes are written once


def test_names_that_differ_in_case_alone_get_a_number(tmp_path, made):
    content = next(iter(made.values()))
    reply = {"output": {name: data_uri(content) for name in ("a", "A", "b")}}
    names = [file.name for file in unpack(json.dumps(reply), tmp_path)]
    assert len({name.lower() for name in names}) == 3 and len(written(tmp_path)) == 3
