"""A run in pieces small enough to travel: what another machine needs to go on with it, in files of at most 16 MiB.

Packed are the world (averaged weights, bfloat16; networks that no stage has begun stay behind and are made anew), the
raw weights of each stage in training (bfloat16; codebooks and counters as they are), the plan, the gates and the
metrics. Optimisers stay behind: they are four times the weights, and warm up again. All of it is one stream of bytes,
cut; `pieces.json` says what is where and its hashes. No pickle.

Of a bfloat16 number the byte with sign and exponent says little: a Huffman code of these bytes leaves two thirds of the
whole, in a tenth of a second, where zlib's own search leaves more and takes longer (measured).
"""

from __future__ import annotations

import hashlib
import json
import logging
import zlib
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save
from torch import Tensor

from genie_play import checkpoint, paths
from genie_play.nn.genie import save_genie, stored
from genie_play.train import plan
from genie_play.train.loop import META, fresh_genie, raw_file, world_file
from genie_play.types import CheckpointError

MANIFEST = "pieces.json"
VERSION = 2
LARGEST = 16 << 20  # bytes of a piece
WORLD = "world"  # its name among the packed files: the file bears the folder's name, which may change
BESIDE = (plan.FILE, "gates.json", "metrics.jsonl")

log = logging.getLogger(__name__)


def pack(out: Path, into: Path, largest: int = LARGEST) -> list[Path]:
    """Write the run in `out` into the folder `into` as pieces and their manifest; returns them, the manifest last.

    Reads files only, so that what was saved last is what travels, whatever became of the run. Pieces of an earlier
    packing are removed at the end. CheckpointError if there is no world in `out` yet.
    """
    if not world_file(out).exists():
        raise CheckpointError(f"there is no world in {out} yet; train it first")
    files = {WORLD: _begun(world_file(out))}
    files |= {f"{path.stem.removesuffix('.raw')}.raw": raw for path in states(out) if (raw := raw_weights(path))}
    files |= {name: (out / name).read_bytes() for name in BESIDE if (out / name).exists()}
    packed = {name: _squeeze(data) for name, data in files.items()}
    stream, table, offset = b"".join(packed.values()), [], 0
    for name, data in files.items():
        there = {"offset": offset, "packed": len(packed[name])}
        table.append({"name": name, **there, "bytes": len(data), "sha256": _hash(data)})
        offset += len(packed[name])
    paths.writable(into)
    pieces = []
    for number, start in enumerate(range(0, len(stream), largest)):
        piece = stream[start : start + largest]
        # named by content, so that old and new never mix if packing is cut short
        name = f"piece-{number:03}-{_hash(piece)[:8]}.bin"
        if not (into / name).exists():
            checkpoint.atomic_write(into / name, piece)
        pieces.append({"name": name, "bytes": len(piece), "sha256": _hash(piece)})
    manifest = json.dumps({"genie_play_pieces": VERSION, "files": table, "pieces": pieces}, indent=1) + "\n"
    checkpoint.atomic_write(into / MANIFEST, manifest.encode())
    known = {piece["name"] for piece in pieces}
    for old in into.glob("piece-*.bin"):
        if old.name not in known:
            old.unlink()
    return [into / str(piece["name"]) for piece in pieces] + [into / MANIFEST]


def unpack(folder: Path, out: Path) -> bool:
    """Put a packed run into `out`; False, and nothing is done, where `out` has a world already: it knows more.

    CheckpointError names a piece that is missing or damaged; nothing is written then.
    """
    if world_file(out).exists():
        log.warning("%s has a world already and goes on from that; %s is left alone", out, folder)
        return False
    files = _read(folder)
    if WORLD not in files:
        raise CheckpointError(f"{folder / MANIFEST} names no world; pack the run again")
    paths.writable(out / "training")
    for name, data in files.items():
        if name.endswith(".raw"):
            checkpoint.atomic_write(raw_file(out, name.removesuffix(".raw")), data)
        elif name in BESIDE:
            checkpoint.atomic_write(out / name, data)
    # the world last: with it the run counts as being here
    part = out / "training" / "world.part"
    checkpoint.atomic_write(part, files[WORLD])
    _complete(part)
    part.replace(world_file(out))
    return True


def states(out: Path) -> list[Path]:
    """The training states in `out`: exact ones, and raw ones of stages that have no exact one yet."""
    found = sorted((out / "training").glob("*.safetensors"))
    exact = {path.stem for path in found if not path.stem.endswith(".raw")}
    return [path for path in found if not path.stem.endswith(".raw") or path.stem.removesuffix(".raw") not in exact]


def raw_weights(state: Path) -> bytes | None:
    """The raw weights of a training state in bfloat16, as a safetensors file; None if the stage is through."""
    try:
        with safe_open(state, framework="pt") as file:
            meta = file.metadata()
            names = [name for name in file.keys() if name.startswith("weights.")]  # noqa: SIM118
            step = file.get_tensor("step")
            if int(step) >= json.loads(meta[META])["stage"]["steps"]:
                return None
            tensors: dict[str, Tensor] = {name: stored(name, file.get_tensor(name), torch.bfloat16) for name in names}
    except (SafetensorError, KeyError, ValueError):
        raise CheckpointError(f"{state} is damaged; remove it to go on from the world alone") from None
    return save({**tensors, "step": step}, metadata=meta)


def _begun(world: Path) -> bytes:
    """The file of a world with the networks that a stage has begun."""
    parts = _parts(checkpoint.read(world))
    with safe_open(world, framework="pt") as file:
        names = [name for name in file.keys() if name.partition(".")[0] in parts]  # noqa: SIM118
        return save({name: file.get_tensor(name) for name in names}, metadata=file.metadata())


def _parts(header: checkpoint.Header) -> set[str]:
    """The networks that a stage has begun."""
    return {name.partition(".")[0] for name in header.stages}


def _complete(world: Path) -> None:
    """Give the file of a world the networks that it was packed without: as a new run has them."""
    header, known = checkpoint.read(world), load_file(world)
    seeds = [int(stage.get("seed", 0)) for stage in header.stages.values()]
    genie = fresh_genie(header.world, seeds[0] if seeds else 0)
    parts = _parts(header)
    if all(name.partition(".")[0] in parts for name in genie.state_dict()):
        return
    genie.load_state_dict({name: v.float() if v.is_floating_point() else v for name, v in known.items()}, strict=False)
    genie.dynamics.set_codes(genie.tokenizer.quantizer.codebook)
    save_genie(genie, header, world)


def _read(folder: Path) -> dict[str, bytes]:
    """The packed files by name, every hash checked."""
    manifest = folder / MANIFEST
    try:
        table: dict[str, Any] = json.loads(manifest.read_text(encoding="utf-8"))
        if table["genie_play_pieces"] != VERSION:
            raise CheckpointError(f"{manifest} is of a version that this program does not know; update it")
        stream = b"".join(_piece(folder, str(piece["name"]), piece["sha256"]) for piece in table["pieces"])
        files = {}
        for file in table["files"]:
            data = _spread(stream[file["offset"] : file["offset"] + file["packed"]], file["bytes"])
            if _hash(data) != file["sha256"]:
                raise CheckpointError(f"{file['name']} in {folder} is damaged; copy the pieces again")
            files[str(file["name"])] = data
    except FileNotFoundError:
        raise CheckpointError(f"there is no {MANIFEST} in {folder}; name a folder that `train --report` left") from None
    except (OSError, ValueError, KeyError, TypeError, zlib.error):
        raise CheckpointError(f"{manifest} cannot be read; copy the pieces again") from None
    return files


def _piece(folder: Path, name: str, sha256: str) -> bytes:
    path = folder / Path(name).name
    if not path.exists():
        raise CheckpointError(f"{path} is missing; copy the pieces again, all of them")
    data = path.read_bytes()
    if _hash(data) != sha256:
        raise CheckpointError(f"{path} is damaged; copy it again")
    return data


def _squeeze(data: bytes) -> bytes:
    """Every other byte as it is, then the rest in a Huffman code."""
    code = zlib.compressobj(strategy=zlib.Z_HUFFMAN_ONLY)
    return data[::2] + code.compress(data[1::2]) + code.flush()


def _spread(packed: bytes, size: int) -> bytes:
    """Undo `_squeeze` of `size` bytes."""
    half, data = (size + 1) // 2, bytearray(size)
    data[::2], data[1::2] = packed[:half], zlib.decompress(packed[half:])
    return bytes(data)


def _hash(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
