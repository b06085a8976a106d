"""Figures of the tokenizer and of the dynamics model on clips that were not trained on, with baselines beside."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from genie_play.eval import measures
from genie_play.eval.subject import SEED, Batch, Pictures, Subject, after_none, decode, encode, grid, infer
from genie_play.eval.table import Row
from genie_play.types import N_ACTIONS

LEAD = 16  # frames between the picture that is given and those that the tokenizer is measured on


def tokenizer(subject: Subject, draw: int = 0) -> list[Row]:
    """How well pictures survive: known and unseen looks, inside the avatar's box, use of the codes."""
    rows, codes = [], subject.genie.config.tokenizer.codes
    # what the decoder knows of a look comes from a picture some way back, as in play
    lead = LEAD if subject.genie.config.tokenizer.look else 0
    for name, source in (("known looks", subject.known), ("unseen looks", subject.unseen)):
        truth = subject.clips(source, 0, draw, subject.size.clips, 8 + lead)
        frames, mask = truth.frames[:, lead:], truth.mask[:, lead:]
        tokens = encode(subject.genie, frames)
        seen = decode(subject.genie, tokens, truth.frames[:, 0])
        flat = np.broadcast_to(frames.mean((2, 3), keepdims=True), frames.shape).astype(np.uint8)
        value = measures.psnr(frames, seen)
        beside = f"mean colour {measures.psnr(frames, flat):.1f}"
        rows.append(Row("tokenizer", f"PSNR, {name}", value, "dB", beside))
        box = measures.psnr(frames, seen, measures.boxes(mask))
        rows.append(Row("tokenizer", f"PSNR in the avatar's box, {name}", box, "dB"))
        if source is subject.unseen:
            used = len(np.unique(tokens)) / codes
            spread = measures.perplexity(tokens, codes)
            rows.append(Row("tokenizer", "codes used", 100 * used, "%", f"perplexity {spread:.0f}"))
        if draw == 0:
            pick = np.linspace(0, len(seen) - 1, 8).astype(int)
            subject.pictures[f"tokenizer-{name.split()[0]}"] = grid([frames[pick, -1], seen[pick, -1]])
    return rows


def dynamics(subject: Subject, draw: int = 0, true_keys: bool = False) -> list[Row]:
    """Prediction from real frames: cross-entropy of hidden frames, next frame, delta-t, rollouts.

    The codes are inferred from the clips; with `true_keys` they are the keys of the game, for a model that was trained
    on these (see `upper_bound.py`).
    """
    genie = subject.genie
    truth = subject.clips(subject.unseen, 3, draw, subject.size.clips, subject.size.frames)
    tokens = torch.from_numpy(encode(genie, truth.frames))
    codes = after_none(genie, truth.actions if true_keys else infer(genie, truth.frames))
    rows = [_hidden_entropy(subject, tokens, codes)]

    # the first predicted frame after four real ones
    guess = _begun(subject, truth.frames, tokens, codes, 4).step(codes[:, 4], SEED + draw)
    value = measures.psnr(truth.frames[:, 4], guess)
    copy = measures.psnr(truth.frames[:, 4], truth.frames[:, 3])
    top = measures.psnr(truth.frames[:, 4], decode(genie, tokens, truth.frames[:, 0])[:, 4])
    beside = f"{value:.1f} against {copy:.1f}, tokenizer {top:.1f}"
    rows.append(Row("dynamics", "next frame minus copy-frame", value - copy, "dB", beside))

    # rollouts from two real frames, with the clip's own codes, with random ones, with one and the same
    others = torch.randint(0, N_ACTIONS, codes.shape, generator=torch.Generator().manual_seed(SEED + draw))
    constant = torch.full_like(codes, _usual(codes))
    length = min(16, tokens.shape[1] - 2)
    runs = {
        name: _rollout(subject, truth.frames, tokens, codes, told, length, SEED + draw)
        for name, told in (("own", codes), ("random", others), ("constant", constant))
    }
    real = truth.frames[:, 2 : 2 + length]

    def at(name: str, t: int) -> float:
        return measures.psnr(real[:, t - 1], runs[name][:, t - 1])

    delta = at("own", 4) - at("random", 4)
    beside = f"own codes {at('own', 4):.1f}, random {at('random', 4):.1f}, constant {at('constant', 4):.1f}"
    rows.append(Row("dynamics", "delta-t PSNR, t = 4", delta, "dB", beside))
    for t in (1, 4, 8, 16):
        if t <= length:
            copied = measures.psnr(real[:, t - 1], truth.frames[:, 1])
            beside = f"copy of the start {copied:.1f}"
            rows.append(Row("dynamics", f"rollout PSNR, frame {t}", at("own", t), "dB", beside))
    if draw == 0 and not true_keys:
        strips = [
            strip
            for clip in range(min(4, len(real)))
            for strip in (real[clip], runs["own"][clip], runs["random"][clip])
        ]
        subject.pictures["rollout"] = grid(strips)
    return rows


def _hidden_entropy(subject: Subject, tokens: Tensor, codes: Tensor) -> Row:
    """Cross-entropy of fully hidden frames under the true codes, shuffled ones and one constant code."""
    model = subject.genie.dynamics
    teacher = model.config.recipe == "teacher"
    found = {}
    told_of = {"true": codes, "shuffled": torch.roll(codes, 1, 0), "constant": torch.full_like(codes, _usual(codes))}
    for name, told in told_of.items():
        total, count = 0.0, 0
        for some in range(0, len(tokens), 8):
            cut = slice(some, some + 8)
            # the last frame alone is hidden, where one stream serves as both
            hidden = tokens[cut].clone()
            hidden[:, 0 if teacher else -1 :] = model.mask_id
            states = model(hidden, told[cut], tokens[cut] if teacher else None)
            first = 2 if teacher else tokens.shape[1] - 1
            logits, right = model.logits(states[:, first:]), tokens[cut, first:]
            total += float(F.cross_entropy(logits.flatten(0, -2), right.flatten(), reduction="sum"))
            count += right.numel()
        found[name] = total / count
    beside = f"true {found['true']:.2f}, shuffled {found['shuffled']:.2f}, constant {found['constant']:.2f}"
    gap = found["shuffled"] - found["true"]
    return Row("dynamics", "hidden cross-entropy, shuffled minus true", gap, "nats", beside)


def _usual(codes: Tensor) -> int:
    return int(torch.bincount(codes[:, 1:].flatten()).argmax())


def _begun(subject: Subject, real: Pictures, tokens: Tensor, codes: Tensor, frames: int) -> Batch:
    """A batch that was given the first frames of real clips (B, T, H, W, 3)."""
    batch = subject.batch(len(tokens))
    for t in range(frames):
        batch.feed(tokens[:, t], codes[:, t], real[:, t])
    return batch


def _rollout(
    subject: Subject, real: Pictures, tokens: Tensor, codes: Tensor, told: Tensor, length: int, seed: int
) -> Pictures:
    """Frames (B, length, H, W, 3) sampled after two real ones under the codes `told`."""
    batch = _begun(subject, real, tokens, codes, 2)
    return np.stack([batch.step(told[:, 2 + t], seed) for t in range(length)], 1)
