"""Our own drum, bass and comping patterns: what the labelled clips are made of.

A pattern has one character per slot of a bar: ``x`` a hit, ``o`` a soft one, a digit its chance in
tenths (drawn once per clip, so that bars repeat), ``?`` the same drawn anew in every bar, ``.`` a rest.
Bars of a style are separated by ``|``. The number of characters says the grid: 16 for sixteenths of
4/4, 12 for its triplets, 12 sixteenths of 3/4 where the style says ``beats=3``.
"""

from __future__ import annotations

from dataclasses import dataclass

DRUMS = {
    "kick": 36, "snare": 38, "rim": 37, "clap": 39, "hat": 42, "pedal": 44, "open": 46, "ride": 51,
    "bell": 53, "crash": 49, "hitom": 50, "tom": 47, "floor": 43, "cowbell": 56, "tamb": 54,
    "shaker": 70, "conga": 63, "lowconga": 64, "slap": 62, "clave": 75, "agogo": 67, "surdo": 41,
    "timbale": 65, "bongo": 60,
}  # fmt: skip


@dataclass(frozen=True)
class Style:
    """One kind of music: tempo range, metre, and the parts that may be drawn for it."""

    bpm: tuple[float, float]
    drums: tuple[dict[str, str], ...] = ({},)
    bass: tuple[str, ...] = ("root8", "kick", "whole", "synco")
    comp: tuple[str, ...] = ("pad", "strum8", "arp8", "stab", "none")
    lead: float = 0.4
    beats: int = 4
    swing: tuple[float, float] = (0.5, 0.5)  # where the second eighth of a beat falls
    swing16: bool = False  # the swing is of sixteenths
    programs: tuple[int, ...] = ()
    weight: float = 1.0
    levels: tuple[float, ...] = ()  # of the asked tempo, where the style has its own
    soft: tuple[str, ...] = ()  # drums that are quieter than the rest


HATS8 = "x.x.x.x.x.x.x.x."
HATS16 = "xoxoxoxoxoxoxoxo"
BACK = "....x.......x..."
FLOOR = "x...x...x...x..."

STYLES: dict[str, Style] = {
    "rock": Style(
        (85, 150),
        (
            {"kick": "x.......x.3.....", "snare": BACK, "hat": HATS8},
            {"kick": "x.....x.x.......", "snare": BACK, "hat": HATS8},
            {"kick": "x..4..3.x.x...3.", "snare": BACK, "ride": HATS8},
            {"kick": "x.x...3...x.....", "snare": BACK, "open": FLOOR},
            {"kick": "x.....x...x.....|x.....x.3.x.x...", "snare": BACK, "hat": HATS8},
            {"kick": "x...x...x...x...", "snare": BACK, "hat": HATS8},
            {"kick": "x.......x.......", "snare": "....x..?....x.?.", "hat": "x...x...x...x..."},
        ),
        ("root8", "kick", "root4", "synco"),
        ("strum8", "power8", "pad", "arp8", "none"),
        weight=1.6,
    ),
    "house": Style(
        (112, 132),
        (
            {"kick": FLOOR, "clap": BACK, "open": "..x...x...x...x.", "hat": "5.5.5.5.5.5.5.5."},
            {"kick": FLOOR, "open": "..x...x...x...x.", "shaker": HATS16},
            {"kick": FLOOR, "clap": BACK, "hat": "..x...x...x...x.", "conga": "...x..x....x..3."},
            {"kick": FLOOR, "snare": "....x..3....x..5", "hat": HATS16},
            {"kick": FLOOR, "hat": "..x...x...x...x."},
        ),
        ("off8", "synco", "kick", "whole"),
        ("stab", "pad", "offstab", "arp16"),
        weight=1.2,
    ),
    "techno": Style(
        (122, 150),
        (
            {"kick": FLOOR, "hat": "..x...x...x...x."},
            {"kick": FLOOR, "hat": HATS16, "clap": "............x..."},
            {"kick": FLOOR, "rim": "..3..x.3..3..x..", "open": "..x...x...x...x."},
            {"kick": FLOOR, "tom": "...x..x....3..x.", "hat": "xxx.xxx.xxx.xxx."},
        ),
        ("roll", "off8", "synco", "none"),
        ("stab", "none", "arp16", "pad"),
        lead=0.15,
    ),
    "trance": Style(
        (128, 145),
        (
            {"kick": FLOOR, "clap": BACK, "open": "..x...x...x...x.", "hat": HATS16},
            {"kick": FLOOR, "open": "..x...x...x...x."},
            {},
        ),
        ("off8", "roll", "root8"),
        ("arp16", "pad", "strum8", "stab"),
    ),
    "disco": Style(
        (105, 128),
        (
            {"kick": FLOOR, "snare": BACK, "hat": "x.o.x.o.x.o.x.o.", "open": "..x...x...x...x."},
            {"kick": FLOOR, "snare": BACK, "hat": HATS16, "cowbell": "x...x...x...x..."},
        ),
        ("octave8", "synco", "kick"),
        ("stab", "strum16", "pad"),
    ),
    "hiphop": Style(
        (78, 104),
        (
            {"kick": "x......3..x.....", "snare": BACK, "hat": HATS8},
            {"kick": "x.x....x..x.....", "snare": BACK, "hat": HATS8},
            {"kick": "x.....x...x..x..|x.....x...xx....", "snare": BACK, "hat": HATS8},
            {"kick": "x..x..........x.|x..x......x.....", "snare": "....x..o.o..x...", "hat": HATS8},
            {"kick": "x......x.xx.....", "snare": BACK, "hat": HATS16},
        ),
        ("kick", "whole", "synco", "none"),
        ("stab", "pad", "none", "arp8"),
        swing=(0.5, 0.62),
        swing16=True,
        weight=1.3,
    ),
    "dnb": Style(
        (160, 180),
        (
            {"kick": "x.........x.....", "snare": BACK, "hat": HATS8},
            {"kick": "x.........x.....", "snare": "....x..o.o..x...", "ride": HATS8},
            {"kick": "x.x.......x.....|x..........x....", "snare": BACK, "hat": HATS8},
            {"kick": "x.........xx....", "snare": "....x..x.x..x..x", "hat": HATS8},
        ),
        ("whole", "synco", "kick", "root4"),
        ("pad", "none", "stab"),
        weight=1.2,
    ),
    "break": Style(
        (95, 170),
        (
            {
                "kick": "x.x.......xx....|x.x.......x.....|x.x.......x.....|..xx......x.....",
                "snare": "....x..x.x..x..x|....x..x.x..x..x|....x..x.x....x.|.x..x..x.x....x.",
                "ride": HATS8,
            },
            {"kick": "x.x...x...x.....|x.....x..xx.....", "snare": "....x..x....x..x", "hat": HATS8},
            {"kick": "x..x......x..x..|..xx......x.....", "snare": "....x..o.o..x..o", "hat": HATS8},
            {"kick": "x.....xx..x..x..", "snare": "....x..x.x..x...", "hat": HATS16},
            {
                "kick": "x..x..x.........|x..x......x...x.",
                "snare": BACK,
                "open": "......x.......x.",
                "hat": HATS8,
            },
            {"kick": "x?.?..?..?x?.?..", "snare": "....x..?.?..x..?", "hat": HATS8},
            {
                "kick": "x.......?.x.....|?.x...?...x.....",
                "snare": "....x..?.?..x.?.|....x..?....x.?x",
                "hat": HATS8,
            },
        ),
        ("synco", "kick", "whole", "none"),
        ("none", "none", "pad", "stab"),
        lead=0.2,
        weight=1.8,
    ),
    "halftime": Style(
        (120, 160),
        (
            {"kick": "x.........x.....", "snare": "........x.......", "hat": HATS8},
            {"kick": "x.....x.........", "snare": "........x.......", "hat": HATS8},
            {"kick": "x.....x...x...x.|x.........x.....", "snare": "........x.......", "hat": HATS8},
            {"kick": "x..........x....", "snare": "........x.......", "ride": FLOOR},
            {
                "kick": "x..............x|..x.......x.....",
                "snare": "........x.......",
                "hat": "x...x...x...x...",
            },
        ),
        ("whole", "kick", "root8", "root4"),
        ("power8", "pad", "strum8", "none"),
        weight=1.6,
    ),
    "trap": Style(
        (125, 160),
        (
            {
                "kick": "x.....x.....x...|x.........x.....",
                "clap": "........x.......",
                "hat": "x.x.x.x.x.x.xxxx",
            },
            {
                "kick": "x..x..x.........|x.....x....x....",
                "snare": "........x.......",
                "hat": "x.x?x.x?x.x.x?x?",
            },
            {
                "kick": "x.........x.x...",
                "clap": "........x.......",
                "hat": "xxx.x.xxx.x.x.x.",
                "open": "..............4.",
            },
            {"kick": "x......x..x.....|x......x......x.", "clap": "........x.......", "hat": HATS16},
        ),
        ("kick", "kick", "whole"),
        ("stab", "arp8", "pad", "bells8"),
        weight=1.5,
    ),
    "jazz": Style(
        (95, 230),
        (
            {"ride": "x..x.xx..x.x", "pedal": "...x.....x..", "kick": "?..?..?..?.."},
            {"ride": "x..x.xx..x.x", "pedal": "...x.....x..", "snare": "..?..?..?..?"},
            {"hat": "x..x.xx..x.x", "kick": "4.....4.....", "rim": "...........5"},
        ),
        ("walk", "walk", "two"),
        ("charleston", "swingcomp", "pad", "none"),
        lead=0.7,
        swing=(0.58, 0.68),
        programs=(0, 4, 26, 16, 65, 56, 11),
        weight=1.2,
    ),
    "shuffle": Style(
        (85, 140),
        (
            {"kick": "x.....x.....", "snare": "...x.....x..", "hat": "x.xx.xx.xx.x"},
            {"kick": "x....xx.....", "snare": "...x.....x..", "ride": "x.xx.xx.xx.x"},
            {"kick": "x.......x...", "snare": "......x.....", "hat": "x.xx.xx.xx.x"},
        ),
        ("walk", "shuffle8", "two"),
        ("strum8", "power8", "swingcomp"),
        swing=(0.62, 0.68),
    ),
    "blues12": Style(
        (50, 85),
        (
            {"kick": "x.....x.....", "snare": "...x.....x..", "hat": "xxxxxxxxxxxx"},
            {"kick": "x....xx.....", "snare": "...x.....x..", "ride": "xxxxxxxxxxxx"},
        ),
        ("walk", "root4", "two"),
        ("triplet", "pad", "block4"),
        swing=(0.66, 0.67),
    ),
    "bossa": Style(
        (110, 150),
        (
            {"kick": "x..xx..xx..xx..x", "rim": "x..x..x...x..x..", "hat": HATS8},
            {"kick": "x..xx..xx..xx..x", "rim": "..x..x...x..x...", "shaker": HATS16},
        ),
        ("two", "bossa"),
        ("bossa", "charleston", "synco"),
        programs=(24, 0, 4, 11),
    ),
    "salsa": Style(
        (88, 112),
        (
            {"clave": "x..x..x...x.x...", "conga": "..o...xx..o...xx", "cowbell": "x.x.x.x.x.x.x.x."},
            {"clave": "..x.x...x..x..x.", "conga": "o.xoo.xxo.xoo.xx", "timbale": "x.xx.xx.x.xx.xx."},
            {"lowconga": "......xx......xx", "slap": "..x...x...x...x.", "cowbell": "x...x...x...x..."},
        ),
        ("tumbao", "tumbao", "two"),
        ("montuno", "montuno", "synco"),
        programs=(0, 1),
    ),
    "samba": Style(
        (95, 125),
        (
            {
                "surdo": "....x.......x...",
                "kick": "x..xx..xx..xx..x",
                "shaker": HATS16,
                "rim": "x.x..x.x.x.x..x.",
            },
            {"surdo": "....x..x....x..x", "tamb": HATS16, "agogo": "x.x.x..x.x.x..x."},
        ),
        ("two", "bossa"),
        ("synco", "bossa", "strum16"),
        programs=(24, 25, 0),
    ),
    "afro": Style(
        (100, 126),
        (
            {"kick": FLOOR, "conga": "..xx..x.x.xx..x.", "shaker": HATS16, "rim": "x..x...x..x....."},
            {"kick": "x..x..x.x..x..x.", "snare": "...x..x....x..x.", "hat": HATS8},
            {"kick": "x...x...x...x...", "snare": "...x..x....x..x.", "shaker": HATS16},
            {"conga": "x..x..xxx..x..xx", "lowconga": "..x...x...x.x...", "agogo": "x.xx.x.xx.x.x.x."},
        ),
        ("synco", "kick", "tumbao"),
        ("stab", "arp16", "pad", "montuno"),
    ),
    "reggae": Style(
        (66, 92),
        (
            {"kick": "........x.......", "rim": "........x.......", "hat": "x.x.x.x.x.x.x.x."},
            {"kick": "x...x...x...x...", "rim": "........x.......", "hat": HATS8},
            {"kick": "x.......x.......", "snare": "........x.......", "hat": "..x...x...x...x."},
        ),
        ("reggae", "reggae", "synco"),
        ("skank", "skank", "offstab"),
        programs=(27, 16, 0),
        swing=(0.5, 0.6),
        swing16=True,
        weight=1.3,
    ),
    "ska": Style(
        (130, 170),
        (
            {"kick": "x.......x.......", "snare": BACK, "hat": "..x...x...x...x."},
            {"kick": "x...x...x...x...", "snare": "........x.......", "hat": HATS8},
        ),
        ("walk", "root8"),
        ("offstab", "skank8"),
        programs=(27, 16, 61),
    ),
    "funk": Style(
        (90, 118),
        (
            {"kick": "x.x...x...x..x..", "snare": "....x..o.o..x..o", "hat": HATS16},
            {"kick": "x..x..x...x.....|x..x..x..x.x....", "snare": "....x..o.o..x...", "hat": HATS8},
            {"kick": "x.....xx..x..x..", "snare": "....x.......x..o", "hat": "x.xxx.xxx.xxx.xx"},
            {
                "kick": "x...3.x..x.x....",
                "snare": "....x..x....x.x.",
                "open": "......x.........",
                "hat": HATS16,
            },
        ),
        ("synco", "synco", "kick"),
        ("strum16", "stab", "synco", "none"),
        programs=(27, 7, 4, 16),
        weight=1.3,
    ),
    "reggaeton": Style(
        (86, 105),
        (
            {"kick": FLOOR, "snare": "...x..x....x..x.", "hat": HATS8},
            {"kick": "x...x...x...x...", "rim": "...x..x....x..x.", "shaker": HATS16},
        ),
        ("kick", "synco", "two"),
        ("stab", "pad", "offstab"),
    ),
    "train": Style(
        (90, 130),
        (
            {"kick": "x...x...x...x...", "snare": "ooxoooxoooxoooxo"},
            {"kick": "x.......x.......", "snare": "..x...x...x...x."},
            {"kick": "x.......x.......", "snare": BACK, "hat": HATS8},
        ),
        ("two", "walk"),
        ("boomchick", "strum8", "arp8"),
        programs=(25, 24, 27),
    ),
    "metal": Style(
        (120, 240),
        (
            {"kick": "xxxxxxxxxxxxxxxx", "snare": BACK, "ride": FLOOR},
            {"kick": "x.x.x.x.x.x.x.x.", "snare": "..x...x...x...x.", "hat": HATS8},
            {"kick": "x.xxx.xxx.xxx.xx", "snare": BACK, "crash": FLOOR},
            {"kick": "x.x.xxx.x.x.xxx.", "snare": "........x.......", "ride": FLOOR},
        ),
        ("root8", "kick", "root16"),
        ("power8", "power16", "powerkick"),
        lead=0.2,
        programs=(30, 29),
    ),
    "pop": Style(
        (85, 130),
        (
            {"kick": "x.......x.......", "snare": BACK, "hat": HATS8},
            {"kick": "x..x..x.x..x..x.", "clap": BACK, "hat": HATS16},
            {"kick": FLOOR, "clap": BACK},
            {"kick": "x.....x...x.....", "snare": BACK, "tamb": HATS8},
            {"kick": "x......xx.......", "snare": BACK, "hat": HATS16},
        ),
        ("root8", "whole", "kick", "root4"),
        ("pad", "arp8", "block4", "strum8", "arp16"),
        lead=0.6,
        weight=1.6,
    ),
    "march": Style(
        (96, 126),
        (
            {"kick": "x.......", "snare": "..x.x.xx", "crash": "x......."},
            {"kick": "x...x...", "snare": "..x...x."},
        ),
        ("two", "root4"),
        ("boomchick", "block4"),
        beats=2,
        programs=(61, 21, 56),
    ),
    "polka": Style(
        (100, 130),
        ({"kick": "x.......", "snare": "....x...", "hat": "..x...x."}, {}),
        ("two",),
        ("oompah", "offstab"),
        beats=2,
        programs=(21, 0, 25),
    ),
    "waltz": Style(
        (90, 190),
        (
            {},
            {"kick": "x...........", "snare": "....x...x...", "hat": "x...x...x..."},
            {"kick": "x...........", "pedal": "....x...x..."},
            {"ride": "x...x.x.x..."},
        ),
        ("whole", "root1"),
        ("oompah", "oompah", "arp8", "block4"),
        lead=0.6,
        beats=3,
        weight=1.2,
    ),
    "waltzpop": Style(
        (85, 170),
        (
            {"kick": "x.......3...", "snare": "........x...", "hat": "x.x.x.x.x.x."},
            {"kick": "x...........", "snare": "....x...x...", "ride": "x...x...x..."},
            {"kick": "x.....x.....", "snare": "........x...", "hat": "x.x.x.x.x.x."},
            {"kick": "x...........|x.......x...", "snare": "....x.......", "hat": "x.x.x.x.x.x."},
            {
                "kick": "x...........|............",
                "snare": "............|x...........",
                "hat": "x...x...x...",
            },
        ),
        ("root1", "whole", "root4", "kick"),
        ("pad", "strum8", "arp8", "oompah"),
        beats=3,
        weight=1.2,
    ),
    "five": Style(
        (90, 190),
        (
            {"kick": "x.......x...........", "snare": "....x.......x.......", "hat": "x.x.x.x.x.x.x.x.x.x."},
            {"kick": "x.....x.....x.......", "snare": "............x...x...", "ride": "x...x.x.x...x...x..."},
            {"kick": "x...........x.......", "snare": "........x.......x...", "hat": "x...x...x...x...x..."},
            {},
        ),
        ("five", "whole", "kick"),
        ("arp8", "pad", "strum8", "five"),
        beats=5,
        weight=0.8,
    ),
    "sixeight": Style(
        (120, 240),
        (
            {
                "kick": "x.......................",
                "snare": "............x...........",
                "hat": "x...x...x...x...x...x...",
            },
            {
                "kick": "x.......x...........x...",
                "snare": "............x...........",
                "hat": "x...x...x...x...x...x...",
            },
            {"conga": "x...x...o...x...o...x...", "bell": "x...o...x...o...x...o..."},
            {},
        ),
        ("six", "whole", "kick"),
        ("arp4", "pad", "strum4", "six"),
        beats=6,
        weight=0.8,
    ),
    "seven": Style(
        (120, 260),
        (
            {
                "kick": "x.......x.......x...........",
                "snare": "....x.......x...........x...",
                "hat": "x...x...x...x...x...x...x...",
            },
            {
                "kick": "x...........x.......x.......",
                "snare": "............x...........x...",
                "hat": "x.x.x.x.x.x.x.x.x.x.x.x.x.x.",
            },
            {
                "kick": "x...............x...........",
                "snare": "........x...............x...",
                "ride": "x...x...x...x...x...x...x...",
            },
            {},
        ),
        ("seven", "whole", "kick"),
        ("arp4", "pad", "strum4", "seven"),
        beats=7,
        weight=0.8,
    ),
    "ambient": Style(
        (60, 120),
        ({},),
        ("whole", "none", "none"),
        ("pad", "pad", "slowarp"),
        lead=0.5,
        programs=(88, 89, 90, 91, 94, 95, 48, 52),
        weight=0.9,
    ),
    "piano": Style(
        (60, 130),
        ({},),
        ("none", "whole", "root4"),
        ("ballad", "block4", "arp8", "arp16", "alberti"),
        lead=0.8,
        programs=(0, 1, 4, 5, 46, 11),
        weight=1.3,
    ),
    "strings": Style(
        (60, 130),
        ({},),
        ("whole", "root4", "root8"),
        ("pad", "strum8", "block4", "alberti"),
        lead=0.6,
        programs=(48, 49, 40, 42, 45, 60, 61),
        weight=1.0,
    ),
    "guitar": Style(
        (75, 140),
        ({}, {}, {"shaker": HATS16}, {"tamb": BACK}),
        ("none", "whole", "two"),
        ("strum8", "folkstrum", "arp8", "boomchick", "travis"),
        lead=0.3,
        programs=(24, 25, 26, 27),
        weight=1.2,
    ),
    "arp": Style(
        (80, 140),
        ({}, {}, {"hat": HATS8}, {"kick": FLOOR}),
        ("none", "whole", "root8"),
        ("arp8", "arp16", "bells8"),
        lead=0.3,
        programs=(80, 81, 10, 98, 6, 38, 46),
        weight=0.8,
    ),
    "slow": Style(
        (40, 62),
        (
            {"kick": "x.......x.......", "snare": BACK, "hat": HATS16},
            {"kick": "x......xx.......", "snare": BACK, "hat": HATS8},
            {},
        ),
        ("whole", "root4", "kick"),
        ("pad", "arp8", "arp16", "ballad"),
    ),
    "double": Style(
        (112, 185),
        (
            {"kick": "x.x.....x.x.....", "snare": BACK, "hat": HATS8},
            {"kick": "x...x.......x...", "snare": "........x.......", "hat": "x...x...x...x..."},
            {"kick": "x...x...x...x...", "snare": "........x.......", "hat": HATS8},
            {"kick": "x.......x...3...", "snare": BACK, "hat": "x...x...x...x..."},
            {"kick": "x.x...3.x.......", "snare": BACK, "open": FLOOR},
            {"kick": "x.x.x...x.x.x...", "snare": "......x.......x.", "hat": FLOOR},
        ),
        ("root4", "kick", "whole", "root8"),
        ("strum8", "pad", "arp8", "power8", "block4"),
        weight=1.6,
        levels=(0.5, 0.5, 1.0),
    ),
    "offhat": Style(
        (110, 150),
        (
            {"kick": FLOOR, "open": "..x...x...x...x."},
            {"kick": FLOOR, "clap": BACK, "open": "..x...x...x...x.", "shaker": "..x...x...x...x."},
            {"kick": "x...x...x...x.3.", "snare": BACK, "hat": "..x...x...x...x."},
            {"kick": "x.......x.......", "snare": BACK, "open": "..x...x...x...x."},
        ),
        ("off8", "off8", "synco", "whole"),
        ("offstab", "pad", "stab", "arp16"),
        weight=1.2,
        soft=("kick", "clap", "snare"),
    ),
    "onedrop": Style(
        (62, 150),
        (
            {"kick": "........x.......", "rim": "........x.......", "hat": "..x...x...x...x."},
            {"kick": "........x.......", "snare": "........x..3....", "hat": HATS8},
            {"kick": "x...x...x...x...", "snare": "........x.......", "hat": "..x...x...x...x."},
            {"kick": "x.......x.......", "rim": "........x.......", "open": "..x...x...x...x."},
        ),
        ("reggae", "reggae", "synco", "two"),
        ("skank", "skank", "offstab", "skank8"),
        programs=(27, 16, 0, 17),
        swing=(0.5, 0.6),
        swing16=True,
        weight=1.0,
    ),
    "halftime3": Style(
        (110, 175),
        (
            {"kick": "x.......3...5...", "snare": "........x.......", "hat": FLOOR},
            {"kick": "x.....x.....3...", "snare": "........x.......", "crash": "x...x...x...x..."},
            {"kick": "x...3...........", "clap": "........x.......", "hat": HATS8},
            {"kick": "x..x..x.....x...", "snare": "........x......3", "hat": HATS16},
        ),
        ("whole", "kick", "root8", "synco"),
        ("power8", "pad", "arp8", "strum8", "bells8"),
        weight=1.4,
        levels=(1.0, 1.0, 2.0, 0.5),
    ),
    "symmetric": Style(
        (84, 176),
        (
            {"kick": "x.......x.......", "snare": BACK, "hat": HATS8},
            {"kick": "x.......x.......", "snare": BACK, "ride": HATS8},
            {"kick": "x..x....x..x....", "snare": BACK, "hat": HATS16},
            {"kick": "x.....x.x.....x.", "snare": BACK, "hat": HATS8},
            {"kick": FLOOR, "snare": BACK, "hat": HATS8},
            {"kick": "x.x.....x.x.....", "snare": BACK, "open": FLOOR},
            {"kick": "x.....x.x.....x.", "snare": "....x..o....x..o", "tamb": HATS16},
        ),
        ("root8", "root4", "kick", "whole", "synco"),
        ("strum8", "pad", "arp8", "power8", "block4", "stab"),
        lead=0.5,
        weight=2.6,
    ),
    "soul": Style(
        (66, 118),
        (
            {"kick": "x......x..x.....", "snare": "....x..o.o..x...", "hat": HATS8},
            {"kick": "x..x......x..x..", "rim": BACK, "shaker": HATS16},
            {"kick": "x.....x..x......", "snare": BACK, "hat": HATS16, "tamb": "....x.......x..."},
        ),
        ("synco", "kick", "whole", "walk"),
        ("stab", "pad", "synco", "strum16", "ballad"),
        lead=0.6,
        programs=(4, 5, 16, 17, 27, 61, 48),
        swing=(0.5, 0.62),
        swing16=True,
        weight=1.2,
    ),
    "folkband": Style(
        (80, 200),
        (
            {"kick": "x.......x.......", "tamb": BACK},
            {"kick": "x...x...x...x...", "snare": "..x...x...x...x."},
            {"kick": "x.......x.......", "shaker": "x.xox.xox.xox.xo"},
            {},
        ),
        ("two", "root4", "walk", "none"),
        ("boomchick", "strum8", "folkstrum", "travis", "arp8"),
        lead=0.7,
        programs=(24, 25, 105, 21, 22, 40),
        weight=1.4,
    ),
    "orchestra": Style(
        (60, 175),
        ({}, {}, {"floor": "x.......3......."}),
        ("whole", "root4", "two", "none"),
        ("pad", "block4", "alberti", "arp8", "strum8", "strum4"),
        lead=0.8,
        programs=(48, 49, 40, 42, 44, 45, 60, 0, 6),
        weight=1.4,
    ),
    "random": Style(
        (75, 175),
        (
            {"kick": "*kick", "snare": "*snare", "hat": "*hat"},
            {"kick": "*kick", "clap": "*snare", "conga": "*perc"},
        ),
        ("synco", "kick", "root8", "whole", "off8", "two"),
        ("stab", "synco", "pad", "strum8", "arp8", "none", "offstab"),
        weight=2.5,
        swing=(0.5, 0.58),
        swing16=True,
    ),
}
