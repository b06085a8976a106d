"""The networks: no leaks, streaming equals the clip, sizes of the paper, quantizer life."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch

from genie_play.config import PRESETS, ActionsConfig, DynamicsConfig, TokenizerConfig, preset
from genie_play.nn.dynamics import Dynamics
from genie_play.nn.genie import Genie
from genie_play.nn.latent_action import LatentActions
from genie_play.nn.quantize import Quantizer
from genie_play.nn.st_transformer import LayerPast, STBlock
from genie_play.nn.tokenizer import Conv, Spread, Tokenizer

GRID, CODES, FRAMES = (3, 4), 32, 9


def shaken(module: torch.nn.Module, seed: int = 0) -> torch.nn.Module:
    """Give every parameter a random value: zero-started projections would hide a leak."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in module.parameters():
            p.copy_(torch.randn(p.shape, generator=generator) * (0.5 if p.dim() < 2 else p[0].numel() ** -0.5))
    return module.eval()


def small_dynamics(recipe: str) -> Dynamics:
    config = DynamicsConfig(recipe=recipe, layers=2, width=32, heads=2, head_dim=16, ffn=2.0, window=4)
    dynamics = shaken(Dynamics(config, GRID, CODES, 8))
    dynamics.set_codes(torch.randn(CODES, 8, generator=torch.Generator().manual_seed(1)))
    return dynamics


def random_tokens(*shape: int, seed: int = 2) -> torch.Tensor:
    return torch.randint(0, CODES, shape, generator=torch.Generator().manual_seed(seed))


def test_masked_frame_sees_no_clean_frame_from_its_own_on():
    dynamics = small_dynamics("teacher")
    clean, actions = random_tokens(1, FRAMES, 12), torch.randint(0, 8, (1, FRAMES))
    masked = torch.full_like(clean, dynamics.mask_id)
    before = dynamics(masked, actions, clean)
    for t in range(1, FRAMES):
        changed = clean.clone()
        changed[:, t:] = (changed[:, t:] + 7) % CODES
        after = dynamics(masked, actions, changed)
        assert torch.equal(before[:, : t + 1], after[:, : t + 1])
        if t + 1 < FRAMES:
            assert (before[:, t + 1] - after[:, t + 1]).abs().amax() > 1e-3  # the next one does see it


def test_masked_frame_reads_its_action_and_its_visible_tokens():
    dynamics = small_dynamics("teacher")
    clean, actions = random_tokens(1, FRAMES, 12), torch.zeros(1, FRAMES, dtype=torch.int64)
    masked = torch.full_like(clean, dynamics.mask_id)
    before = dynamics(masked, actions, clean)
    other = actions.clone()
    other[:, 5] = 3
    after = dynamics(masked, other, clean)
    assert torch.equal(before[:, :5], after[:, :5])
    assert (before[:, 5] - after[:, 5]).abs().amax() > 1e-3
    shown = masked.clone()
    shown[:, 5, 2] = clean[:, 5, 2]
    assert (dynamics(shown, actions, clean)[:, 5] - before[:, 5]).abs().amax() > 1e-3
    assert torch.equal(dynamics(shown, actions, clean)[:, 6], before[:, 6])  # other masked frames do not see it


def test_paper_recipe_is_causal():
    dynamics = small_dynamics("paper")
    tokens, actions = random_tokens(2, FRAMES, 12), torch.randint(0, 8, (2, FRAMES))
    before = dynamics(tokens, actions)
    changed = tokens.clone()
    changed[:, 4:] = dynamics.mask_id
    after = dynamics(changed, actions)
    assert torch.equal(before[:, :4], after[:, :4])
    assert (before[:, 4] - after[:, 4]).abs().amax() > 1e-3


def ring_past(kept: list, window: int, cross_frame: bool) -> LayerPast:
    """A past made plainly from the keys and values of the frames so far (newest last)."""
    recent = kept[-(window - 1) :]
    ages = torch.arange(len(recent), 0, -1)
    ring_k = torch.stack([kv.temporal_k for kv in recent], 3)
    ring_v = torch.stack([kv.temporal_v for kv in recent], 3)
    # a slot that holds rubbish and says so by its age must not be read
    ring_k, ring_v = (torch.cat((r, torch.full_like(r[:, :, :, :1], 1e4)), 3) for r in (ring_k, ring_v))
    ages = torch.cat((ages, torch.tensor([window])))
    spatial = (kept[-1].spatial_k, kept[-1].spatial_v) if cross_frame else (None, None)
    return LayerPast(*spatial, ring_k, ring_v, ages)


@pytest.mark.parametrize("cross_frame", [False, True])
def test_streaming_a_block_equals_the_clip_before_and_after_the_ring_wraps(cross_frame):
    window = 4
    block = shaken(STBlock(32, 2, 16, 2.0, window, GRID, rotary=cross_frame, cross_frame=cross_frame))
    x = torch.randn(2, 11, 12, 32, generator=torch.Generator().manual_seed(3))
    whole = block(x)
    kept: list = []
    for t in range(x.shape[1]):
        if kept:
            past = ring_past(kept, window, cross_frame)
        else:
            empty = torch.zeros(2, 12, 2, window - 1, 16)
            past = LayerPast(None, None, empty, empty, torch.full((window - 1,), window))
        y, kv = block.stream(x[:, t], past)
        kept.append(kv)
        assert torch.allclose(y, whole[:, t], atol=2e-5), t


def test_two_streams_with_equal_tokens_agree_where_they_see_the_same():
    """With one frame of history the masked stream, given the clean tokens, sees exactly what the clean one sees."""
    dynamics = small_dynamics("teacher")
    clean, actions = random_tokens(1, FRAMES, 12), torch.randint(0, 8, (1, FRAMES))
    x = torch.stack((dynamics.embed(clean, actions),) * 2)
    for block in dynamics.blocks:
        x = block(x)
    assert torch.allclose(x[0], x[1], atol=1e-5)


@pytest.mark.parametrize("patches", [{}, {"patch": 4, "patch_height": 8, "fine": 2}])
def test_tokenizer_is_causal_and_hides_history(patches):
    config = TokenizerConfig(
        height=22, width=32, codes=CODES, code_dim=8, stem=16, encoder_width=32, encoder_blocks=1, encoder_heads=2,
        decoder_width=32, decoder_blocks=1, decoder_heads=2, head_dim=16, window=3, **patches,
    )  # fmt: skip
    tokenizer = shaken(Tokenizer(config))
    frames = torch.rand(2, 5, 22, 32, 3, generator=torch.Generator().manual_seed(4))
    latents = tokenizer.encoder(frames)
    changed = frames.clone()
    changed[:, 3:] = 0
    assert torch.allclose(latents[:, :3], tokenizer.encoder(changed)[:, :3], atol=1e-5)
    alone = tokenizer.encoder(frames[:, 2:3])
    hidden = tokenizer.encoder(frames, torch.tensor([True, False]))
    assert torch.allclose(hidden[0, 2], alone[0, 0], atol=1e-5)
    assert torch.allclose(hidden[1], latents[1], atol=1e-5)
    assert not torch.allclose(latents[0, 2], alone[0, 0], atol=1e-3)
    assert tokenizer.decode(tokenizer.encode(frames)).shape == frames.shape


@pytest.mark.parametrize("recipe", ["shift", "paper"])
def test_latent_actions_see_only_what_they_may(recipe):
    config = ActionsConfig(recipe=recipe, width=16, pool=1, reach=(2, 3), patch=8, layers=1, heads=2, head_dim=8)
    model = shaken(LatentActions(config, (20, 32)))
    frames = torch.rand(2, 5, 20, 32, 3, generator=torch.Generator().manual_seed(5))
    codes = model.infer(frames)
    assert codes.shape == (2, 4)
    assert int(codes.max()) < 8
    changed = frames.clone()
    changed[:, 4] = 0
    assert torch.equal(model.form.encode(frames)[:, :3], model.form.encode(changed)[:, :3])
    painted, repainted = model.paint(frames, codes).predicted, model.paint(changed, codes).predicted
    assert painted.shape == frames[:, 1:].shape
    assert torch.equal(painted, repainted)  # the decoder never sees the frame it is to paint
    if recipe == "shift":  # grey-scale inversion leaves a cost volume, and so the codes, as they are
        assert torch.allclose(model.form.encode(frames), model.form.encode(1 - frames), atol=1e-4)


def test_quantizer_starts_learns_and_restarts():
    generator = torch.Generator().manual_seed(6)
    quantizer = Quantizer(16, 4, restart_after=3).train()
    points = torch.nn.functional.normalize(torch.randn(500, 4, generator=generator), dim=-1)
    points[:, 0] = points[:, 0].abs()  # nothing lies on the far side, where a code is about to be stranded
    assert torch.allclose(quantizer(points).vectors, points)  # nothing is quantised before the start
    quantizer.start(points, generator)
    first = quantizer(points)
    assert torch.allclose(first.vectors, quantizer.lookup(first.tokens), atol=1e-6)
    assert len(first.tokens.unique()) == 16
    stranded = torch.tensor([-1.0, 0.0, 0.0, 0.0])
    quantizer.codebook[3], quantizer.sums[3] = stranded, stranded
    assert len(quantizer(points).tokens.unique()) == 15
    restarted = 0
    for _ in range(6):
        seen = quantizer(points)
        restarted += quantizer.update(points, seen.tokens, generator)
    assert restarted == 1
    assert len(quantizer(points).tokens.unique()) == 16
    points.requires_grad_(True)
    quantizer(points).vectors.sum().backward()
    assert points.grad is not None
    assert points.grad.abs().sum() > 0


@torch.inference_mode()
def test_codes_that_are_nearly_one_are_one_to_the_keys():
    quantizer = Quantizer(6, 4)
    angles = torch.tensor([0.0, 1.0, 0.35, 2.0, 0.2, 1.02])  # 0, 2 and 4 are a chain of 0.2 and 0.15
    quantizer.codebook.copy_(torch.stack((angles.cos(), angles.sin(), angles * 0, angles * 0), -1))
    assert quantizer.merged(math.cos(0.21), 1).tolist() == [0, 1, 0, 3, 0, 1]
    assert quantizer.merged(math.cos(0.16), 1).tolist() == [0, 1, 2, 3, 2, 1]
    assert quantizer.merged(math.cos(0.21), 4).tolist() == [0, 1, 2, 3, 2, 1]
    assert quantizer.merged(-1, 1).tolist() == [0] * 6

    config = ActionsConfig(width=16, pool=1, reach=(2, 3), motions=10)
    model, again = shaken(LatentActions(config, (20, 32))), LatentActions(config, (20, 32))
    model.quantizer.codebook[9] = model.quantizer.codebook[4] + 1e-3
    again.load_state_dict(model.state_dict())
    assert again.motion.tolist() == [0, 1, 2, 3, 4, 5, 6, 7, 8, 4]
    frames = torch.rand(3, 9, 20, 32, 3, generator=torch.Generator().manual_seed(2))
    small = again.form.prepare(frames)
    latents = torch.nn.functional.normalize(again.form.encode(small), dim=-1)
    again.quantizer.codebook[9] = latents[0, 0]  # so that entry 9 is the nearest
    assert again.quantizer(latents).tokens[0, 0] == 9
    assert again.read(frames)[1][0, 0] == 4


PAPER = {
    "genie-41m": 41e6, "genie-96m": 96e6, "genie-192m": 192e6, "genie-404m": 404e6, "genie-811m": 811e6,
    "genie-1.6b": 1.6e9, "genie-2.7b": 2.7e9, "genie-11b": 10.1e9,
}  # fmt: skip


@pytest.mark.parametrize("name", PAPER)
def test_sizes_of_the_paper(name):
    """Tables 10 and 12, transformer blocks counted; the tokenizer and latent action model of the 11B (section 3.1)."""
    with torch.device("meta"):
        config = preset(name)
        dynamics = Dynamics(config.dynamics, config.tokenizer.grid, config.tokenizer.codes, config.tokenizer.code_dim)
        count = sum(p.numel() for p in dynamics.blocks.parameters())
        assert abs(count / PAPER[name] - 1) < 0.10, count
        if name == "genie-11b":
            genie = Genie(config)
            total = sum(p.numel() for p in genie.parameters())
            assert abs(total / 10.7e9 - 1) < 0.10, total
            assert config.tokenizer.n_tokens == 920


def test_our_sizes():
    with torch.device("meta"):
        sizes = {name: sum(p.numel() for p in Genie(PRESETS[name]).parameters()) for name in ("spark", "pocket")}
    assert sizes["pocket"] <= 15e6, sizes
    assert sizes["spark"] < sizes["pocket"]


def test_a_token_stands_for_its_own_patch_of_whatever_shape():
    """Where convolutions see their own place alone, only the norm of the whole picture carries a little elsewhere."""
    config = TokenizerConfig(
        height=24, width=32, patch=8, patch_height=4, fine=2, codes=CODES, code_dim=8, stem=8, encoder_width=16,
        encoder_blocks=0, encoder_layers=0, decoder_width=16, decoder_blocks=0, decoder_layers=0,
    )  # fmt: skip
    assert (config.patch_size, config.cells, config.grid, config.n_tokens) == ((4, 8), (2, 4), (6, 4), 24)
    tokenizer = Tokenizer(config)
    with torch.no_grad():
        for module in tokenizer.modules():
            if isinstance(module, (Conv, torch.nn.Conv2d)):
                down, across = (module.shape if isinstance(module, Conv) else module.weight.shape)[2:]
                border = torch.ones(down, across, dtype=torch.bool)
                border[1:-1, 1:-1] = False
                module.weight.view(len(module.weight), -1, down, across)[:, :, border] = 0
    generator = torch.Generator().manual_seed(1)
    codes, frames = torch.randn(2, 1, 24, 8, generator=generator), torch.rand(1, 1, 24, 32, 3, generator=generator)
    for row, column in ((2, 1), (5, 3), (0, 0)):
        changed, painted = codes.clone(), frames.clone()
        changed[:, :, row * 4 + column] += 1
        painted[:, :, row * 4 : row * 4 + 4, column * 8 : column * 8 + 8] = 1
        shown = (tokenizer.decoder(codes) - tokenizer.decoder(changed)).abs().mean((0, 1, 4))
        patches = shown.unflatten(1, (4, 8)).unflatten(0, (6, 4)).mean((1, 3))
        latents = (tokenizer.encoder(frames) - tokenizer.encoder(painted)).norm(dim=-1).view(6, 4)
        for most in (patches, latents):
            others = torch.ones(6, 4, dtype=torch.bool)
            others[row, column] = False
            assert most[row, column] > 10 * most[others].max()


def test_channels_spread_as_in_a_pixel_shuffle():
    x = torch.randn(2, 12, 3, 5, generator=torch.Generator().manual_seed(1))
    assert torch.equal(Spread((2, 2))(x), torch.nn.functional.pixel_shuffle(x, 2))
    oblong = Spread((1, 4))(x)
    assert oblong.shape == (2, 3, 3, 20)
    assert torch.equal(oblong[:, 1, 2, 4:8], x[:, 4:8, 2, 1])


def test_patches_must_divide_into_places():
    for wrong in ({"patch": 6, "fine": 4}, {"patch": 8, "patch_height": 6, "fine": 4}):
        with pytest.raises(ValueError, match="do not divide"):
            Tokenizer(TokenizerConfig(**wrong))
    with pytest.raises(ValueError, match="do not divide"):
        Tokenizer(TokenizerConfig(patch=8, patch_height=4, trunk="patch"))


# the look of a picture that was given


@pytest.mark.parametrize("patch_size", [(8, 8), (8, 4)])
def test_a_picture_recalls_itself_and_what_was_shifted_by_half_a_token(patch_size):
    down, across = patch_size
    config = dataclasses.replace(preset("tiny").tokenizer, look=True, patch=across, patch_height=down, fine=2)
    tokenizer = Tokenizer(config).eval()
    with torch.no_grad():
        tokenizer.decoder.recall.sharpness.fill_(math.log(3000.0))
    noise = torch.rand(2, 24, 32, 3, generator=torch.Generator().manual_seed(1))
    look = tokenizer.look(noise)
    pieces, numbers = 4 * config.n_tokens, 3 * down * across
    assert [part.shape for part in look] == [(2, pieces, 8), (2, pieces, numbers)]

    def recalled(pictures):
        latents = torch.nn.functional.normalize(tokenizer.encoder(pictures[:, None])[:, 0], dim=-1)
        seen = tokenizer.decoder.recall(latents, look)[..., :numbers]  # the sharpest way
        # rows, columns, colours, pixels down, pixels across
        patches = seen.unflatten(2, (3, down, across)).unflatten(1, config.grid)
        return patches.permute(0, 1, 4, 2, 5, 3).reshape(pictures.shape) / 2 + 0.5

    with torch.no_grad():
        assert torch.allclose(recalled(noise), noise, atol=1e-3)
        shifted = torch.roll(noise, (-down // 2, -across // 2), (1, 2))
        back = recalled(shifted)[:, :8, :8]  # away from the border, which is repeated and not rolled
        assert torch.allclose(back, shifted[:, :8, :8], atol=1e-3)


def test_a_decoder_is_taught_in_the_light_of_the_first_picture():
    config = dataclasses.replace(preset("tiny").tokenizer, look=True)
    tokenizer = Tokenizer(config)
    frames = torch.rand(2, 3, 24, 32, 3, generator=torch.Generator().manual_seed(1))
    made = tokenizer(frames).pixels
    tokens = tokenizer.quantizer(tokenizer.encoder(frames)).vectors
    assert torch.allclose(made, tokenizer.decoder(tokens, None, tokenizer.look(frames[:, 0])), atol=1e-5)
    assert (made - tokenizer.decoder(tokens, None, tokenizer.look(frames[:, 1]))).abs().max() > 1e-3
    made.square().mean().backward()
    assert all(p.grad is not None for p in tokenizer.decoder.recall.parameters())
    with pytest.raises(ValueError, match="conv trunk"):
        Tokenizer(dataclasses.replace(config, trunk="patch"))
