"""The commands, from arguments to exit code. On the platformer, which needs no weights; once on a tiny world."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from PIL import Image
from safetensors.torch import load, save

from genie_play import arguments, checkpoint, cli, paths, world
from genie_play.config import preset
from genie_play.session import journal
from genie_play.types import GenieError, Label


def run(capsys, *words):
    """Exit code, stdout, stderr of a command."""
    code = cli.main([str(word) for word in words])
    return code, *capsys.readouterr()


@pytest.fixture
def picture(tmp_path):
    path = tmp_path / "sketch.png"
    pixels = np.full((90, 160, 3), 240, np.uint8)
    pixels[70:] = 60
    pixels[40:70, 20:28] = (200, 30, 30)
    Image.fromarray(pixels).save(path)
    return path


@pytest.fixture
def rollout(capsys, picture, tmp_path):
    """Runs a rollout of the platformer and returns where its recording and journal are."""

    def go(actions="0:8 1:8 2:8 3:8", out="a.gif", seed=1, *more):
        words = (
            "rollout",
            "--world",
            "platformer",
            "--prompt",
            picture,
            "--seed",
            seed,
            "--out",
            tmp_path / out,
            *more,
        )
        code, text, _ = run(capsys, *words, "--actions", actions)
        assert code == 0
        return [tmp_path / line for line in text.splitlines()]

    return go


def fails(capsys, *words):
    """The one line of a command that fails for a reason the person can mend."""
    code, out, err = run(capsys, *words)
    assert (code, out) == (2, "")
    assert len(err.splitlines()) == 1
    assert err.startswith("genie-play: ")
    return err


# the actions


@pytest.fixture
def info():
    return world.load("platformer").info


def test_spec(info):
    assert world.parse_actions("3:4 0 7:2", info) == [3, 3, 3, 3, 0, 7, 7]
    assert world.parse_actions(" right:2\n Jump-Left ", info) == [2, 2, 4]
    # the platformer's labels put right at E and jump, the surest that goes up, at N
    assert world.parse_actions("E w:2", info) == [2, 1, 1]


def test_spec_random_depends_on_the_seed_alone(info):
    one = world.parse_actions("random:400", info, seed=5)
    assert world.parse_actions("random:400", info, seed=5) == one
    assert world.parse_actions("random:400", info, seed=6) != one
    assert world.parse_actions("random:100", info, seed=5) == one[:100]
    both = world.parse_actions("random:200 random:200", info, seed=5)
    assert both[:200] != both[200:]
    counts = np.bincount(one, minlength=8)
    assert len(counts) == 8
    assert counts.min() >= 25  # of 50 each; below that once in 10,000 seeds


def test_spec_takes_the_surest_of_equal_labels(info):
    labels = tuple(Label(c, "left" if c in (2, 5) else "other", -1.0, 0.0, c / 10) for c in range(8))
    twice = type(info)(**{**info.__dict__, "labels": labels})
    assert world.parse_actions("left", twice) == [5]


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ("8", "action 8 is outside 0..7"),
        ("-1:3", "action -1 is outside 0..7"),
        ("99999999999999999999", "is outside 0..7"),
        ("other:2", "no code of platformer bears the label 'other'; its labels: idle, left"),
        ("fly", "'fly' is no action: use a code 0 to 7, a slot (N, NE"),
        ("3:", "'3:' should end in how many steps"),
        ("3:0", "'3:0' should end in how many steps, 1 or more"),
        ("3:-5", "'3:-5' should end in how many steps"),
        ("3:1e9", "'3:1e9' should end in how many steps"),
        ("1:60000 2:60000", "more than 100000 steps are too many"),
        ("random:99999999999999999999999", "more than 100000 steps are too many"),
        ("  ", "no actions were given"),
    ],
)
def test_spec_that_is_wrong(info, spec, says):
    with pytest.raises(GenieError, match=re.escape(says)):
        world.parse_actions(spec, info)


# rollout, verify, replay


def test_rollout_twice_gives_equal_files(rollout):
    first, second = rollout(), rollout()
    assert [path.name for path in first + second] == ["a.gif", "a.gplay", "a-2.gif", "a-2.gplay"]
    assert first[0].read_bytes() == second[0].read_bytes()
    assert first[1].read_bytes() == second[1].read_bytes()
    other = rollout(out="b.gif", seed=2)
    assert other[0].read_bytes() != first[0].read_bytes()


def test_rollout_lasts_as_long_as_its_steps(rollout):
    gif, gplay = rollout()
    with Image.open(gif) as image:
        duration = 0
        for n in range(image.n_frames):
            image.seek(n)
            duration += image.info["duration"]
    assert abs(duration - 3300) <= 10
    assert [node.move.action for node in journal.read(gplay).branch()[1:]] == [0] * 8 + [1] * 8 + [2] * 8 + [3] * 8


def test_rollout_from_a_shipped_prompt(capsys, tmp_path):
    names = list(world.shipped_prompts())
    assert len(names) >= 12
    sources = []
    for seed, more in ((1, ()), (2, ()), (1, ("--prompt", names[5]))):
        out = tmp_path / f"{len(sources)}.gplay"
        words = ("rollout", "--world", "platformer", "--actions", "1", "--seed", seed, "--out", out, *more)
        assert run(capsys, *words)[0] == 0
        sources.append(journal.read(out).prompt.source)
    assert sources == [f"{names[1]}.png", f"{names[2]}.png", f"{names[5]}.png"]


@pytest.mark.parametrize("out", ["a.png", "a.webp", "a.apng", "folder", "A.GIF"])
def test_rollout_by_suffix(rollout, out):
    made, gplay = rollout("right:3", out, 1, "--scale", 2)
    assert gplay.name == f"{made.stem}.gplay"
    if made.is_dir():
        assert sorted(path.name for path in made.iterdir()) == [f"{n:05}.png" for n in range(4)]
        made = made / "00003.png"
    with Image.open(made) as image:
        size = image.size
    assert size == ((4 * 64 + 3 * 2) * 2 if out == "a.png" else 128, 128)


def test_rollout_of_a_journal_alone(rollout):
    (gplay,) = rollout("right:3", "only.gplay")
    assert gplay.name == "only.gplay"
    assert journal.read(gplay).nodes[3].index == 3


def test_rollout_never_writes_over_anything(rollout, tmp_path):
    (tmp_path / "a.gplay").write_text("a diary")
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "00000.png").write_text("a picture")
    assert [path.name for path in rollout("1")] == ["a-2.gif", "a-2.gplay"]
    assert [path.name for path in rollout("1", "b")] == ["b-2", "b-2.gplay"]
    assert (tmp_path / "a.gplay").read_text() == "a diary"


def test_rollout_as_json(capsys, picture, tmp_path):
    words = ("rollout", "--world", "platformer", "--prompt", picture, "--actions", "1:3", "--out", tmp_path / "a.gif")
    code, out, err = run(capsys, *words, "--json")
    result = json.loads(out)
    assert code == 0
    assert (result["frames"], result["journal"]) == (4, str(tmp_path / "a.gplay"))
    assert "sketch.png: cropped to the middle" in err  # what was done to the picture is said
    assert "frames/s" in err  # progress is not mixed with results


def test_verify(capsys, rollout):
    _, gplay = rollout("random:30")
    assert run(capsys, "verify", gplay) == (0, "the same: 30 steps of platformer\n", "")
    assert json.loads(run(capsys, "verify", gplay, "--json")[1]) == {"same": True, "steps": 30, "differs_at": None}


def changed(gplay, number, **fields):
    """The journal with one of its lines changed."""
    lines = gplay.read_text().splitlines()
    lines[number] = json.dumps(json.loads(lines[number]) | fields)
    gplay.write_text("\n".join(lines) + "\n")
    return gplay


def test_verify_names_the_first_step_that_differs(capsys, rollout):
    _, gplay = rollout("left:10")
    code, out, _ = run(capsys, "verify", changed(gplay, 6, a=2))
    assert code == 3
    assert out.startswith("step 6 (frame 6) differs: the replay has ")
    assert json.loads(run(capsys, "verify", gplay, "--json")[1])["differs_at"] == 6


def test_verify_looks_at_the_prompt(capsys, rollout):
    _, gplay = rollout("left:2")
    lines = gplay.read_text().splitlines()
    header = json.loads(lines[0])
    code, out, _ = run(capsys, "verify", changed(gplay, 0, seed=header["seed"] + 1))
    assert code == 3
    assert out.startswith("the prompt differs")


def test_verify_walks_every_branch(capsys, tmp_path):
    """Branches, another seed, an edit, another branch again."""
    path = tmp_path / "tree.gplay"
    with world.load("platformer") as game:
        game.reset(np.full((64, 64, 3), 200, np.uint8), 3, path)
        frames = list(game.rollout("right:6 jump:2"))
        session = game.session
        session.back(4)
        session.reseed(99)
        list(game.rollout("left:3"))
        painted = frames[0].pixels.copy()
        painted[40:, 10:30] = 0
        session.edit(painted)
        list(game.rollout("right:2"))
        session.goto(2)
        game.step("N")
    replay = journal.read(path)
    assert len(replay.histories) == 3
    assert run(capsys, "verify", path) == (0, f"the same: {len(replay.nodes) - 1} steps of platformer\n", "")
    edit = next(n for n, line in enumerate(path.read_text().splitlines()) if '"edit"' in line)
    step = json.loads(path.read_text().splitlines()[edit + 1])
    assert run(capsys, "verify", changed(path, edit + 1, a=0))[1].startswith(f"step {step['i']} ")


def test_replay_is_the_tape(capsys, rollout, tmp_path):
    gif, gplay = rollout("random:20")
    code, out, _ = run(capsys, "replay", gplay, "--out", tmp_path / "again.gif")
    assert (code, out) == (0, f"{tmp_path / 'again.gif'}\n")
    assert (tmp_path / "again.gif").read_bytes() == gif.read_bytes()
    assert not (tmp_path / "again.gplay").exists()


def test_replay_goes_to_the_pictures_folder(capsys, rollout, user_folder):
    _, gplay = rollout("1:3")
    code, out, _ = run(capsys, "replay", gplay)
    assert code == 0
    assert user_folder in paths.pictures().parents
    assert out == f"{paths.pictures() / 'a.gif'}\n"


def test_redream(capsys, rollout, tmp_path):
    gif, gplay = rollout("left:10")
    run(capsys, "replay", gplay, "--redream", "--out", tmp_path / "same.gif")
    assert (tmp_path / "same.gif").read_bytes() == gif.read_bytes()
    code, out, err = run(capsys, "replay", changed(gplay, 6, a=2), "--redream", "--out", tmp_path / "b.gif", "--json")
    assert code == 0
    assert json.loads(out)["differs_from"] == 6
    assert "like the tape up to frame 6" in err


def test_a_replay_cut_in_the_middle_of_a_line(capsys, rollout):
    _, gplay = rollout("left:10")
    gplay.write_bytes(gplay.read_bytes()[:-20])
    code, out, err = run(capsys, "verify", gplay)
    assert (code, out) == (0, "the same: 9 steps of platformer\n")
    assert "cut short" in err


@pytest.mark.skipif(os.name == "nt", reason="kills by signal")
def test_killed_at_random_moments(tmp_path, picture):
    """What is on disk is a GIF that opens and a journal that replays, whenever the process dies."""
    dice = random.Random(7)
    for number in range(3):
        out = tmp_path / f"{number}.gif"
        words = ["rollout", "--world", "platformer", "--prompt", picture, "--actions", "random:50000", "--out", out]
        child = subprocess.Popen(
            [sys.executable, "-m", "genie_play", *map(str, words)], cwd=paths.ROOT, stderr=subprocess.DEVNULL
        )
        try:
            limit = time.monotonic() + 20
            while not out.exists() and time.monotonic() < limit:
                time.sleep(0.01)
            time.sleep(dice.uniform(0, 0.4))
        finally:
            child.send_signal(signal.SIGKILL)
            child.wait()
        with Image.open(out) as image:
            image.seek(image.n_frames - 1)
            image.load()
        if (gplay := out.with_suffix(".gplay")).exists():  # the first frame may be all there is
            replay = journal.read(gplay)
            assert len(replay.nodes) >= 2
            assert world.verify(replay, lambda path: world.open_engine("platformer")) is None


# the others


def test_see(capsys, picture, tmp_path):
    code, out, _ = run(
        capsys, "see", picture, "--world", "platformer", "--out", tmp_path / "seen.png", "--both", "--scale", "2"
    )
    assert code == 0
    with Image.open(tmp_path / "seen.png") as image:
        assert image.size == ((64 * 2 + 2) * 2, 128)
    assert "dB from the prompt" in out


def test_info_of_a_picture_and_a_replay(capsys, rollout):
    gif, gplay = rollout("1:4")
    about = json.loads(run(capsys, "info", gif, "--json")[1])
    assert (about["format"], about["seconds"]) == ("GIF", 0.5)
    about = json.loads(run(capsys, "info", gplay, "--json")[1])
    assert (about["steps"], about["seed"], about["prompt"]) == (4, 1, "sketch.png")
    code, out, _ = run(capsys, "info", gplay)
    assert code == 0
    assert re.search(r"^world +platformer$", out, re.M)


def test_keys(capsys):
    code, out, _ = run(capsys, "keys")
    assert code == 0
    assert "rewind" in out
    assert "Ctrl+Z" in json.loads(run(capsys, "keys", "--json")[1])["keys"]


def test_recover_lists_what_was_played(capsys, rollout):
    _, gplay = rollout("1:4")
    assert "no sessions yet" in run(capsys, "recover")[1]
    paths.writable(paths.sessions())
    (paths.sessions() / "good.gplay").write_bytes(gplay.read_bytes())
    (paths.sessions() / "cut.gplay").write_bytes(b"{")
    found = {row["file"]: row for row in json.loads(run(capsys, "recover", "--json")[1])["sessions"]}
    assert found[str(paths.sessions() / "good.gplay")]["steps"] == 4
    assert "problem" in found[str(paths.sessions() / "cut.gplay")]
    assert "    4 steps in platformer" in run(capsys, "recover")[1]


def test_data(capsys, tmp_path):
    words = ("data", "--preset", "tiny", "--clips", "3", "--frames", "4", "--out", tmp_path / "clips")
    assert run(capsys, *words)[0] == 0
    for n in range(3):
        frames = sorted((tmp_path / "clips" / f"clip-{n:05}").iterdir())
        assert len(frames) == 4
        with Image.open(frames[0]) as image:
            assert image.size == (32, 24)
    assert (tmp_path / "clips" / "contact.png").is_file()
    assert run(capsys, *words)[1].splitlines()[0].endswith("clips-2")  # not among those that are there


def test_data_as_a_sheet(capsys, tmp_path):
    words = ("data", "--preset", "tiny", "--sheet", "clips", "--out", tmp_path / "sheet.png")
    code, out, _ = run(capsys, *words)
    assert code == 0
    assert "still frames" in out
    with Image.open(tmp_path / "sheet.png") as image:
        assert image.size == (2 * 8 * 34, 2 * 6 * 26)
    assert "no photo looks" in fails(
        capsys, "data", "--source", "platformer-calm", "--sheet", "photo", "--out", tmp_path / "x.png"
    )


def test_doctor(capsys, monkeypatch):
    code, out, _ = run(capsys, "doctor", "--json")
    result = json.loads(out)
    names = {finding["name"] for finding in result["findings"]}
    assert {"python", "torch", "kernels", "pygame", "folder of sessions", "disk"} <= names
    assert result["ready"] == (code == 0)
    assert all(finding["fix"] for finding in result["findings"] if finding["state"] == "problem")
    code, out, _ = run(capsys, "doctor")
    assert out.splitlines()[-1].startswith("ready" if code == 0 else "not ready")


def test_doctor_sees_two_pygames(capsys, monkeypatch):
    from genie_play.eval import doctor

    monkeypatch.setattr(doctor, "_installed", lambda name: True)
    problem = next(finding for finding in doctor.examine() if finding.name == "pygame")
    assert problem.state == "problem"
    assert len(problem.fix.splitlines()) == 2


def test_doctor_names_a_folder_that_cannot_be_written(capsys, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(paths, "sessions", lambda: tmp_path / "file" / "sessions")
    code, out, _ = run(capsys, "doctor")
    assert code == 2
    assert "! folder of sessions" in out


# a world with weights


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """A tiny world that was trained for two steps a stage: it plays noise, through all the same code."""
    folder = tmp_path_factory.mktemp("runs") / "small"
    words = ("train", "all", "--preset", "tiny", "--source", "platformer", "--steps", "2", "--out", folder)
    assert cli.main([str(word) for word in words]) == 0
    return folder


def test_a_trained_world_end_to_end(capsys, tiny, picture, tmp_path):
    code, out, _ = run(capsys, "info", tiny)
    assert code == 0
    assert re.search(r"^picture +32x24$", out, re.M)
    words = ("rollout", "--world", tiny, "--prompt", picture, "--actions", "0:3 random:9", "--seed", "4", "--out")
    files = []
    for name in ("a.gif", "b.gif"):
        code, out, _ = run(capsys, *words, tmp_path / name)
        assert code == 0
        files.append([tmp_path / line for line in out.splitlines()])
    assert files[0][0].read_bytes() == files[1][0].read_bytes()
    assert files[0][1].read_bytes() == files[1][1].read_bytes()
    code, out, _ = run(capsys, "verify", files[0][1], "--world", tiny)
    assert (code, out.split(" of ")[0]) == (0, "the same: 12 steps")
    assert run(capsys, "replay", files[0][1], "--world", tiny, "--out", tmp_path / "c.gif")[0] == 0
    assert (tmp_path / "c.gif").read_bytes() == files[0][0].read_bytes()
    assert run(capsys, "see", picture, "--world", tiny, "--out", tmp_path / "seen.png")[0] == 0


def test_another_path_gives_other_tokens_and_verifies_on_its_own(capsys, tiny, picture, tmp_path):
    words = ("rollout", "--world", tiny, "--prompt", picture, "--actions", "2:9", "--path", "temperature=1.5")
    code, _, _ = run(capsys, *words, "--path", "steps=2", "--out", tmp_path / "hot.gplay")
    assert code == 0
    replay = journal.read(tmp_path / "hot.gplay")
    assert (replay.path["temperature"], replay.path["steps"]) == (1.5, 2)
    assert run(capsys, "verify", tmp_path / "hot.gplay", "--world", tiny)[0] == 0
    # on any other path it is another play-through: the check is not vacuous
    assert (
        run(capsys, "verify", changed(tmp_path / "hot.gplay", 0, path=replay.path | {"steps": 3}), "--world", tiny)[0]
        == 3
    )


def test_a_world_of_the_persons_own_is_found_by_its_fingerprint(capsys, tiny, picture, tmp_path):
    home = paths.writable(paths.worlds())
    (home / "renamed.safetensors").write_bytes((tiny / "small.safetensors").read_bytes())
    words = ("rollout", "--world", "renamed", "--prompt", picture, "--actions", "2", "--out", tmp_path / "a.gplay")
    assert run(capsys, *words)[0] == 0
    assert run(capsys, "verify", tmp_path / "a.gplay")[1].startswith("the same: 1 step")
    (home / "renamed.safetensors").unlink()
    assert "which is not here; give its file with --world" in fails(capsys, "verify", tmp_path / "a.gplay")


def test_doctor_deep_plays_twice(capsys, tiny, tmp_path, monkeypatch):
    (tmp_path / "models" / "small").mkdir(parents=True)
    (tmp_path / "models" / "small" / "small.safetensors").write_bytes((tiny / "small.safetensors").read_bytes())
    monkeypatch.setattr(paths, "models", lambda: tmp_path / "models")
    code, out, _ = run(capsys, "doctor", "--deep", "--json")
    found = {finding["name"]: finding for finding in json.loads(out)["findings"]}
    assert found["world small"]["state"] == "ok"
    assert found["same twice: small"]["detail"] == "11 frames equal twice, equal rebuilt"
    assert code == 0


def test_bad_checkpoints(capsys, tiny, picture, tmp_path):
    data = (tiny / "small.safetensors").read_bytes()
    cut = tmp_path / "cut.safetensors"
    cut.write_bytes(data[:-1000])
    words = ("--prompt", picture, "--actions", "1", "--out", tmp_path / "a.gif")
    assert "is cut short" in fails(capsys, "rollout", "--world", cut, *words)
    assert "is cut short" in fails(capsys, "info", cut)
    lacking = tmp_path / "lacking.safetensors"
    tensors = load(data)
    name = sorted(tensors)[3]
    del tensors[name]
    metadata = checkpoint.header_metadata(checkpoint.read(tiny / "small.safetensors"))
    lacking.write_bytes(save(tensors, metadata))
    assert f"lacks the tensor {name}" in fails(capsys, "rollout", "--world", lacking, *words)
    assert not list(tmp_path.glob("a.*"))


# bad input


@pytest.fixture
def bad(capsys, picture, tmp_path):
    """The line of a rollout that cannot be, with some of its words changed."""

    def fail(**changes):
        words = {"world": "platformer", "prompt": picture, "actions": "1:3", "out": tmp_path / "a.gif"} | changes
        return fails(capsys, "rollout", *(part for name, value in words.items() for part in (f"--{name}", value)))

    return fail


def test_no_such_things(bad, tmp_path):
    assert "no world is called 'nowhere'" in bad(world="nowhere")
    assert "there is no file" in bad(prompt=tmp_path / "no.png")
    assert "outside 0..7" in bad(actions="9")
    assert "cannot write .xyz; use .gif, .png" in bad(out=tmp_path / "a.xyz")
    assert "KEY=VALUE" in bad(path="steps", world="nowhere")
    assert "path has an unknown field 'depth'" in bad(path="depth=3", world="nowhere")
    assert "wrong kind of value: 'many'" in bad(path="steps=many", world="nowhere")
    assert "whole number from 0 up to 2**64 - 1" in bad(seed="-1")
    assert "whole number from 0 up to 2**64 - 1" in bad(seed=1 << 64)
    assert not list(tmp_path.glob("a*"))


def test_a_prompt_that_is_no_picture(bad, tmp_path):
    (tmp_path / "notes.txt").write_text("not a picture")
    assert "is not a picture I can read" in bad(prompt=tmp_path / "notes.txt")
    assert not list(tmp_path.glob("a*"))


def test_a_folder_that_cannot_be_written(bad, tmp_path):
    (tmp_path / "file").write_text("")
    assert "choose another" in bad(out=tmp_path / "file" / "a.gif")


def test_no_gpu(capsys, tiny, picture, tmp_path, monkeypatch):
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    words = ("rollout", "--world", tiny, "--prompt", picture, "--actions", "1", "--out", tmp_path / "a.gif")
    assert "GPU" in fails(capsys, *words, "--device", "cuda")
    assert "device" in fails(capsys, *words, "--device", "toaster")


def test_replays_that_cannot_be_read(capsys, tmp_path, picture):
    assert "cannot read" in fails(capsys, "verify", tmp_path / "no.gplay")
    assert "is not a replay" in fails(capsys, "replay", picture)
    (tmp_path / "empty.gplay").write_text("")
    assert "empty" in fails(capsys, "verify", tmp_path / "empty.gplay")


def test_a_replay_of_another_world(capsys, rollout, tiny):
    _, gplay = rollout("1:2")
    assert "belongs to platformer" in fails(capsys, "verify", gplay, "--world", tiny)


def test_words_that_are_no_command(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert "'rolout' is no command and no file; did you mean 'rollout'?" in fails(capsys, "rolout", "--seed", "1")
    assert "there is no file 'nothing.png'" in fails(capsys, "nothing.png")
    assert "see 'genie-play rollout --help'" in fails(capsys, "rollout")
    assert "see 'genie-play data --help'" in fails(capsys, "data", "--out", "x", "--clips", "0")


def test_no_preset_and_no_source(capsys, tmp_path):
    assert "no preset is called 'huge'; there are tiny" in fails(
        capsys, "data", "--preset", "huge", "--out", tmp_path / "d"
    )
    assert "no source is called" in fails(capsys, "data", "--source", "nope", "--out", tmp_path / "d")
    assert not (tmp_path / "d").exists()


def test_a_bug_is_ours(capsys, monkeypatch):
    def broken(args):
        raise KeyError("what")

    monkeypatch.setitem(cli._RUN, "keys", broken)
    code, out, err = run(capsys, "keys")
    assert (code, out) == (1, "")
    assert err.startswith("genie-play: a bug: KeyError: 'what'; the details are in ")
    assert len(err.splitlines()) == 1
    assert "Traceback" in (paths.logs() / "errors.log").read_text()


@pytest.mark.parametrize(
    ("error", "code", "says"),
    [
        (KeyboardInterrupt(), 130, ""),
        (ModuleNotFoundError("No module named 'torch'", name="torch"), 2, "torch is not installed; start with"),
        (GenieError("two\nlines"), 2, "genie-play: two lines\n"),
    ],
)
def test_exit_codes(capsys, monkeypatch, error, code, says):
    def stop(args):
        raise error

    monkeypatch.setitem(cli._RUN, "keys", stop)
    found, _, err = run(capsys, "keys")
    assert found == code
    assert says in err


# help


def test_every_command_runs_something():
    assert tuple(cli._RUN) == arguments.COMMANDS
    for name in arguments.COMMANDS:
        assert f"\n    {name} " in arguments.parser().format_help()


def test_help_needs_neither_torch_nor_pygame(tmp_path):
    code = """
import contextlib, sys
sys.modules.update(dict.fromkeys(("torch", "triton", "pygame", "safetensors", "PIL", "tqdm")))
from genie_play.cli import main
for name in sys.argv[1:]:
    try:
        main([*name.split(), "--help"])
    except SystemExit as done:
        assert done.code == 0, name
"""
    environment = os.environ | {"PYTHONPATH": str(paths.ROOT), "COLUMNS": "100"}
    command = [sys.executable, "-c", code, "", *arguments.COMMANDS]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment)
    assert (done.returncode, done.stderr) == (0, "")
    found = re.findall(r"^usage: genie-play ?(\w*)", done.stdout, re.M)
    assert found == ["", *arguments.COMMANDS]
    assert list(tmp_path.iterdir()) == []


def test_a_picture_is_a_command_too(monkeypatch, picture):
    assert arguments.parse([str(picture), "--seed", "3"]).command == "play"
    assert arguments.parse([]).command == "play"
    assert arguments.parse(["--world", "spark"]).picture is None


# the library


def test_library(picture):
    with world.load("platformer") as game:
        with pytest.raises(ValueError, match="reset comes first"):
            game.step(0)
        first = game.reset(picture, seed=2)
        assert (first.index, first.pixels.shape) == (0, (64, 64, 3))
        future = game.futures()[2]
        assert np.array_equal(game.step("right").pixels, future.pixels)
        assert [frame.index for frame in game.rollout([1, 1, 3])] == [2, 3, 4]
        game.session.back(3)
        assert len(game.futures()) == 8
        assert np.array_equal(game.futures()[1].pixels, game.step(1).pixels)
        with pytest.raises(GenieError):
            game.reset("no such picture.png")
        assert game.step(0).index == 3  # the play-through is still there
        with pytest.raises(ValueError, match="outside"):
            game.step(8)


def test_gymnasium(picture):
    gymnasium = pytest.importorskip("gymnasium", reason="gymnasium is not installed")
    from gymnasium.utils.env_checker import check_env

    world.register()
    world.register()
    env = gymnasium.make(world.ENVIRONMENT, world="platformer", prompt=str(picture), render_mode="rgb_array")
    check_env(env.unwrapped, skip_render_check=True)
    first, about = env.reset(seed=3)
    second, *rest = env.step(env.unwrapped.get_keys_to_action()["d"])
    assert first.shape == second.shape == (64, 64, 3)
    assert rest[:3] == [0.0, False, False]
    assert (about["step"], rest[3]["step"]) == (0, 1)
    assert np.array_equal(env.render(), second)
    assert np.array_equal(env.reset(seed=3)[0], first)
    env.close()


def test_shipped_world_is_named_as_the_default():
    """What runs when nothing is said is a preset too, so that the documented commands train it."""
    assert preset(arguments.WORLD).name == arguments.WORLD
    if names := checkpoint.shipped():
        assert arguments.WORLD in names
