"""A whole world: tokenizer, latent action model, dynamics; and its file.

The file is one `.safetensors` whose header holds the config and everything else worth knowing (`checkpoint.py`).
"""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file, save
from torch import Tensor, nn

from genie_play import checkpoint
from genie_play.config import WorldConfig
from genie_play.nn.dynamics import Dynamics
from genie_play.nn.latent_action import LatentActions
from genie_play.nn.st_transformer import STBlock
from genie_play.nn.tokenizer import Tokenizer
from genie_play.types import CheckpointError


class Genie(nn.Module):
    """The three networks of one config."""

    def __init__(self, config: WorldConfig) -> None:
        super().__init__()
        self.config = config
        self.tokenizer = Tokenizer(config.tokenizer)
        self.actions = LatentActions(config.actions, config.size)
        self.dynamics = Dynamics(
            config.dynamics, config.tokenizer.grid, config.tokenizer.codes, config.tokenizer.code_dim
        )


def save_genie(genie: Genie, header: checkpoint.Header, path: Path, dtype: torch.dtype = torch.bfloat16) -> None:
    """Write a world beside its place and rename it. Weights in `dtype`; codebooks and counters as they are."""
    tensors = {name: stored(name, value, dtype) for name, value in genie.state_dict().items()}
    checkpoint.atomic_write(path, save(tensors, metadata=checkpoint.header_metadata(header)))


def load_genie(path: Path, device: str | torch.device = "cpu") -> tuple[Genie, checkpoint.Header]:
    """Read a world in float32, straight to the device; CheckpointError names what is missing or of the wrong shape."""
    header = checkpoint.read(path)
    tensors = load_file(path, device=str(device))
    with torch.device("meta"):
        genie = Genie(header.world)
    wanted = genie.state_dict()
    for name, value in wanted.items():
        if name not in tensors:
            raise CheckpointError(f"{path.name} lacks the tensor {name}; get the file again")
        if tensors[name].shape != value.shape:
            shapes = f"{tuple(tensors[name].shape)} where its config asks for {tuple(value.shape)}"
            raise CheckpointError(f"{path.name} has {name} of shape {shapes}; get the file again")
    extra = sorted(set(tensors) - set(wanted))
    if extra:
        raise CheckpointError(f"{path.name} has an unknown tensor {extra[0]}; it may come from a newer version")
    floats = {name: value.float() if value.is_floating_point() else value for name, value in tensors.items()}
    genie.load_state_dict(floats, assign=True)
    for module in genie.modules():
        if isinstance(module, STBlock):
            module.place_rotary(device)
    return genie.requires_grad_(False).eval(), header


def stored(name: str, value: Tensor, dtype: torch.dtype) -> Tensor:
    """A tensor as it goes into a file: weights in `dtype`, codebooks and counters as they are."""
    keep = not value.is_floating_point() or "quantizer" in name or "code_vectors" in name
    return value.detach().cpu().contiguous() if keep else value.detach().cpu().to(dtype).contiguous()
