"""Makes FairtatSans-*.otf from Inter's static fonts: python subset.py DIRECTORY-WITH-INTER-OTF (needs fonttools)."""

import pathlib
import sys

from fontTools import subset
from fontTools.ttLib import TTFont

FAMILY = "Fairtat Sans"
# Latin with extensions, combining marks, Greek, Cyrillic, super- and subscripts, arrows, mathematics, punctuation.
UNICODES = (
    "U+0020-007E,U+00A0-017F,U+0218-021B,U+02C6-02DD,U+0300-0304,U+0306-030C,U+0327,U+0328,U+0384-03CE,U+0400-045F,U+0490-0491,U+1E9E,"
    "U+2010-2015,U+2018-201E,U+2020-2022,U+2026,U+2030,U+2032,U+2033,U+2039,U+203A,U+2070-208E,U+20AC,U+2122,"
    "U+2190-2194,U+2202,U+2206,U+2211,U+2212,U+2215,U+221A,U+221E,U+2248,U+2260,U+2264,U+2265,U+25CF,U+2713"
)

source, here = pathlib.Path(sys.argv[1]), pathlib.Path(__file__).parent
for style, weight in (("Regular", 400), ("SemiBold", 600)):
    options = subset.Options(layout_features=["kern", "mark", "mkmk", "ccmp", "locl"], hinting=False, desubroutinize=True)
    options.name_IDs = [0, 1, 2, 3, 4, 5, 6, 13, 14]
    font = TTFont(source / f"Inter-{style}.otf")
    subsetter = subset.Subsetter(options)
    subsetter.populate(unicodes=subset.parse_unicodes(UNICODES))
    subsetter.subset(font)
    # The licence has no reserved font name, but Inter is a trademark and this is not the whole of it.
    plain = f"{FAMILY}-{style}".replace(" ", "")
    names = {1: FAMILY, 2: style, 3: plain, 4: f"{FAMILY} {style}", 6: plain, 16: FAMILY, 17: style}
    for identifier, text in names.items():
        font["name"].setName(text, identifier, 3, 1, 0x409)
    top = font["CFF "].cff
    top.fontNames = [plain]
    top[0].FamilyName, top[0].FullName = FAMILY, f"{FAMILY} {style}"
    font["OS/2"].usWeightClass = weight
    font.save(here / f"{plain}.otf")
