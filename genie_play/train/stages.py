"""The stages of training as data: which networks learn, from what loss, and what to watch.

Bruce et al. 2024, section 2.1 for the stages; DESIGN 4 for what differs by default. A stage knows nothing of
optimisers, files or devices. All randomness comes from the generator of the step.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor

from genie_play.nn.genie import Genie
from genie_play.nn.quantize import Quantizer
from genie_play.nn.tokenizer import Tokenizer

HIDE_HISTORY = 0.25  # share of clips whose temporal layers see nothing: tokens must survive cuts, prompts and edits
UNQUANTIZED = {"tokenizer": 0.03, "actions": 0.35}  # share of the steps before the codebook starts: earlier is worse
CHOOSE_KEYS = 0.4  # progress at which the best table of wishes is kept
DROP_ACTION = 0.15  # share of frames that train the 'no action' row
FULLY_HIDDEN = 0.3  # share of target frames with no visible token: the start of every frame in play
CORRUPT_RATE = 0.2  # largest share of context tokens replaced
OWN_WEIGHT = 6.0  # that pixels which move on their own have beside the 1 of all
STRAY = 0.06  # mean difference of a pixel's surroundings from which they did not move with the picture
FARTHEST = 10  # pixels that a picture moves in a tick
EDGE_SHARE = 0.5  # of the edge energy of patches in the loss of the decoder
EDGE_PATCH = 8  # pixels
NEAR_CODES = 8  # neighbours of a code that corruption draws from
OWN_TEMPERATURE = 1.0
GAP_EVERY = 100  # steps between looks at what the codes are worth
TURNED = 0.35  # share of the clips whose context turns to other colours
SELF_CONTEXT = 0.5  # progress from which half the clips get frames of the model's own as context
OWN_USES = 4  # steps in which a clip gets them, each time drawn again from those of the time before
OWN_KEPT = 8  # such clips are kept for each one that a step sees


@dataclass
class Step:
    """What a loss may look at besides the networks and the frames."""

    index: int
    total: int
    generator: torch.Generator
    memory: dict[str, Tensor] = field(default_factory=dict)  # what a loss keeps for later steps; saved with the run

    @property
    def progress(self) -> float:
        """0 at the first step of the stage, 1 after the last."""
        return self.index / self.total

    def rand(self, *shape: int, device: torch.device | str = "cpu") -> Tensor:
        """Uniform numbers, drawn on the CPU so that every device sees the same."""
        return torch.rand(*shape, generator=self.generator).to(device)


@dataclass
class Outcome:
    """A loss, what to log beside it, and what to do after the optimiser's step."""

    loss: Tensor
    watch: Mapping[str, float | Tensor] = field(default_factory=dict)
    after: Callable[[], None] | None = None


@dataclass(frozen=True)
class Stage:
    """One stage: `learns` names the parts of Genie whose parameters move, dotted."""

    name: str
    learns: tuple[str, ...]
    loss: Callable[[Genie, Tensor, Step], Outcome]
    needs: tuple[str, ...] = ()  # stages that must be trained before


def tokenizer_loss(genie: Genie, frames: Tensor, step: Step) -> Outcome:
    """Squared and absolute error of pixels and of their gradients; hard pixels weigh more, at most fivefold, and what
    moves on its own.

    The one weight is the error itself, without gradient. Both find the avatar without a label: its colours are rare,
    and it does not scroll.
    """
    tokenizer = genie.tokenizer
    hidden = step.rand(len(frames), device=frames.device) < HIDE_HISTORY
    seen = tokenizer(frames, hidden)
    error = seen.pixels.float() - frames
    with torch.no_grad():
        size = error.abs().amax(-1, keepdim=True)
        weight = 1 + (size / (size.mean() + 1e-3)).clamp(0, 4)
        weight = weight * (1 + OWN_WEIGHT * on_its_own(frames))
        weight = weight / weight.mean()
    square, absolute = (weight * error.square()).mean(), (weight * error.abs()).mean()
    down, across = neighbours(error)
    edges = down.abs().mean() + across.abs().mean()
    loss = 4 * square + 0.4 * absolute + 0.2 * edges + 0.25 * seen.quantized.commitment

    def after() -> None:
        _tend(tokenizer.quantizer, seen.latents, seen.quantized.tokens, step, UNQUANTIZED["tokenizer"])

    watch = {"psnr": psnr(error.square().mean()), "used": _used(seen.quantized.tokens, tokenizer.config.codes)}
    return Outcome(loss, watch, after)


def decoder_loss(genie: Genie, frames: Tensor, step: Step) -> Outcome:
    """Error of pixels under tokens that stay what they are: the decoder learns on, and no other stage notices.

    The paper found that the decoder repays capacity most (appendix C.2); it repays time too. Errors of pixels alone
    leave out thin strokes that may lie here or there: each patch shall have as much edge as the true one. What moves on
    its own weighs more, as for the tokenizer.
    """
    hidden = step.rand(len(frames), device=frames.device) < HIDE_HISTORY
    tokenizer = genie.tokenizer
    with torch.no_grad():
        codes = tokenizer.quantizer(tokenizer.encoder(frames, hidden)).vectors
        weight = 1 + OWN_WEIGHT * on_its_own(frames)
        weight = weight / weight.mean()
    shown = tokenizer.decoder(codes, hidden, tokenizer.look(frames[:, 0])).float()
    error = shown - frames
    down, across = neighbours(error)
    edges = down.abs().mean() + across.abs().mean()
    energy, true_energy = edge_energy(shown), edge_energy(frames)
    loss = 4 * (weight * error.square()).mean() + 0.1 * (weight * error.abs()).mean() + 0.05 * edges
    loss = loss + EDGE_SHARE * (energy - true_energy).abs().mean()
    share = energy.detach().mean() / (true_energy.mean() + 1e-6)
    return Outcome(loss, {"psnr": psnr(error.square().mean()), "edges": share})


def actions_loss(genie: Genie, frames: Tensor, step: Step) -> Outcome:
    """The latent action model's own loss (see `nn/latent_action.py`)."""
    actions = genie.actions
    seen = actions(frames)

    def after() -> None:
        _tend(actions.quantizer, seen.latents, seen.quantized.tokens, step, UNQUANTIZED["actions"])

    error = (seen.predicted.detach() - seen.target).square().mean()
    copy = (seen.source - seen.target).square().mean()
    watch = {"psnr": psnr(error), "copy": psnr(copy), "used": _used(seen.quantized.tokens, actions.quantizer.codes)}
    return Outcome(actions.loss(seen), watch, after)


def keys_loss(genie: Genie, frames: Tensor, step: Step) -> Outcome:
    """What keys leave unexplained of the motions that the action model sees (see `nn/keys.py`)."""
    actions = genie.actions
    assert actions.keys is not None
    with torch.no_grad():
        small, seen = actions.read(frames)
    keys = actions.keys
    loss, unexplained, say = keys.loss(small, seen)

    def after() -> None:
        if step.progress >= CHOOSE_KEYS:
            keys.choose()

    return Outcome(loss, {"unexplained": unexplained, "say": say}, after)


def dynamics_loss(genie: Genie, frames: Tensor, step: Step) -> Outcome:
    """Cross-entropy of masked tokens under complete teacher forcing: what is cached in play is what is trained."""
    clean, actions = read_clip(genie, frames, step)
    # a decoder that keeps to the look of a picture holds its colours, whatever the tokens do
    shown = clean if genie.tokenizer.config.look else with_other_colours(genie, frames, clean, step)
    kept = None
    if step.progress >= SELF_CONTEXT:
        clean, actions, kept = take_up(clean, actions, step)
        half = len(kept.where)
        shown = torch.cat((clean[:half], shown[half:]))  # what was recoloured there is of other clips
    dynamics = genie.dynamics
    device, (clips, count, _) = clean.device, clean.shape
    near = near_codes(genie.tokenizer)
    mask = draw_mask(clean.shape, step).to(device)
    actions = actions.masked_fill(step.rand(clips, count, device=device) < DROP_ACTION, dynamics.no_action)
    context, levels = corrupt(shown, near, dynamics.config.noise_levels, step)
    if kept is not None:
        context = with_own_frames(genie, clean, context, actions, levels, kept, step)
    hidden = dynamics(clean.masked_fill(mask, dynamics.mask_id), actions, context, levels)
    mask[:, 0] = False  # the prompt is never predicted
    loss, watch = masked_cross_entropy(genie, hidden, clean, mask)
    if (step.index + 1) % GAP_EVERY == 0:
        watch["gap"] = code_gap(genie, clean, actions)
    return Outcome(loss, watch)


def paper_dynamics_loss(genie: Genie, frames: Tensor, step: Step) -> Outcome:
    """The paper's baseline: one stream masked at a rate of U(0.5, 1), the action model trained beside it."""
    outcome = actions_loss(genie, frames, step)
    clean, actions = read_clip(genie, frames, step)
    rate = 0.5 + 0.5 * step.rand(len(clean), 1, 1)
    mask = (step.rand(*clean.shape) < rate).to(clean.device)
    mask[:, 0] = False
    hidden = genie.dynamics(clean.masked_fill(mask, genie.dynamics.mask_id), actions)
    loss, watch = masked_cross_entropy(genie, hidden, clean, mask)
    return Outcome(
        loss + outcome.loss, {**{f"actions_{k}": v for k, v in outcome.watch.items()}, **watch}, outcome.after
    )


STAGES = {
    "tokenizer": Stage("tokenizer", ("tokenizer",), tokenizer_loss),
    "actions": Stage("actions", ("actions",), actions_loss),
    "keys": Stage("keys", ("actions.keys",), keys_loss, ("actions",)),
    "decoder": Stage("decoder", ("tokenizer.decoder",), decoder_loss, ("tokenizer",)),
    "dynamics": Stage("dynamics", ("dynamics",), dynamics_loss, ("tokenizer", "actions", "actions.keys")),
}
PAPER_STAGES = {
    "tokenizer": STAGES["tokenizer"],
    "dynamics": Stage("dynamics", ("actions", "dynamics"), paper_dynamics_loss, ("tokenizer",)),
}


@torch.no_grad()
def read_clip(genie: Genie, frames: Tensor, step: Step) -> tuple[Tensor, Tensor]:
    """Clips (B, T, H, W, 3) to tokens (B, T, N) and the action (B, T) that led to each frame, 'none' for the first."""
    tokens = genie.tokenizer.encode(frames)
    uniforms = step.rand(len(frames), frames.shape[1] - 1, device=frames.device)
    codes = genie.actions.draw(frames, uniforms)
    first = torch.full_like(codes[:, :1], genie.dynamics.no_action)
    return tokens, torch.cat((first, codes), 1)


def draw_mask(shape: tuple[int, ...] | torch.Size, step: Step) -> Tensor:
    """(B, T, N) bool: three frames in ten fully hidden, the others hidden at the cosine of a uniform number."""
    clips, count, tokens = shape
    rate = torch.cos(math.pi / 2 * step.rand(clips, count, 1))
    rate = torch.where(step.rand(clips, count, 1) < FULLY_HIDDEN, 1.0, rate)
    mask = step.rand(clips, count, tokens) < rate
    return mask


def neighbours(frames: Tensor) -> tuple[Tensor, Tensor]:
    """What lies between each pixel of (..., H, W, C) and the one below, and between it and the one to its right."""
    return frames[..., 1:, :, :] - frames[..., :-1, :, :], frames[..., 1:, :] - frames[..., :-1, :]


def on_its_own(frames: Tensor) -> Tensor:
    """Where clips (B, T, H, W, 3) in 0..1 show what did not move as the whole picture did, (B, T, H, W, 1), 0 or 1: an
    avatar that stays while the land scrolls, or moves while it stays. Nowhere in the first frame, nor in the second,
    which may be long after it.

    The move of the whole picture, of whole pixels, is that under which its edges are most alike; their sizes count by
    the root, so that one strong edge does not outvote many.
    """
    (clips, count), (height, width) = frames.shape[:2], frames.shape[2:4]
    if count < 3:
        return torch.zeros_like(frames[..., :1])
    now, before = (x.float().flatten(0, 1).permute(0, 3, 1, 2) for x in (frames[:, 2:], frames[:, 1:-1]))
    a, b = (torch.fft.rfft2(_edges(x)) for x in (now, before))
    alike = torch.fft.irfft2((a * b.conj()).sum(1), s=(height, width))  # by how far `before` moves, round and round
    far = (min(FARTHEST, (size - 1) // 2) for size in (height, width))
    down, across = (torch.arange(-most, most + 1, device=frames.device) for most in far)
    best = alike[:, down % height][:, :, across % width].flatten(1).argmax(1)
    row = torch.arange(height, device=frames.device) - down[best // len(across), None]  # where each came from
    column = torch.arange(width, device=frames.device) - across[best % len(across), None]
    known = ((row >= 0) & (row < height))[:, :, None] & ((column >= 0) & (column < width))[:, None]
    pair = torch.arange(len(now), device=frames.device)[:, None, None]
    moved = before.permute(0, 2, 3, 1)[pair, (row % height)[:, :, None], (column % width)[:, None]]
    apart = (now.permute(0, 2, 3, 1) - moved).abs().mean(-1) * known  # what came in over the border is not counted
    stray = F.avg_pool2d(apart[:, None], 3, 1, 1) > STRAY
    own = F.max_pool2d(stray.float(), 5, 1, 2)[:, 0].unflatten(0, (clips, count - 2))
    return F.pad(own, (0, 0, 0, 0, 2, 0))[..., None]


def _edges(pictures: Tensor) -> Tensor:
    """(B, 3, H, W) to (B, 6, H, W): what lies between neighbours, its size by the root."""
    down, across = pictures[:, :, 1:] - pictures[:, :, :-1], pictures[..., 1:] - pictures[..., :-1]
    both = torch.cat((F.pad(down, (0, 0, 0, 1)), F.pad(across, (0, 1))), 1)
    return both.sign() * both.abs().sqrt()


def edge_energy(frames: Tensor) -> Tensor:
    """(B, T, H, W, C) to (B * T, H / 8, W / 8): how far neighbouring pixels lie apart, the mean of each patch."""
    down, across = (step.abs().mean(-1) for step in neighbours(frames))
    both = F.pad(down, (0, 0, 0, 1)) + F.pad(across, (0, 1))
    return F.avg_pool2d(both.flatten(0, 1), EDGE_PATCH)


def near_codes(tokenizer: Tokenizer) -> Tensor:
    """(V, NEAR_CODES) int64: the nearest other codes of each code, by cosine."""
    codebook = tokenizer.quantizer.codebook
    alike = codebook @ codebook.T
    alike.fill_diagonal_(-2)
    return alike.topk(min(NEAR_CODES, len(codebook) - 1), -1).indices


def corrupt(clean: Tensor, near: Tensor, levels: int, step: Step) -> tuple[Tensor, Tensor]:
    """Replace context tokens of half the clips at a rate of U(0, 0.2), half by near codes; (B, T, N) and (B, T) levels.

    Level 0 is untouched, the bucket of play; the others count up with the rate.
    """
    device, (clips, count, tokens) = clean.device, clean.shape
    if levels < 2:
        return clean, torch.zeros(clips, count, dtype=torch.int64, device=device)
    rate = CORRUPT_RATE * step.rand(clips, 1, 1) * (step.rand(clips, 1, 1) < 0.5)
    level = torch.ceil(rate / CORRUPT_RATE * (levels - 1)).long()[:, :, 0].expand(clips, count).to(device)
    hit = (step.rand(clips, count, tokens) < rate).to(device)
    pick = (step.rand(clips, count, tokens, device=device) * near.shape[1]).long()
    alike = near[clean].gather(-1, pick[..., None])[..., 0]
    anything = (step.rand(clips, count, tokens, device=device) * len(near)).long()
    other = torch.where(step.rand(clips, count, tokens, device=device) < 0.5, alike, anything)
    return torch.where(hit, other, clean), level


@torch.no_grad()
def with_other_colours(genie: Genie, frames: Tensor, clean: Tensor, step: Step) -> Tensor:
    """In some clips let a run of context frames turn, little by little, to other colours; (B, T, N) tokens.

    In long play colours turn and nothing leads back: what was learned copies the last frame. Here the frame to guess
    has the colours of the first one, whatever the frames before it have.
    """
    few = max(round(TURNED * len(clean)), 1)
    some, device = frames[-few:], clean.device
    ramp = 1 + 24 * step.rand(few, 1, device=device)
    most = 0.3 + 0.7 * step.rand(few, 1, device=device)
    begin, within = _a_run(few, clean.shape[1], step, device)
    strength = ((torch.arange(clean.shape[1], device=device) + 1 - begin) / ramp).clamp(0, 1) * most * within
    tokens = genie.tokenizer.encode(recolour(some, strength[..., None, None, None], step))
    return torch.cat((clean[:-few], torch.where(within[..., None], tokens, clean[-few:])))


def recolour(clips: Tensor, strength: Tensor, step: Step) -> Tensor:
    """Clips (B, T, H, W, 3) in 0..1 blended, by a strength of 0 to 1, with themselves in other colours: channels
    exchanged in half of them, light and dark in a fifth, another contrast, range and tint in all."""
    count, device = len(clips), clips.device

    def rand(*shape: int) -> Tensor:
        return step.rand(count, *shape, device=device)

    order = torch.where(rand(1) < 0.5, rand(3).argsort(-1), torch.arange(3, device=device))
    other = clips.gather(-1, order[:, None, None, None].expand(clips.shape))
    other = torch.where(rand(1, 1, 1, 1) < 0.2, 1 - other, other)
    other = other.clamp_min(1e-4) ** (1.2 * rand(1, 1, 1, 3) - 0.6).exp()
    low, high = 0.35 * rand(1, 1, 1, 3), 1 - 0.35 * rand(1, 1, 1, 3)
    return clips + strength * (low + (high - low) * other - clips)


def _a_run(clips: int, count: int, step: Step, device: torch.device) -> tuple[Tensor, Tensor]:
    """Of the frames of each clip, the first left out, a run of any length: where it begins, (B, 1), and it, (B, T)."""
    begin = 1 + (step.rand(clips, 1, device=device) * (count - 1)).long()
    length = 1 + (step.rand(clips, 1, device=device) * (count - 1)).long()
    time = torch.arange(count, device=device)
    return begin, (time >= begin) & (time < begin + length)


@dataclass
class Kept:
    """Clips taken up from earlier steps, (H, ...): where they are kept, and what of them is the model's own."""

    where: Tensor
    fresh: Tensor  # (H,) bool: nothing is, yet
    sharp: Tensor  # (H,) bool: the last pass of their samples takes what is likeliest
    run: Tensor  # (H, T, 1) bool: the frames that are its own
    own: Tensor  # (H, T, N)


@torch.no_grad()
def take_up(clean: Tensor, actions: Tensor, step: Step) -> tuple[Tensor, Tensor, Kept]:
    """Put half the clips (B, T, N) and their actions (B, T) aside and take up as many that were put aside before, of
    which the model has made frames of its own already. One that was used OWN_USES times gives its place to a new one.
    """
    half, device, memory = max(len(clean) // 2, 1), clean.device, step.memory
    some, told, many = clean[:half], actions[:half], OWN_KEPT * half
    if not memory:
        memory["tokens"], memory["own"] = (clean[:1].repeat(many, 1, 1) for _ in range(2))
        memory["actions"] = actions[:1].repeat(many, 1)
        memory["run"] = torch.zeros(many, clean.shape[1], 1, dtype=torch.bool, device=device)
        memory["sharp"] = torch.zeros(many, dtype=torch.bool, device=device)
        memory["uses"] = torch.full((many,), OWN_USES, device=device)
    where = step.rand(many, device=device).argsort()[:half]
    fresh = memory["uses"][where] >= OWN_USES
    new = {
        "tokens": some,
        "own": some,
        "actions": told,
        "run": _a_run(half, clean.shape[1], step, device)[1][..., None],
        "sharp": step.rand(half, device=device) < 0.5,
        "uses": torch.zeros_like(fresh, dtype=torch.int64),
    }
    for name, value in new.items():
        was = memory[name][where]
        memory[name][where] = torch.where(fresh.view(-1, *[1] * (value.dim() - 1)), value, was)
    memory["uses"][where] += 1
    kept = Kept(where, fresh, *(memory[name][where] for name in ("sharp", "run", "own")))
    clean = torch.cat((memory["tokens"][where], clean[half:]))
    return clean, torch.cat((memory["actions"][where], actions[half:])), kept


@torch.no_grad()
def with_own_frames(
    genie: Genie, clean: Tensor, context: Tensor, actions: Tensor, levels: Tensor, kept: Kept, step: Step
) -> Tensor:
    """In half the clips, replace a run of context frames, of any length, by the model's own two-pass samples.

    Drawn from a real past these err for the first time. In every other step they are drawn again from a past that holds
    them, and whenever their clip is taken up again they are drawn from those of then: they err on top of errors, which
    have aged, as in play, where after a window no frame of the past is real.
    """
    device, half = clean.device, len(kept.where)
    some, known, told, level = clean[:half], context[:half], actions[:half], levels[:half]
    dynamics = genie.dynamics
    past = torch.where(kept.run & ~kept.fresh[:, None, None], kept.own, known)
    for _ in range(1 + step.index % 2):
        order = step.rand(*some.shape, device=device).argsort(-1)
        current = torch.full_like(some, dynamics.mask_id)
        tokens = some.shape[-1]
        for first, last in ((0, tokens // 3), (tokens // 3, tokens)):
            logits = dynamics.logits(dynamics(current, told, past, level))
            best = logits.topk(2, -1)
            # two candidates are enough to make a sample that errs as play does, at a fraction of a full draw
            noise = torch.logit(step.rand(*some.shape, device=device), 1e-6)
            second = best.values[..., 0] - best.values[..., 1] < OWN_TEMPERATURE * noise
            if first:
                second &= ~kept.sharp[:, None, None]
            drawn = torch.where(second, best.indices[..., 1], best.indices[..., 0])
            now = (order >= first) & (order < last)
            current = torch.where(now, drawn, current)
        past = torch.where(kept.run, current, known)
    step.memory["own"][kept.where] = past
    return torch.cat((past, context[half:]))


@torch.no_grad()
def code_gap(genie: Genie, clean: Tensor, actions: Tensor) -> Tensor:
    """Cross-entropy of hidden frames under another clip's codes, less that under their own: 0 where keys do nothing."""
    half = max(len(clean) // 2, 1)
    some, levels = clean[:half], torch.zeros_like(actions[:half])
    hidden = torch.full_like(some, genie.dynamics.mask_id)
    found = []
    for told in (actions, actions.roll(1, 0)):
        logits = genie.dynamics.logits(genie.dynamics(hidden, told[:half], some, levels)[:, 1:])
        found.append(F.cross_entropy(logits.flatten(0, -2), some[:, 1:].flatten()))
    return found[1] - found[0]


def masked_cross_entropy(
    genie: Genie, hidden: Tensor, clean: Tensor, mask: Tensor
) -> tuple[Tensor, dict[str, float | Tensor]]:
    """Mean cross-entropy of the masked tokens, all alike and nothing smoothed: play draws from what is learned here, so
    that a weight on some tokens, or a share of the mass on their neighbours, comes back as noise."""
    changed = torch.zeros_like(mask)
    changed[:, 1:] = clean[:, 1:] != clean[:, :-1]
    # a GPU would have to stop to count the masked ones: there all are looked at and the others weigh nothing
    where = (
        mask.flatten().nonzero()[:, 0] if mask.device.type == "cpu" else torch.arange(mask.numel(), device=mask.device)
    )
    target, masked, moved = (x.flatten()[where] for x in (clean, mask.float(), (mask & changed).float()))
    scores = F.log_softmax(genie.dynamics.logits(hidden.flatten(0, 2)[where]), -1)
    loss = -(masked * scores.gather(-1, target[:, None])[:, 0]).sum() / masked.sum()
    with torch.no_grad():
        right = (scores.argmax(-1) == target).float()
        watch: dict[str, float | Tensor] = {
            "ce": loss.detach(),
            "right": (right * masked).sum() / masked.sum(),
            "moved_right": (right * moved).sum() / moved.sum().clamp_min(1),
        }
    return loss, watch


def psnr(mean_square: Tensor) -> Tensor:
    """Peak signal-to-noise ratio in dB of a mean squared error of pixels in 0..1."""
    return -10 * torch.log10(mean_square.detach().float().clamp_min(1e-10))


def _tend(quantizer: Quantizer, latents: Tensor, tokens: Tensor, step: Step, share: float) -> None:
    """Start the codebook when its share of the steps is over; from then on move it with what it caught."""
    if quantizer.started:
        quantizer.update(latents, tokens, step.generator)
    elif step.index >= round(share * step.total):
        quantizer.start(latents, step.generator)


def _used(tokens: Tensor, codes: int) -> Tensor:
    return torch.zeros(codes, device=tokens.device).index_fill_(0, tokens.flatten(), 1.0).mean()
