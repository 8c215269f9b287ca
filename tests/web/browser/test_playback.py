"""What is heard, sample by sample: the page's engine rendered offline in a real browser."""

import base64

import numpy as np
import pytest

from looper.web.shelf import PackShelf
from testkit.page_server import BPM, FRAMES, Site, sound, wav

pytestmark = [pytest.mark.browser, pytest.mark.both]

# Renders what is heard of the loops; `acts` are [context frame, method, argument], done while it renders. Firefox cannot
# halt an offline context: there all is done before, by a clock that is set by hand, as everything is planned ahead.
RENDER = """
async ({ frames, acts, rate = 32000 }) => {
  const { Engine } = await import("./audio/engine.js");
  const { decode } = await import("./audio/loop.js");
  const { library } = await (await fetch("session.json")).json();
  const loops = await Promise.all(library.loops.map(async ({ name, url }) =>
    decode({ name, bytes: await (await fetch(url)).arrayBuffer() })));
  const context = new OfflineAudioContext(1, frames, rate);
  const resume = context.resume.bind(context);
  context.resume = () => {}; // an offline context that has not begun cannot be resumed
  const engine = new Engine(() => context);
  engine.load(loops, rate);
  const tell = [];
  const halts = "suspend" in context;
  let clock = 0;
  if (!halts) Object.defineProperty(context, "currentTime", { get: () => clock / rate });
  for (const [frame, method, argument] of acts) {
    if (!halts) {
      clock = frame;
      engine[method](argument);
      if (frame) tell.push(engine.position());
    } else if (frame === 0) engine[method](argument);
    else context.suspend(frame / rate).then(() => { engine[method](argument); tell.push(engine.position()); resume(); });
  }
  const heard = (await context.startRendering()).getChannelData(0);
  const bytes = new Uint8Array(heard.buffer);
  let text = ""; // as numbers one by one it would take seconds
  for (let i = 0; i < bytes.length; i += 32768) text += String.fromCharCode(...bytes.subarray(i, i + 32768));
  return { heard: btoa(text), told: tell };
}
"""
LEAD = round(0.03 * 32_000)
FADE = 128


def render(page, frames, *acts):
    result = page.evaluate(RENDER, {"frames": frames, "acts": list(acts)})
    return np.frombuffer(base64.b64decode(result["heard"]), np.float32), result["told"]


def only_where_it_halts(page, why):
    if not page.evaluate("'suspend' in OfflineAudioContext.prototype"):
        pytest.skip(why)


@pytest.fixture(scope="module")
def page(browser, tmp_path_factory):
    """One page for all: each rendering has an engine and a context of its own."""
    folder = tmp_path_factory.mktemp("loops")
    for k in range(1, 5):
        (folder / f"loop_{k:02d}.wav").write_bytes(wav(k))
    with Site(library=PackShelf(folder)) as site:
        page = browser.new_page()
        page.goto(site.url)
        page.wait_for_selector("#loops li:nth-child(4)")
        yield page
        page.close()


def test_two_rounds_are_the_file_twice_to_the_sample(page):
    heard, _ = render(page, LEAD + 2 * FRAMES, [0, "play", None])
    assert np.array_equal(heard[LEAD:], np.tile(sound(1), 2))
    assert not heard[:LEAD].any()


def test_a_switch_lands_on_the_bar_line_and_keeps_the_place(page):
    asked = 64 * 128
    heard, _ = render(page, LEAD + 2 * FRAMES, [0, "play", None], [asked, "select", 2])
    bar = LEAD + round(FRAMES / 2)
    first, third = (np.concatenate([np.zeros(LEAD, np.float32), sound(k), sound(k)]) for k in (1, 3))
    assert np.array_equal(heard[: bar - FADE], first[: bar - FADE])
    assert np.array_equal(heard[bar:], third[bar : len(heard)])


@pytest.mark.parametrize("place", [0, 1, 4321, FRAMES // 2, FRAMES - 1, FRAMES + 5, -7])
def test_a_jump_is_exact_and_everything_stays_in_step(page, place):
    """After it the loop goes on from that very sample, and a later switch finds the others there too."""
    jump, pick = 40 * 128, 140 * 128
    acts = [0, "play", None], [jump, "seek", place], [pick, "select", 3]
    heard, told = render(page, 3 * FRAMES, *acts)
    there = jump + LEAD  # the context frame at which the loop is at `place`
    course = lambda k: sound(k)[(np.arange(len(heard)) - there + place) % FRAMES]
    at_bar = [
        f for f in range(pick + LEAD, 3 * FRAMES) if (f - there + place) % FRAMES in (0, round(FRAMES / 2))
    ]
    bar = at_bar[0]
    assert np.array_equal(heard[LEAD : there - FADE], sound(1)[: there - FADE - LEAD])
    assert np.array_equal(heard[there : bar - FADE], course(1)[there : bar - FADE])
    assert np.array_equal(heard[bar + 1 :], course(4)[bar + 1 :])  # a bar line may lie between two samples
    assert told[0]["phase"] == pytest.approx(place % FRAMES / FRAMES, abs=1e-9)


def test_a_jump_fades_without_a_hole_or_a_step(page):
    heard, _ = render(page, FRAMES, [0, "play", None], [5120, "seek", 20_000])
    there = 5120 + LEAD
    up = np.arange(FADE) / FADE
    before = sound(1)[there - FADE - LEAD : there - LEAD]
    after = sound(1)[20_000 - FADE : 20_000]
    assert heard[there - FADE : there] == pytest.approx(before * (1 - up) + after * up, abs=0.01)


@pytest.mark.parametrize("beats", [1, -1, 4])
def test_a_move_by_beats_keeps_the_beat(page, beats):
    step = beats * 60 / BPM * 32_000
    heard, _ = render(page, 2 * FRAMES, [0, "play", None], [5120, "move", step])
    there = 5120 + LEAD
    place = round(5120 + step)
    assert np.array_equal(heard[there:], sound(1)[(np.arange(2 * FRAMES - there) + place) % FRAMES])


def test_a_planned_switch_outlives_a_jump(page):
    only_where_it_halts(page, "a plan is taken back, which a clock set by hand cannot follow")
    acts = [0, "play", None], [5120, "select", 1], [7680, "seek", FRAMES - 10_000]
    heard, told = render(page, 2 * FRAMES, *acts)
    bar = 7680 + LEAD + 10_000  # the end of the loop is the next bar line from there
    assert np.array_equal(heard[bar:], sound(2)[np.arange(2 * FRAMES - bar) % FRAMES])
    assert told[1]["index"] == 0


def test_many_jumps_in_a_row_end_where_the_last_one_went(page):
    jumps = [[5120 + 128 * k, "seek", 1000 * k] for k in range(1, 9)]
    heard, told = render(page, FRAMES, [0, "play", None], *jumps)
    assert np.abs(heard).max() <= 1
    tail = heard[-4096:]
    starts = np.flatnonzero(sound(1) == tail[0])
    assert any(np.array_equal(sound(1)[(s + np.arange(4096)) % FRAMES], tail) for s in starts)
    assert told[-1]["phase"] == pytest.approx(8000 / FRAMES)


def test_what_is_chosen_in_silence_is_where_play_begins(page):
    heard, _ = render(page, FRAMES, [0, "select", 1], [0, "seek", 12_345], [0, "play", None])
    assert np.array_equal(heard[LEAD:], sound(2)[(np.arange(FRAMES - LEAD) + 12_345) % FRAMES])


def test_the_nudge_plays_faster_from_the_next_quantum_on(page):
    only_where_it_halts(page, "Firefox filters what it plays faster: no sample is what it was")
    acts = [0, "play", None], [5120, "nudge", 1.1]
    heard, _ = render(page, FRAMES, *acts)
    change = 5120 + 256  # two quanta later
    assert np.array_equal(heard[LEAD:change], sound(1)[: change - LEAD])
    # reading 1.1 samples a sample, every tenth falls on a whole one
    tenth = np.arange(change, FRAMES // 2, 10)
    assert heard[tenth] == pytest.approx(sound(1)[change - LEAD + 11 * np.arange(len(tenth))], abs=0.01)


def test_layers_are_the_sum_of_the_loops_to_the_sample(page):
    """A second one comes in beside the first, each at half; then the first goes, and the second is whole again."""
    levels = [0.5, 0, 0.5, 0], [0, 0, 1, 0]
    acts = [0, "play", None], [5120, "mix", levels[0]], [51_200, "mix", levels[1]]
    heard, _ = render(page, 3 * FRAMES, *acts)
    one, three = (sound(k)[(np.arange(3 * FRAMES) - LEAD) % FRAMES] for k in (1, 3))
    settled = 2 * FADE + 256
    assert np.array_equal(heard[LEAD:5120], one[LEAD:5120])
    assert heard[5120 + settled : 51_200] == pytest.approx(
        (one + three)[5120 + settled : 51_200] / 2, abs=1e-6
    )
    assert np.array_equal(heard[51_200 + settled :], three[51_200 + settled :])
    assert np.abs(heard).max() <= 1


def test_layers_stay_together_over_a_jump(page):
    acts = [0, "mix", [0.25, 0.75, 0, 0]], [0, "play", None], [5120, "seek", 20_000]
    heard, _ = render(page, FRAMES, *acts)
    there = 5120 + LEAD
    place = (np.arange(FRAMES - there) + 20_000) % FRAMES
    mixed = 0.25 * sound(1) + 0.75 * sound(2)
    assert heard[LEAD : there - FADE] == pytest.approx(mixed[: there - FADE - LEAD], abs=1e-6)
    assert heard[there:] == pytest.approx(mixed[place], abs=1e-6)


def test_after_the_layers_the_loop_that_came_last_plays_alone(page):
    acts = [0, "mix", [0.5, 0.5, 0, 0]], [0, "play", None], [5120, "select", 1], [7680, "mix", None]
    heard, told = render(page, FRAMES, *acts)
    end = 7680 + 2 * FADE + 256
    assert np.array_equal(heard[end:], sound(2)[np.arange(end, FRAMES) - LEAD])
    assert told[0]["index"] == 1
