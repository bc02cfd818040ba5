"""The words on the images: common English words in three disjoint lists, each of which covers the alphabet."""

from __future__ import annotations

import string

import numpy as np

__all__ = ["SPLITS", "WORDS", "draw_lines"]

SPLITS = ("train", "validation", "test")

_LIST = """
about above acid actor after again agent agree air album alive allow alone amber angle apple aqua arena arm army arrow
artist aspect atom aunt author autumn award axe axis baby badge baker ball bamboo banjo bank banquet barley basin
basket battle beach bean bear beauty bell bench berry bicycle bird blade blanket blend block blue board boat body bone
book border bottle box brave bread brick bridge bright broad brown brush budget build bus butter button cabin cable
cactus camel camera candle canvas carbon card cargo castle cattle cause celery cello chain chair chalk cheese chef
cherry chess chief child choice circle city clay clever cliff clock cloud coast coffee coin colour comet copper coral
corner cotton cousin crane cream crisp crowd crown cubic cycle daily dance danger dawn debate decade deep degree delta
desert desk detail dialog diet dinner dish doctor dolphin donkey door double dozen draft dragon drawing dream drift
drum dust eager early earth east echo editor eight elbow elder empty engine enjoy enough entry equal equip escape
ethics evening event exact exam examine exist expert extra fabric fact family farm fashion father feather fern field
fifty figure final finger fish fixed fjord flag flame flower fluid focus forest fork formal fossil fox frame freeze
fresh frozen fruit future galaxy gallery game garden garlic gate gentle giant ginger glass glove goat gold grain grape
graph gravity group guess guitar habit hammer happy harbour hazel health heavy helmet hero hidden honest horizon hotel
hour house human hungry ice idea image index inner insect island ivory jacket jaguar jazz jelly jewel join joke jolly
journal joyful judge juice jungle kayak keen kernel kettle kidney king kitchen kiwi knee knife knot label ladder lake
lamp laptop large laser lazy leaf league lemon lens letter level liberty light lily limit linen lion liquid lizard
lobby local logic lucky lunch luxury lyric magic magnet major maple marble market mask matrix maxim meadow medal
melody memory metal method middle mild mineral mirror mixture model modern moment money monkey moon motor mouse music
napkin narrow nature near needle nephew nerve nest network never nickel night noble noise north notice novel number
nurse oak oasis object ocean octave office often olive onion open opera option orange orbit orchid organ other oven
oxygen oyster packet page paint palace panda panel paper park party path pattern peace peanut pencil pepper phone
piano picnic picture pigeon pillow pilot pizza planet plum pocket poem point polite pond portal potato powder prince
prize proof public pulse puzzle quartz queen quest quick quiet quiz rabbit radio rain random rapid razor ready record
reflex rhythm ribbon rice river robot rocket roof rough round rubber saddle sailor salad sample sand school science
season seven shadow shape shelf silver simple sketch smooth snow solar sound spice spirit spring square stable stone
story street sugar summer sunny syrup table talent taxi teacher temple tennis theory thumb tiger timber toast tomato
tower travel tulip tunnel twelve uncle unique upper urban useful valley vector velvet verb video village violin visit
vivid vocal vowel voyage waffle wagon walnut warm water wave wax wealth wheel whisper white width wild window winter
wisdom wizard wolf wonder world yacht yellow yield yoga yogurt young zebra zero zigzag zone
"""

# A model that reads words instead of shapes gains nothing here: no word is shared between the splits. The list is
# dealt out like cards, so that every split has first letters (the capitals) from the whole alphabet.
_DEAL = ("train", "test", "train", "validation", "train", "test", "train")
WORDS: dict[str, tuple[str, ...]] = {
    split: tuple(word for place, word in enumerate(_LIST.split()) if _DEAL[place % len(_DEAL)] == split)
    for split in SPLITS
}


def draw_lines(rng: np.random.Generator, split: str) -> tuple[str, ...]:
    """Draw four to eight words of a split, at times with digits, and set them in lines."""
    words = [str(word) for word in rng.choice(WORDS[split], size=rng.integers(4, 9), replace=False)]
    case = rng.choice(["lower", "title", "upper", "first"], p=[0.45, 0.25, 0.05, 0.25])
    words = list(map({"upper": str.upper, "title": str.capitalize}.get(case, str), words))
    if case == "first":
        words[0] = words[0].capitalize()
    if rng.random() < 0.2:
        digits = "".join(rng.choice(list(string.digits), size=rng.integers(1, 4)))
        words.insert(int(rng.integers(len(words) + 1)), digits)
    lines = [words[0]]
    for word in words[1:]:
        # Short neighbors share a line, so that long lines do not make every text small.
        if len(lines[-1]) + len(word) < 14:
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    return tuple(lines)
