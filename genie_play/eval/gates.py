"""What a world should reach, as data: one set of gates for each preset, by stage and measure.

`spark`, `doodle`, `doodle-fine`: what a world trained on two CPU cores should reach. `pocket`: the bar of the shipped
world. Presets without a set are measured and not judged. Stop values are lower: below them nothing is built on a
network (`train all`).
"""

from __future__ import annotations

Gates = dict[tuple[str, str], float]  # (stage, measure) -> the least it should be

SPARK: Gates = {
    ("tokenizer", "PSNR, known looks"): 28.0,
    ("tokenizer", "PSNR, unseen looks"): 26.0,
    ("tokenizer", "PSNR in the avatar's box, known looks"): 20.0,
    ("tokenizer", "PSNR in the avatar's box, unseen looks"): 20.0,
    ("tokenizer", "codes used"): 40.0,
    ("actions", "codes above 2% of use"): 5,
    ("actions", "reconstruction minus shuffled codes"): 0.7,
    ("actions", "NMI with the true key"): 0.3,
    ("actions", "same start, grounded: the key's code"): 85.0,
    ("dynamics", "hidden cross-entropy, shuffled minus true"): 0.01,
    ("dynamics", "next frame minus copy-frame"): 3.0,
    ("dynamics", "delta-t PSNR, t = 4"): 1.5,
    ("play", "left, right and up among them"): 1.0,
    ("play", "edge energy of the second half, against real"): 0.7,
    ("play", "avatar present"): 85.0,
}

POCKET: Gates = {
    ("tokenizer", "PSNR, unseen looks"): 29.0,
    ("tokenizer", "PSNR in the avatar's box, unseen looks"): 24.0,
    ("tokenizer", "codes used"): 70.0,
    ("actions", "codes above 2% of use"): 6,
    ("actions", "reconstruction minus shuffled codes"): 1.5,
    ("actions", "same start, grounded: the key's code"): 85.0,
    ("dynamics", "hidden cross-entropy, shuffled minus true"): 0.1,
    ("dynamics", "next frame minus copy-frame"): 4.0,
    ("dynamics", "delta-t PSNR, t = 4"): 1.9,
    ("play", "held jumps that come down within 12 ticks"): 85.0,
    ("play", "holds of 40 ticks that keep the level, worst code"): 95.0,
    ("play", "held codes agree, mean over codes"): 88.0,
    ("play", "held codes agree, looks of paper"): 80.0,
    ("play", "left, right and up among them"): 1.0,
    ("play", "edge energy, against real"): 0.85,
    ("play", "avatar present"): 93.0,
    ("play", "random play that does not end"): 100.0,
    ("sketches", "held codes agree, mean over twelve"): 80.0,
}

STOPS: Gates = {
    ("tokenizer", "PSNR, unseen looks"): 27.0,
    ("tokenizer", "PSNR in the avatar's box, unseen looks"): 22.0,
    ("tokenizer", "codes used"): 40.0,
    ("actions", "codes above 2% of use"): 5,
    ("actions", "reconstruction minus shuffled codes"): 0.7,
    ("actions", "same start, grounded: the key's code"): 70.0,
    ("actions", "NMI with the true key"): 0.3,
    ("dynamics", "hidden cross-entropy, shuffled minus true"): 0.0,
    ("dynamics", "next frame minus copy-frame"): 1.0,
    ("dynamics", "delta-t PSNR, t = 4"): 1.0,
}

# a tokenizer for two CPU cores is held to what the first `spark` could be played with, not to what `pocket` needs
SMALL_STOPS: Gates = STOPS | {
    ("tokenizer", "PSNR, unseen looks"): 25.0,
    ("tokenizer", "PSNR in the avatar's box, unseen looks"): 18.0,
}

GATES: dict[str, Gates] = {"spark": SPARK, "doodle": SPARK, "doodle-fine": SPARK, "pocket": POCKET}


def stops_of(preset: str) -> Gates:
    """The stop values of a preset."""
    return SMALL_STOPS if GATES.get(preset) is SPARK else STOPS


def gates_of(preset: str) -> Gates:
    """The gates of a preset, none where there is no set."""
    return GATES.get(preset, {})
