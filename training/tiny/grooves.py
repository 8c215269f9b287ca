"""The styles tiny knows: drum patterns, bass lines and the words for them. All draws come from one generator."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from training.tiny.synth import FRAMES_PER_BEAT, KITS, Score

FOUR = "x...x...x...x..."
BACK = "....x.......x..."
REST = "................"


@dataclass(frozen=True)
class Style:
    """Patterns and words of one style; each tuple is a choice."""

    words: tuple[str, ...]
    kit: str
    bass: str
    kicks: tuple[str, ...]
    snares: tuple[str, ...]
    hats: tuple[str, ...]
    opens: tuple[str, ...]
    basses: tuple[
        str, ...
    ]  # rhythm; a letter is a scale step (r root, t third, f fifth, s seventh, o octave)


STYLES = {
    "house": Style(
        ("house", "deep house", "four on the floor house", "disco house", "club"),
        "909",
        "saw",
        (FOUR,),
        (BACK,),
        ("x.x.x.x.x.x.x.x.", "xx.xxx.xxx.xxx.x"),
        ("..x...x...x...x.",),
        ("..r...r...r...o.", "r..r..r...f...f.", "..r...t...f...o.", "r.....r...f.s..."),
    ),
    "techno": Style(
        ("techno", "driving techno", "warehouse techno", "minimal techno", "rave"),
        "909",
        "square",
        (FOUR,),
        (REST, BACK),
        ("xxxxxxxxxxxxxxxx", "..x...x...x...x."),
        ("..x...x...x...x.", REST),
        ("..rr..rr..rr..rr", "rrrrrrrrrrrrrrrr", "r..r..r.r..r..r.", "..r...r...r..or."),
    ),
    "hiphop": Style(
        ("hip hop", "boom bap", "lofi hip hop", "rap beat", "old school hip hop"),
        "acoustic",
        "sub",
        ("x.......x.x.....", "x..x......x.....", "x.....x..xx....."),
        (BACK,),
        ("x.x.x.x.x.x.x.x.", "x...x.x.x...x.x."),
        (REST, "..............x."),
        ("r.......f.r.....", "r..r......t.....", "r.....o...r.s..."),
    ),
    "trap": Style(
        ("trap", "808 trap", "trap beat", "dark trap", "half time trap"),
        "808",
        "sub",
        ("x.....x...x.....", "x..x......x..x..", "x.........x....."),
        ("........x.......",),
        ("x.x.x.x.x.x.x.x.", "x.x.xxxxx.x.x.xx"),
        (REST,),
        ("r.........f.....", "r.....r...s.....", "r.............o."),
    ),
    "funk": Style(
        ("funk", "funky groove", "funky breakbeat", "breakbeat", "soul groove"),
        "acoustic",
        "square",
        ("x.x.......xx....", "x.....x...x..x..", "x..x..x...x....."),
        ("....x..x.x..x...", BACK),
        ("x.x.x.x.x.x.x.x.", "xxxxxxxxxxxxxxxx"),
        (REST, "......x........."),
        ("r..r..o...s.r...", "r.r...f.s...r.o.", "r...r.s...r..t.."),
    ),
    "dnb": Style(
        ("drum and bass", "jungle", "dnb", "liquid drum and bass", "drum n bass"),
        "acoustic",
        "saw",
        ("x.........x.....", "x.....x...x....."),
        (BACK, "....x..x....x..."),
        ("x.x.x.x.x.x.x.x.", "xxx.xxx.xxx.xxx."),
        (REST, "..............x."),
        ("r.......s.......", "r...r.....f.....", "r.....t...f...s."),
    ),
    "rock": Style(
        ("rock", "indie rock", "rock drums", "garage rock", "pop rock"),
        "acoustic",
        "saw",
        ("x.......x.x.....", "x.......x.......", "x..x....x..x...."),
        (BACK,),
        ("x.x.x.x.x.x.x.x.", "x...x...x...x..."),
        (REST, "..............x."),
        ("r.r.r.r.r.r.r.r.", "r.r.r.r.f.f.f.f.", "r...r...f...s..."),
    ),
}
KIT_WORDS = {
    "808": ("808 drums", "808 kick", "808 drum machine"),
    "909": ("909 drums", "909 kick and claps", "909 drum machine"),
    "acoustic": ("acoustic drums", "live drums", "drum kit"),
}
BASS_WORDS = {
    "sub": ("sub bass", "deep sub", "808 bass", "warm bass"),
    "saw": ("saw bass", "synth bass", "analog bass"),
    "square": ("square bass", "plucky bass", "funky bass", "bass guitar"),
    "none": ("drums only", "no bass", "drum loop"),
}
MOOD_WORDS = {
    "minor": ("dark", "moody", "minor", "gritty", "tense"),
    "major": ("bright", "happy", "major", "uplifting", "sunny"),
}
DENSITY_WORDS = {
    "sparse": ("minimal", "sparse", "simple", "laid back"),
    "busy": ("busy", "energetic", "driving", "intense"),
}
FILLERS = (
    "loop", "beat", "groove", "instrumental", "studio quality", "punchy", "clean", "warm chords", "piano", "guitar",
    "melodic", "vintage", "modern", "hypnotic", "chill", "atmospheric", "club mix", "with swing", "high quality", "cinematic",
)  # fmt: skip
STEPS = {"r": 0, "f": 7, "o": 12, "s": 10, "t": 3}
ROOTS = (33, 36, 29, 31, 28)  # A1, C2, F1, G1, E1


def _bass_bar(pattern: str, root: int, mood: str, longest: int) -> tuple[tuple[int, int, int], ...]:
    slots = [i for i, c in enumerate(pattern) if c != "."]
    bar = []
    for i, slot in enumerate(slots):
        after = slots[i + 1] if i + 1 < len(slots) else 16
        step = STEPS[pattern[slot]] + (1 if mood == "major" and pattern[slot] == "t" else 0)
        step -= 1 if mood == "major" and pattern[slot] == "s" else 0  # the sixth
        bar.append((slot, min(after - slot, longest), root + step))
    return tuple(bar)


def draw_score(rng: np.random.Generator) -> Score:
    """Draw one loop's notes: a style, its options, a tempo and a two-bar phrase."""
    pick = lambda options: options[int(rng.integers(len(options)))]
    name = pick(tuple(STYLES))
    style = STYLES[name]
    kit = style.kit if rng.random() < 0.7 else pick(KITS)
    bass = style.bass if rng.random() < 0.65 else pick(("sub", "saw", "square", "none"))
    mood, density = pick(("minor", "major")), pick(("sparse", "normal", "busy"))
    kick, snare, rhythm, root = pick(style.kicks), pick(style.snares), pick(style.basses), pick(ROOTS)
    hat = {
        "sparse": style.hats[-1] if name == "rock" else "x...x...x...x...",
        "normal": pick(style.hats),
        "busy": "xxxxxxxxxxxxxxxx",
    }[density]
    opened = REST if density == "sparse" else pick(style.opens)
    hat = "".join("." if o == "x" else h for h, o in zip(hat, opened, strict=True))
    second = pick((kick, pick(style.kicks)))
    turn = pick((rhythm, rhythm, pick(style.basses)))
    longest = 8 if style.bass == "sub" else 3
    one, two = (_bass_bar(r, root, mood, longest) for r in (rhythm, turn))
    return Score(
        name, kit, bass, mood, density, int(pick(FRAMES_PER_BEAT)), (kick, second), (snare,), (hat,), (opened,), (one, two)
    )  # fmt: skip


def draw_prompt(score: Score, rng: np.random.Generator) -> str:
    """Describe `score` in words, some left out, some beside the point, with the tempo as the product adds it."""
    pick = lambda options: options[int(rng.integers(len(options)))]
    style = STYLES[score.style]
    words = [pick(style.words)] if rng.random() < 0.93 else []
    if score.density != "normal" and rng.random() < 0.7:
        words.append(pick(DENSITY_WORDS[score.density]))
    if rng.random() < 0.5:
        words.append(pick(MOOD_WORDS[score.mood]))
    if rng.random() < (0.35 if score.kit == style.kit else 0.9):
        words.append(pick(KIT_WORDS[score.kit]))
    if rng.random() < (0.35 if score.bass == style.bass else 0.9):
        words.append(pick(BASS_WORDS[score.bass]))
    words += [pick(FILLERS) for _ in range(int(rng.integers(0, 3)))]
    rng.shuffle(words)
    glue = pick((", ", " ", ", ", " with "))
    octave = pick((0.5, 1.0, 1.0, 1.0, 2.0))
    bpm = score.bpm * octave * (1 + 0.02 * (2 * rng.random() - 1))
    return f"{glue.join(words) or 'beat'}, {round(bpm, int(rng.integers(0, 2))):g} bpm"
