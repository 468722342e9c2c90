"""Output that drives a terminal or would, and what a viewer that only looks may be sent at all."""

from __future__ import annotations

import re

#: All that a viewer that only looks may be sent.
OURS = re.compile(r"(?:\x1b\[(?:\d+;\d+H|\d+(?:;\d+)*m|K|2J|\?25[hl]|\?1049[hl])|[^\x00-\x1f\x7f-\x9f])*")
#: What has driven terminals, or would.
HOSTILE = (
    *(b"\x1b]0;title\x07", b"\x1b]2;title\x1b\\", b"\x1b]52;c;cm0gLXJm\x07", b"\x1b]8;;http://x\x1b\\link"),
    *(
        b"\x1bP$qm\x1b\\",
        b"\x1bP+q544e\x1b\\",
        b"\x1b_Gi=31;\x1b\\",
        b"\x1b^pm\x1b\\",
        b"\x1bXsos\x1b\\",
        b"\x1bktmux\x1b\\",
    ),
    *(
        b"\x1b[6n",
        b"\x1b[c",
        b"\x1b[>c",
        b"\x1b[=c",
        b"\x1b[21t",
        b"\x1b[18t",
        b"\x1b[x",
        b"\x1b[?1$p",
        b"\x1bZ",
        b"\x05",
    ),
    *(
        b"\x1b[5i",
        b"\x1b[4i",
        b"\x1b[8;1;1t",
        b"\x1b%@",
        b'\x1b[62"p',
        b"\x1b[?3h",
        b"\x1b[?1004h",
        b"\x1b[>4;2m",
    ),
    *(
        b"\x9b21t",
        b"\xc2\x9b21t",
        b"\xc2\x90q\xc2\x9c",
        b"\x90q\x9c",
        b"\x1b[",
        b"\x1b]0;",
        b"\x1bP",
        b"\x18",
        b"\x1b\x1b[",
    ),
    *(
        "\u202e\u2066bidi".encode(),
        "\u200b\u0301".encode() * 20,
        b"\xff\xfe\xc0\xaf",
        b"\x00\x7f\x08\x0b\x0c\x0e",
    ),
)
