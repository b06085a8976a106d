"""GenieEngine: the networks of a checkpoint behind the protocol `types.Engine`.

A play-through is a list of frames as the networks were fed them, an action and tokens each; rings, pool and futures are
cache. Reset, restore and play feed frames through the same lines, one at a time. The dynamics model lags one frame
behind the decoder: the last frame shown is not committed until `settle`, so that an edit can still replace it and a
commit never makes a key wait. Knows nothing of windows, sessions or files other than the checkpoint.
"""

from __future__ import annotations

import copy
import hashlib
import logging
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from genie_play import checkpoint as files
from genie_play import ops, schedule
from genie_play.config import PathConfig, SampleConfig, from_dict, to_dict
from genie_play.engine import arithmetic, building, calibration, cpu, verdicts
from genie_play.engine.calibration import Calibration, Watch
from genie_play.engine.fixed import FixedRing
from genie_play.engine.graph import FrameRunner, Made
from genie_play.engine.sampler import Sampler
from genie_play.engine.state import Pool, Ring
from genie_play.nn.fp8 import quantise_blocks
from genie_play.nn.genie import Genie, load_genie
from genie_play.nn.look import Look
from genie_play.nn.st_transformer import LayerKV, LayerPast, stream_blocks
from genie_play.ops.reference import VARIANTS
from genie_play.types import (
    BackendError,
    EngineInfo,
    Frame,
    GenieError,
    History,
    Pixels,
    Prompt,
    ReplayError,
    Tokens,
    check_action,
)

ARITHMETIC = {"fp32": torch.float32, "bf16": torch.bfloat16, "int8": torch.float32, "fp8": torch.bfloat16}
FOREIGN = "the tokens do not fit this world; they belong to another checkpoint, or are damaged"
POOL_EVERY = 4  # frames between the copies of the rings that are kept
SLACK = 2 * POOL_EVERY  # frames more than needed that a rebuild goes back, so that the next steps back find a copy

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Fed:
    """A frame as the networks were fed it. `digest` stands for it and all before it."""

    action: int  # the dynamics model's own 'no action' for a prompt
    tokens: Tokens  # (N,)
    digest: bytes
    picture: Pixels | None  # the last that a person gave, of a prompt or painted: the decoder keeps to its look

    @classmethod
    def after(cls, before: _Fed | None, action: int, tokens: Tokens, given: Pixels | None = None) -> _Fed:
        told = (before.digest if before else b"") + bytes([action]) + tokens.tobytes()
        if given is not None:
            told += given.tobytes()
        elif before is not None:
            given = before.picture
        return cls(action, tokens, hashlib.blake2s(told).digest(), given)


@dataclass(frozen=True)
class _Drawn:
    """A frame that may become the next: tokens (N,), pixels (H, W, 3), its decoder keys and values in a batch's."""

    tokens: Tokens
    pixels: Pixels
    kept: list[LayerKV] | int  # of a static frame: the batch in whose memory they lie
    row: int


class GenieEngine:
    """Plays a checkpoint: a file, or networks in memory, which are copied and stay as they are.

    `device` is auto, cpu, cuda or cuda:N; `path` overrides fields of the checkpoint's own `PathConfig`. BackendError
    for a device, backend or arithmetic asked for by name that is not there; where nobody asked, the next best is taken
    and said. `calibrate`: a CPU's arithmetic, among those that the world accepts, and threads are chosen by a short
    measurement, and threads are let go in play when they do not pay. Without it the same call gives the same path.
    `progress` is told in words what a long start is at.
    """

    def __init__(
        self,
        checkpoint: str | Path | Genie,
        device: str = "auto",
        *,
        progress: Callable[[str], None] | None = None,
        adopt: bool = False,  # networks that are in memory as the path wants them are kept, not copied
        calibrate: bool = False,
        **path: Any,
    ) -> None:
        # what `doctor --deep` found wrong here is not chosen
        device, path = verdicts.steer(checkpoint, device, path)
        self.device = find_device(device)
        building.prepare(self.device)
        name, backend = ops.choose(self.device, path.pop("ops", None))
        by_name = path.get("blocks") is not None
        changes = {**path, "device": str(self.device), "ops": name}
        if isinstance(checkpoint, Genie):
            genie = (checkpoint if adopt else copy.deepcopy(checkpoint)).requires_grad_(False).eval()
            header = files.Header(genie.config, shipped_path(genie.config.sample))
        else:
            genie, header = load_genie(Path(checkpoint), self.device)
        self.path = _path(header.path, building.resolve(_able(header.path, changes), header.world))
        failed = {} if isinstance(checkpoint, Genie) else verdicts.barred(checkpoint)
        accepted = [kind for kind in header.accepted if f"cpu/{kind}" not in failed]
        found = self._calibrated(genie, accepted) if calibrate and self.device.type == "cpu" else None
        self.path = found.path if found else self.path
        self._genie = genie if adopt else self._placed(genie)
        dynamics, tokenizer, n_tokens = self._genie.dynamics, self._genie.tokenizer, self._genie.dynamics.n_tokens
        self.info = EngineInfo(
            name=header.world.name,
            size=header.world.size,
            rate=header.world.rate,
            labels=header.labels,
            idle=header.idle,
            window=header.world.dynamics.window,
            anchor=header.world.dynamics.anchor,
            n_tokens=n_tokens,
            path=to_dict(self.path),
            device=str(self.device),
            checkpoint={"name": header.world.name, "sha256": header.sha256},
        )
        if torch.get_num_threads() != self.path.threads:
            torch.set_num_threads(self.path.threads)

        self._ops, self._sampler = backend, Sampler(dynamics, backend, self.path)
        cross_frame = dynamics.config.recipe == "teacher"
        self._static: FrameRunner | None = None
        self._dynamics: Ring | FixedRing
        self._decoder: Ring | FixedRing
        if self.path.frame == "eager":
            self._dynamics = Ring(dynamics.cache_shape, n_tokens, cross_frame, self.device, self._dtype)
            self._decoder = Ring(tokenizer.decoder_shape, n_tokens, False, self.device, self._dtype)
        else:
            self._static, self.path = building.runner(self._genie, self._sampler, backend, self.path, progress, by_name)
            self._dynamics, self._decoder = self._static.frame.past, self._static.frame.seen
            self.info = replace(self.info, path=to_dict(self.path))
        # for looks at pictures beside the play-through; empty before each
        self._viewer = Ring(tokenizer.decoder_shape, n_tokens, False, self.device, self._dtype)
        self._encoder = Ring(tokenizer.encoder_shape, n_tokens, False, self.device)
        self._lit: tuple[Pixels | None, Look] | None = (
            None  # the given picture in whose light was decoded, and its look
        )
        self._shown_look: Look | None = None  # the one that the static frame has
        self._pool = Pool()
        self._pools = 2 * (self._dynamics.nbytes + self._decoder.nbytes) <= self._pool.limit
        self._slack = SLACK if self._pools else 0

        self._same_bits = found is None or found.same_bits  # whatever the number of threads
        alone = found.alone * self.path.steps if found and self.path.threads > 1 else 0.0
        self._watch = Watch(alone) if alone else None
        self._too_slow = False

        self._closed = False
        self._seed, self._prompt_frames = 0, 0
        self._fed: list[_Fed] = []
        self._pixels: Pixels = np.zeros((*self.info.size, 3), np.uint8)
        self._exact_from = 0  # at this position and later the rings are those of a run that began at the prompt
        self._futures: dict[int, _Drawn] = {}
        self._batch_exact: dict[int, bool] = {}  # by size of batch, once the ring is full

    @torch.inference_mode()
    def reset(self, prompt: Prompt, seed: int) -> Frame:
        """Start a play-through: frame 0 is the prompt's last picture as the decoder shows it."""
        return self.restore(History(prompt, seed))

    @torch.inference_mode()
    def step(self, action: int, tokens: Tokens | None = None) -> Frame:
        """Generate the next frame; given tokens (N,) are taken, not sampled. After an error the frame before stands."""
        self._check_ready()
        action = check_action(action)
        if self._too_slow:
            self._let_threads_go()
        if tokens is not None:
            tokens = self._checked(tokens)
            self._settle()
            drawn = self._present(tokens, self._fed[-1].picture)
        elif action in self._futures:
            drawn = self._futures[action]
        else:
            drawn = self._draw([action])[0] if self._watch is None else self._watched(action, self._watch)
        self._take(drawn)
        self._fed.append(_Fed.after(self._fed[-1], action, drawn.tokens))
        self._pixels, self._futures = drawn.pixels, {}
        return self._frame()

    @torch.inference_mode()
    def settle(self) -> None:
        """Commit the last frame to the dynamics model's cache."""
        self._check_ready()
        if not self._merges:
            self._settle()

    def _settle(self) -> None:
        if self._dynamics.position < len(self._fed):
            self._commit(self._fed[-1])

    @torch.inference_mode()
    def restore(self, history: History) -> Frame:
        """Go to the end of a history: from here, from the pool, or from as far back as the networks reach."""
        self._check_open()
        target = self._fold(history)
        self._seed, self._futures = history.seed, {}
        if self._fed and self._fed[-1].digest == target[-1].digest:
            return self._frame()
        self._approach(target)
        # a rebuild that fails leaves no play-through, rather than a wrong one
        self._fed = []
        self._pixels = self._feed(target)
        self._fed, self._prompt_frames = target, len(target) - history.index
        return self._frame()

    @torch.inference_mode()
    def futures(self, actions: Sequence[int]) -> list[Frame]:
        """The frame that each action would give, as one batch over the shared past; changes nothing.

        Where batches were found to be bit-equal to single steps, `step` takes the frame from here; elsewhere these are
        previews, and the step follows on its own.
        """
        self._check_ready()
        actions = [check_action(action) for action in actions]
        if not actions:
            return []
        drawn = self._draw(actions)
        if self._static:
            self._futures = {}  # what an earlier batch of this size left in memory is gone
        if self._adopts(actions, drawn):
            self._futures.update(zip(actions, drawn, strict=True))
        index = self._index + 1
        return [Frame(index, a, d.pixels.copy(), d.tokens.copy()) for a, d in zip(actions, drawn, strict=True)]

    @torch.inference_mode()
    def edit(self, pixels: Pixels) -> Frame:
        """Replace the current frame by a painted one (H, W, 3); its index and action stay.

        The encoder starts from empty and sees the pictures shown before, as many as it can see, then the painted one.
        """
        self._check_ready()
        self._check_picture(pixels)
        last = len(self._fed) - 1
        tokens = self._encode([*self._pictures(last - self._encoder.reach, last), pixels])[-1]
        if self._dynamics.position > last:
            self._dynamics.rewind()
        self._decoder.rewind()
        # whatever becomes of the array, this is what was painted
        given = pixels.copy()
        drawn = self._present(tokens, given)
        self._take(drawn)
        self._fed[last] = _Fed.after(self._fed[last - 1] if last else None, self._fed[last].action, tokens, given)
        self._pixels, self._futures = drawn.pixels, {}
        return self._frame()

    @torch.inference_mode()
    def see(self, pixels: Pixels) -> Pixels:
        """What the tokenizer makes of a picture (H, W, 3) on its own."""
        self._check_open()
        self._check_picture(pixels)
        self._viewer.clear()
        tokens = self._on_device(self._encode([pixels])[0])
        # the array is the caller's, who may change it: nothing is kept of it
        look = self._genie.tokenizer.look(self._floats(pixels))
        picture: Pixels = self._decode(tokens, self._viewer, look)[0][0]
        return picture

    @torch.inference_mode()
    def fits(self, pixels: Pixels, files: Sequence[Path]) -> list[float]:
        """How well the worlds in files, of this one's size, would show a picture (H, W, 3): absolute errors, in dB
        below full white. Squares would judge by where the darkest strokes lie (docs/worlds.md)."""
        self._check_open()
        self._check_picture(pixels)
        found = []
        for file in files:
            tokenizer = load_genie(file, self.device)[0].tokenizer
            if (tokenizer.config.height, tokenizer.config.width) != self.info.size:
                raise ValueError(f"{file} has pictures of another size")
            picture = self._floats(pixels)
            # not in its own light, in which any decoder shows it well, but in that of its mirror image
            made = tokenizer.decode(tokenizer.encode(picture[:, None]), tokenizer.look(picture.flip(2)))[:, 0]
            found.append(-20 * math.log10(float((made.clamp(0, 1) - picture).abs().mean()) + 1e-5))
        return found

    def close(self) -> None:
        """Free the networks and all cached memory."""
        if not self._closed:
            self._closed = True
            self._static = None
            del self._genie, self._sampler, self._dynamics, self._decoder, self._viewer, self._encoder, self._pool
            self._lit = self._shown_look = None
            self._fed, self._futures = [], {}

    # frames in and out

    @property
    def _index(self) -> int:
        return len(self._fed) - self._prompt_frames

    def _frame(self) -> Frame:
        """The current frame, in fresh arrays."""
        index, last = self._index, self._fed[-1]
        if index == 0:
            return Frame(0, None, self._pixels.copy(), np.concatenate([fed.tokens for fed in self._fed]))
        return Frame(index, last.action, self._pixels.copy(), last.tokens.copy())

    def _fold(self, history: History) -> list[_Fed]:
        """What a history feeds to the networks: the prompt's frames, then one a step; an edit replaces the last."""
        fed: list[_Fed] = []
        pictures, prompt = history.prompt.pictures, self._prompt_tokens(history.prompt)
        if len(pictures) != len(prompt):
            raise ReplayError(FOREIGN)
        for picture, tokens in zip(pictures, prompt, strict=True):
            fed.append(_Fed.after(fed[-1] if fed else None, self._genie.dynamics.no_action, tokens, picture.copy()))
        for move in history.moves:
            if move.action is not None:
                fed.append(_Fed.after(fed[-1], check_action(move.action), self._checked(move.tokens)))
                continue
            # an edited prompt of several pictures carries the tokens of all of them
            tokens, replaced = self._checked(move.tokens[-self.info.n_tokens :]), fed.pop()
            given = None if move.pixels is None else move.pixels.copy()
            fed.append(_Fed.after(fed[-1] if fed else None, replaced.action, tokens, given))
        return fed

    def _prompt_tokens(self, prompt: Prompt) -> list[Tokens]:
        """(N,) for each picture of a prompt: its own tokens, or what the encoder makes of the pictures."""
        if prompt.tokens is not None:
            if not len(prompt.tokens) or len(prompt.tokens) % self.info.n_tokens:
                raise ReplayError(FOREIGN)
            return [self._checked(tokens) for tokens in prompt.tokens.reshape(-1, self.info.n_tokens)]
        if prompt.pictures.ndim != 4 or not len(prompt.pictures):
            raise ValueError(f"a prompt's pictures should be (K, H, W, 3), not {prompt.pictures.shape}")
        for picture in prompt.pictures:
            self._check_picture(picture)
        return self._encode(list(prompt.pictures))

    def _checked(self, tokens: Tokens) -> Tokens:
        """A copy (N,) uint16; ReplayError where they cannot be this world's."""
        tokens = np.asarray(tokens)
        if tokens.shape != (self.info.n_tokens,) or tokens.dtype.kind not in "iu":
            raise ReplayError(FOREIGN)
        if int(tokens.min()) < 0 or int(tokens.max()) >= self._genie.dynamics.codes:
            raise ReplayError(FOREIGN)
        return tokens.astype(np.uint16)

    def _check_picture(self, pixels: Pixels) -> None:
        if pixels.shape != (*self.info.size, 3) or pixels.dtype != np.uint8:
            raise ValueError(f"a picture should be uint8 {(*self.info.size, 3)}, not {pixels.dtype} {pixels.shape}")

    def _check_open(self) -> None:
        if self._closed:
            raise ValueError("the engine is closed")

    def _check_ready(self) -> None:
        self._check_open()
        if not self._fed:
            raise ValueError("reset or restore comes first")

    # the caches

    def _commit(self, fed: _Fed) -> None:
        """Feed the next frame to the dynamics model."""
        if self._static:
            self._static.commit(fed.tokens, fed.action)
        else:
            x = self._sampler.embed(self._on_device(fed.tokens), self._actions([fed.action]))
            self._dynamics.commit(self._genie.dynamics.stream(x, self._dynamics.past())[1])
        self._remember(fed)

    def _remember(self, fed: _Fed) -> None:
        """Now and then keep a copy of both rings, after the dynamics model was fed a frame."""
        position = self._dynamics.position
        if self._pools and position > self._exact_from and position % POOL_EVERY == 0:
            # the decoder has seen this frame too, in play and in a rebuild
            self._pool.put(fed.digest, (self._dynamics.snapshot(), self._decoder.snapshot()))

    def _approach(self, target: list[_Fed]) -> None:
        """Bring both rings to where feeding the rest of `target` leads to its end, by as few passes as we know how."""
        last = len(target) - 1
        start = max(0, last - self._slack - self._dynamics.reach)
        here = len(self._fed) - 1
        if 0 <= here < last and self._fed[here].digest == target[here].digest and self._dynamics.position >= start:
            near = self._dynamics.position
        else:
            near = -1
        kept = next((p for p in range(last - 1, max(start, near) - 1, -1) if target[p].digest in self._pool), None)
        if kept is not None:
            dynamics, decoder = self._pool.get(target[kept].digest)
            self._dynamics.load(dynamics)
            self._decoder.load(decoder)
            self._exact_from = 0
        elif near < 0:
            decoder_start = max(0, last - self._slack - self._decoder.reach)
            self._decoder.clear(decoder_start)
            self._exact_from = last - 1 - self._slack if start or decoder_start else 0
            anchor = self._dynamics.anchor
            self._dynamics.clear(0 if anchor else start)
            if anchor and start > 1:
                self._commit(target[0])
                self._dynamics.skip(start)

    def _feed(self, target: list[_Fed]) -> Pixels:
        """Feed frames until the last is shown and all before it are committed, as after a step; return its picture."""
        last = len(target) - 1
        for position in range(min(self._dynamics.position, self._decoder.position), last + 1):
            if position == self._decoder.position:
                drawn = self._present(target[position].tokens, target[position].picture)
                self._take(drawn)
            if position == self._dynamics.position and position < last:
                self._commit(target[position])
        return drawn.pixels

    def _pictures(self, first: int, end: int) -> list[Pixels]:
        """The pictures shown at positions first..end-1, decoded again."""
        first = max(0, first)
        start = max(0, first - self._viewer.reach)
        self._viewer.clear(start)
        pictures = []
        for fed in self._fed[start:end]:
            pixels, kept = self._decode(self._on_device(fed.tokens), self._viewer, self._look(fed.picture))
            self._viewer.commit(kept)
            pictures.append(pixels[0])
        return pictures[first - start :]

    # the networks

    def _calibrated(self, genie: Genie, accepted: Sequence[str]) -> Calibration:
        """What a short measurement of the dynamics model finds."""
        dynamics = genie.dynamics
        names = calibration.able([*accepted, self.path.arithmetic])
        passes = {}
        with torch.inference_mode():
            x = torch.randn(1, dynamics.n_tokens, dynamics.config.width, generator=torch.Generator().manual_seed(0))
            for name in names:
                blocks = cpu.placed(dynamics.blocks, name)
                ring = Ring(
                    dynamics.cache_shape, dynamics.n_tokens, dynamics.config.recipe == "teacher", self.device,
                    ARITHMETIC[name],
                )  # fmt: skip
                ring.commit(stream_blocks(blocks, x, ring.past())[1])
                passes[name] = partial(_one_pass, blocks, x, ring.past())
            return calibration.calibrate(self.path, passes)

    def _let_threads_go(self) -> None:
        """Go on with one thread: several are slower here now. From the next step on the path is another."""
        log.warning("%d threads are slower than one on this machine now; playing on with one", self.path.threads)
        self.path = replace(self.path, threads=1)
        self.info = replace(self.info, path=to_dict(self.path))
        self._watch, self._too_slow = None, False
        torch.set_num_threads(1)
        if not self._same_bits:
            # what is cached should be what this path makes, or nobody could compute the steps to come again
            target, self._fed, self._futures = self._fed, [], {}
            self._pool.clear()
            self._approach(target)
            self._pixels = self._feed(target)
            self._fed = target

    def _placed(self, genie: Genie) -> Genie:
        """The networks on the device and in the arithmetic of the path."""
        genie = genie.to(self.device)
        # decodes one picture on a CPU a tenth faster than torch's own order of memory
        genie.tokenizer.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        # the encoder runs on prompts and edits only, and near codes are told apart in float32
        if self.device.type == "cpu" and self.path.frame == "eager":
            cpu.place(genie, self.path.arithmetic)
        elif self._dtype != torch.float32:
            genie.dynamics.to(self._dtype)
            genie.tokenizer.decoder.to(self._dtype)
        if self.path.arithmetic == "fp8":
            quantise_blocks(genie.dynamics.blocks)
        return genie

    @property
    def _dtype(self) -> torch.dtype:
        """Of what is cached."""
        return ARITHMETIC[self.path.arithmetic]

    def _draw(self, actions: list[int]) -> list[_Drawn]:
        """The next frame under each action, from a past that is whole."""
        index = self._index + 1
        if self._static is None:
            self._settle()
            return self._show(self._sample(actions), self._fed[-1].picture)
        last = self._fed[-1]
        self._give(last.picture)
        merging = self._merges and self._dynamics.position < len(self._fed)
        if not merging:
            self._settle()
        try:
            made = self._static.draw(actions, self._seed, index, (last.tokens, last.action) if merging else None)
        finally:
            if merging and self._dynamics.position == len(self._fed):
                self._remember(last)
        return _rows(made)

    def _watched(self, action: int, watch: Watch) -> _Drawn:
        """The next frame, and whether its passes took longer than they should."""
        self._settle()
        started = time.perf_counter()
        tokens = self._sample([action])
        self._too_slow = watch.add(time.perf_counter() - started)
        return self._show(tokens, self._fed[-1].picture)[0]

    @property
    def _merges(self) -> bool:
        """Whether the commit of the last frame is left to the first pass of the next."""
        return self.path.commit == "merged" and self._dynamics.position > self._dynamics.start

    def _sample(self, actions: list[int]) -> Tensor:
        """Tokens (B, N) of the next frame under each action."""
        return self._sampler.sample(self._dynamics.past(), self._actions(actions), self._seed, self._index + 1).tokens

    def _present(self, tokens: Tokens, picture: Pixels | None) -> _Drawn:
        """Decode (N,) as the frame after those that the decoder has seen, in the light of a picture."""
        if self._static:
            self._give(picture)
            return _rows(self._static.show(tokens))[0]
        return self._show(self._on_device(tokens), picture)[0]

    def _show(self, tokens: Tensor, picture: Pixels | None) -> list[_Drawn]:
        """Decode (B, N) as the frame after those that the decoder has seen, in the light of a picture."""
        pixels, kept = self._decode(tokens, self._decoder, self._look(picture))
        numbers = tokens.cpu().numpy().astype(np.uint16)
        return [_Drawn(numbers[row], pixels[row], kept, row) for row in range(len(tokens))]

    def _take(self, drawn: _Drawn) -> None:
        """Commit a frame that was shown to the decoder's cache."""
        if isinstance(drawn.kept, int):
            assert self._static is not None
            self._static.take(drawn.kept, drawn.row)
        else:
            self._decoder.commit(drawn.kept, drawn.row)

    def _look(self, picture: Pixels | None) -> Look | None:
        """What the decoder keeps of a picture that was given; a grey one stands for none."""
        if not self._genie.config.tokenizer.look:
            return None
        if self._lit is None or self._lit[0] is not picture:
            given = np.full((*self.info.size, 3), 128, np.uint8) if picture is None else picture
            made = self._genie.tokenizer.look(self._floats(given))
            assert made is not None
            self._lit = picture, made
        return self._lit[1]

    def _give(self, picture: Pixels | None) -> None:
        """Tell the static frame in whose light it decodes."""
        look = self._look(picture)
        if look is not None and look is not self._shown_look:
            assert self._static is not None
            self._static.frame.give(look)
            self._shown_look = look

    def _decode(
        self, tokens: Tensor, ring: Ring | FixedRing, look: Look | None
    ) -> tuple[NDArray[np.uint8], list[LayerKV]]:
        """(B, N) to pictures (B, H, W, 3) and the decoder's keys and values."""
        pixels, kept = self._genie.tokenizer.decode_step(tokens, ring.past(), look)
        if not math.isfinite(float(pixels.sum())):
            raise GenieError("the world's decoder gave numbers that are not finite; go back some steps, or restart it")
        return self._ops.to_picture(pixels).cpu().numpy(), kept

    def _encode(self, pictures: list[Pixels]) -> list[Tokens]:
        """Tokens (N,) of each picture, the encoder starting from empty."""
        self._encoder.clear()
        found = []
        for picture in pictures:
            tokens, kept = self._genie.tokenizer.encode_step(self._floats(picture), self._encoder.past())
            self._encoder.commit(kept)
            found.append(tokens[0].cpu().numpy().astype(np.uint16))
        return found

    def _adopts(self, actions: list[int], drawn: list[_Drawn]) -> bool:
        """Whether batches of this size are bit-equal to single steps: looked at once, when the rings are full. Before
        that the shapes of products change with every frame, and on some processors rounding hangs on the shapes."""
        if any(ring.position - ring.start < ring.slots for ring in (self._dynamics, self._decoder)):
            return False
        size = len(actions)
        if size not in self._batch_exact:
            self._batch_exact[size] = self._is_exact(actions, drawn)
        return self._batch_exact[size]

    def _is_exact(self, actions: list[int], drawn: list[_Drawn]) -> bool:
        """Whether a batch of futures is, row by row and bit for bit, what single steps are."""
        if self._static:
            made = Made(np.stack([d.pixels for d in drawn]), np.stack([d.tokens for d in drawn]), len(drawn))
            return self._static.agree(made, self._seed, self._index + 1, actions)
        past, told = self._dynamics.past(), self._actions(actions)
        tokens = torch.cat([self._on_device(d.tokens) for d in drawn])
        hidden = self._genie.dynamics.stream(self._sampler.embed(tokens, told), past)[0]
        for row, action in enumerate(actions):
            single = self._sample([action])
            alone = self._show(single, self._fed[-1].picture)[0]
            x = self._sampler.embed(single, told[row : row + 1])
            pairs = [(hidden[row], self._genie.dynamics.stream(x, past)[0][0])]
            pairs += [
                (a[row], b[0])
                for ours, its in zip(_kept(drawn[row]), _kept(alone), strict=True)
                for a, b in zip(ours, its, strict=True)
            ]
            same = np.array_equal(alone.tokens, drawn[row].tokens) and np.array_equal(alone.pixels, drawn[row].pixels)
            if not same or not all(torch.equal(a, b) for a, b in pairs):
                return False
        return True

    def _floats(self, picture: Pixels) -> Tensor:
        """(H, W, 3) to (1, H, W, 3) in 0..1."""
        return torch.from_numpy(np.ascontiguousarray(picture)).to(self.device)[None].float() / 255.0

    def _actions(self, actions: list[int]) -> Tensor:
        return torch.tensor(actions, device=self.device)

    def _on_device(self, tokens: Tokens) -> Tensor:
        """(N,) to (1, N) int64."""
        return torch.from_numpy(tokens.astype(np.int64))[None].to(self.device)


def _rows(made: Made) -> list[_Drawn]:
    return [_Drawn(made.tokens[row], made.pixels[row], made.batch, row) for row in range(len(made.tokens))]


def _kept(drawn: _Drawn) -> list[LayerKV]:
    assert not isinstance(drawn.kept, int)
    return drawn.kept


def find_device(name: str) -> torch.device:
    """The torch device of a name: auto, cpu, cuda or cuda:N. BackendError for one asked for that is not there."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    kind, _, number = name.partition(":")
    if kind not in ("cpu", "cuda") or (number and not number.isdecimal()):
        raise BackendError(f"no device is called {name!r}; choose auto, cpu or cuda")
    if kind == "cuda" and int(number or 0) >= torch.cuda.device_count():
        raise BackendError(f"torch finds no NVIDIA GPU for {name!r} here; choose cpu or auto")
    return torch.device(name)


def _able(shipped: PathConfig, changes: dict[str, Any]) -> dict[str, Any]:
    """What was asked for, and float32 where nobody asked and this CPU cannot run what the world ships with."""
    reason = arithmetic.unfit(shipped.arithmetic) if changes["device"] == "cpu" else ""
    if not reason or "arithmetic" in changes:
        return changes
    log.warning("%s cannot run on this CPU (%s); playing in fp32", shipped.arithmetic, reason)
    return {**changes, "arithmetic": "fp32"}


def _one_pass(blocks: nn.ModuleList, x: Tensor, past: list[LayerPast]) -> Tensor:
    return stream_blocks(blocks, x, past)[0]


def shipped_path(sample: SampleConfig) -> PathConfig:
    """The path of a world that names none: sampled as its config says, everything else at its default."""
    return PathConfig(**to_dict(sample))


def _path(shipped: PathConfig, changes: dict[str, Any]) -> PathConfig:
    """The checkpoint's path with what was asked for; GenieError names a setting that cannot be."""
    path = from_dict(PathConfig, {**to_dict(shipped), **changes}, "path")
    named = {"order": schedule.ORDERS, "variant": VARIANTS, "arithmetic": tuple(ARITHMETIC), **building.CHOICES}
    for name, choices in named.items():
        if getattr(path, name) not in choices:
            raise GenieError(f"path.{name} is {getattr(path, name)!r}; choose {', '.join(choices)}")
    if path.variant == "inverse" and path.ops != "reference":
        raise BackendError(f"the {path.ops} kernels draw by gumbel only; choose path.variant gumbel or ops reference")
    if path.steps < 1 or path.threads < 1:
        raise GenieError("path.steps and path.threads should be 1 or more")
    if not 0.0 <= path.temperature < math.inf:
        raise GenieError("path.temperature should be 0 or more")
    if path.arithmetic == "int8" and not path.device.startswith("cpu"):
        raise BackendError("int8 is for CPUs; choose path.arithmetic bf16 or fp32")
    building.check(path)
    return path
