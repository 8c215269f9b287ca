import json

import pytest

from looper.batch.requests import BadLinesError, draw_seeds, read_requests, read_text
from looper.request import LoopRequest


def reasons(text):
    with pytest.raises(BadLinesError) as caught:
        read_text(text)
    return {line.number: line.reason for line in caught.value.lines}


def test_csv_and_json_lines_of_the_same_wishes_are_the_same_requests():
    table = (
        'prompt,bpm,variations,guidance,seed,format,model\n"house, deep",124,2,4.5,7,mp3,tiny\ntechno,,,,,,\n'
    )
    lines = [
        {
            "prompt": "house, deep",
            "bpm": 124,
            "variations": 2,
            "guidance": 4.5,
            "seed": 7,
            "format": "mp3",
            "model": "tiny",
        },
        {"prompt": "techno", "bpm": None},
    ]
    first, second = read_text(table)
    assert first.request == LoopRequest("house, deep", 124, 2, cfg_coef=4.5, seed=7)
    assert (first.model, first.format) == ("tiny", "mp3")
    assert second.request == LoopRequest("techno")
    assert (second.model, second.format) == ("medium", "wav")
    parsed = read_text("\n".join(map(json.dumps, lines)))
    assert [line.id for line in parsed] == [first.id, second.id]
    assert [line.number for line in parsed] == [1, 2] and [first.number, second.number] == [2, 3]


def test_every_bad_line_is_named_by_its_number_and_reason():
    text = (
        "prompt,bpm,variations,seed,format\n"
        "house,124,1,1,wav\n"
        "house,999,1,1,wav\n"
        "\n"
        "house,fast,1,1,wav\n"
        ",120,1,1,wav\n"
        "house,120,2.5,1,wav\n"
        "house,120,1,1,aiff\n"
        "house,120,1,1,wav,more\n"
    )
    found = reasons(text)
    assert set(found) == {3, 5, 6, 7, 8, 9}
    assert found[3] == "bpm must be between 40 and 300, got 999"
    assert found[5] == "bpm must be a number, got 'fast'"
    assert found[6].startswith("prompt is missing")
    assert found[7].startswith("variations must be a whole number")
    assert found[8].startswith("format must be one of wav, mp3, flac, ogg")
    assert "6 cells" in found[9] and "quotes" in found[9]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("{", "is not JSON"),
        ('{"prompt": "x"', "is not JSON"),
        ("[1]", "must be an object"),
        ("[" * 100_000, "is not JSON"),
        ('{"prompt": "x", "bpm": "124"}', "bpm must be a finite number"),
        ('{"prompt": "x", "bpm": NaN}', "bpm must be a finite number"),
        ('{"prompt": "x", "tempo": 124}', "'tempo' is no field"),
        ('{"prompt": "x", "model": 3}', "model must be text"),
        ('{"prompt": 3}', "prompt must be text"),
        ('{"prompt": "x", "bars": 5}', "bars must be 1, 2, 4, 8 or another power of two, or 3 or 6, got 5"),
        ('{"prompt": "x", "bars": 32, "bpm": 60}', "bars cannot be 32 in at most 20 s: they last 128 s"),
        ('{"prompt": "x", "bars": 4, "max_duration": 5}', "bars cannot be 4 in at most 5 s"),
        ('{"prompt": "x", "key": "H"}', "key must be a note and major or minor"),
        ('{"prompt": "x", "rate": 96000}', "rate must be 32000, 44100 or 48000, got 96000"),
        ('{"prompt": "x", "guidance": 4, "cfg_coef": 8}', "guidance and cfg_coef do not go together"),
    ],
)
def test_what_no_line_can_say_is_refused_in_its_own_words(line, words):
    found = reasons('{"prompt": "fine"}\n' + line)
    assert list(found) == [2] and words in found[2]


def test_a_length_in_bars_gives_loops_of_exactly_that_length():
    for bars, bpm, beats in ((1, 300, 4), (3, 93.7, 4), (8, 128, 4), (2, 47.3, 3), (4, 299.9, 7)):
        (line,) = read_requests([{"prompt": "x", "bpm": bpm, "bars": bars, "beats_per_bar": beats}])
        assert line.request.beats == bars * beats
    (read,) = read_text("prompt,bars\nx,6\n")
    assert (read.request.bars, read.request.beats) == (6, 24)


def test_a_line_without_bars_keeps_the_id_that_it_had_before_there_were_any():
    (line,) = read_text('{"prompt": "house", "bpm": 124, "seed": 1}')
    assert "bars" not in line.fields and line.id == "1c90303fb6e3b9bd"


def test_a_quoted_prompt_over_several_lines_does_not_shift_the_numbers():
    assert list(reasons('prompt,bpm\n"deep\nhouse",124\ntechno,5\n')) == [4]


def test_a_header_with_an_unknown_column_is_refused_by_name():
    with pytest.raises(ValueError, match="'tempo' is no field"):
        read_text("prompt,tempo\nhouse,124\n")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("prompt;bpm\nhouse;124\n", "with commas between them"),
        ("prompt\tbpm\nhouse\t124\n", "with commas between them"),
        ('[{"prompt": "house"}]', "a JSON list: write each of its objects on a line of its own"),
    ],
)
def test_a_file_of_another_kind_is_refused_with_the_remedy(text, words):
    with pytest.raises(ValueError, match=words):
        read_text(text)


def test_no_file_is_said_with_what_to_name(tmp_path):
    for path in (tmp_path, tmp_path / "none.csv"):
        with pytest.raises(OSError, match=r"no such file: .*: name a CSV or JSON Lines file"):
            read_requests(path)


@pytest.mark.parametrize("text", ["", "\n\n", "prompt,bpm\n"])
def test_no_request_at_all_is_said(text):
    with pytest.raises(ValueError, match="there is no request"):
        read_text(text)


def test_a_file_of_another_encoding_is_refused_with_its_line(tmp_path):
    path = tmp_path / "r.csv"
    path.write_bytes("prompt,bpm\nhouse,124\ncafé,120\n".encode("latin-1"))
    with pytest.raises(ValueError, match=r"not UTF-8 \(line 3\)"):
        read_requests(path)


def test_a_spreadsheets_byte_order_mark_is_no_part_of_the_header(tmp_path):
    path = tmp_path / "r.csv"
    path.write_text("prompt,bpm\nhouse,124\n", encoding="utf-8-sig")
    assert read_requests(path)[0].request.bpm == 124


def test_seeds_are_drawn_once_for_a_batch_and_differ_between_equal_lines():
    lines = read_text("prompt,seed\nhouse,\nhouse,-1\ntechno,\nhouse,5\n")
    drawn = draw_seeds(lines, "secret")
    seeds = [line.request.seed for line in drawn]
    assert len(set(seeds)) == 4 and seeds[3] == 5 and min(seeds) >= 0
    assert draw_seeds(lines, "secret") == drawn
    assert [line.request.seed for line in draw_seeds(lines, "other")][:3] != seeds[:3]
    fewer = draw_seeds(lines[2:], "secret")  # what stands before it does not change a line's seed
    assert fewer[0].request.seed == seeds[2]


def test_an_id_depends_on_all_that_is_asked_for_and_on_nothing_else():
    base = {"prompt": "house", "bpm": 124, "seed": 1}
    ids = [read_requests([{**base, **change}])[0].id for change in ({}, {"bpm": 124.0}, {"top_k": 250})]
    assert len(set(ids)) == 1
    changes = (
        {"rate": 44_100},
        {"bars": 2},
        {"key": "Am"},
        {"bpm": 125},
        {"seed": 2},
        {"model": "large"},
        {"format": "mp3"},
        {"temperature": 0.9},
    )
    assert len({read_requests([{**base, **change}])[0].id for change in changes} | {ids[0]}) == 9
