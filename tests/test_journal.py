"""The `.gplay` file: written line by line, read back the same, whole after any kill, and clear about damage."""

from __future__ import annotations

import base64
import errno
import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from fakes import CountingEngine, prompt
from hypothesis import given, settings
from hypothesis import strategies as st

from genie_play.session import journal
from genie_play.session.journal import Writer, read
from genie_play.session.session import Session
from genie_play.types import GenieError, Move, Prompt, ReplayError

SIZE = (24, 32)


def tokens(*values: int) -> np.ndarray:
    return np.array(values, np.uint16)


def header(seed: int = 3, pictures: int = 1, **changes: object) -> dict:
    shown = np.random.default_rng(seed).integers(0, 256, (pictures, *SIZE, 3), np.uint8)
    made = journal.header(CountingEngine().info, Prompt(shown, "/home/me/cat.png", tokens(*range(5 * pictures))), seed)
    return made | changes


def step(i: int, previous: str, action: int = 2, values: tuple[int, ...] = (1, 2, 3, 4, 65535)) -> dict:
    h = journal.token_hash(previous, tokens(*values))
    return journal.step_event(i, Move(action, tokens(*values)), h, 12.34)


ROOT = journal.token_hash("", tokens(0, 1, 2, 3, 4))


def write(path: Path, *lines: dict) -> Path:
    writer = Writer(path)
    writer.append(*lines)
    writer.close()
    return writer.path


def test_a_line_is_what_the_design_says(tmp_path):
    path = write(tmp_path / "a.gplay", header(), step(1, ROOT))
    first, second = (json.loads(line) for line in path.read_text().splitlines())
    assert first["gplay"] == 1
    assert first["size"] == [24, 32]
    assert first["seed"] == 3
    assert first["rate"] == 10.0
    assert first["checkpoint"] == {"name": "counting", "sha256": "c0" * 32}
    assert first["prompt"]["source"] == "cat.png"
    assert base64.b64decode(first["prompt"]["png"]).startswith(b"\x89PNG")
    assert base64.b64decode(first["prompt"]["tokens"]) == bytes([0, 0, 1, 0, 2, 0, 3, 0, 4, 0])
    raw = bytes([1, 0, 2, 0, 3, 0, 4, 0, 255, 255])
    previous = hashlib.blake2s(bytes([0, 0, 1, 0, 2, 0, 3, 0, 4, 0])).hexdigest()[:8]
    h = hashlib.blake2s(previous.encode() + raw).hexdigest()[:8]
    assert second == {"e": "step", "i": 1, "a": 2, "t": base64.b64encode(raw).decode(), "h": h, "ms": 12.3}


def test_several_prompt_pictures_come_back(tmp_path):
    replay = read(write(tmp_path / "a.gplay", header(pictures=3)))
    expected = np.random.default_rng(3).integers(0, 256, (3, *SIZE, 3), np.uint8)
    assert np.array_equal(replay.prompt.pictures, expected)
    assert replay.prompt.tokens is not None
    assert replay.prompt.tokens.tolist() == list(range(15))
    assert replay.size == SIZE


def test_unknown_keys_and_events_are_kept(tmp_path):
    strange = {"e": "weather", "sky": [1, 2]}
    odd = step(1, ROOT) | {"mood": "calm"}
    replay = read(write(tmp_path / "a.gplay", header(author="me"), strange, odd))
    assert replay.header["author"] == "me"
    assert replay.events == [strange, odd]
    assert list(replay.nodes) == [0, 1]


def test_branches_follow_goto(tmp_path):
    one = step(1, ROOT)
    two = step(2, one["h"], action=4)
    other = step(3, one["h"], action=5, values=(9, 9, 9, 9, 9))
    painted = np.full((*SIZE, 3), 7, np.uint8)
    move = Move(None, tokens(5, 5, 5, 5, 5), painted)
    edit = journal.step_event(4, move, journal.token_hash(other["h"], move.tokens), 1.0)
    lines = [one, two, {"e": "goto", "i": 1, "from": 2}, {"e": "seed", "seed": 8}, other, edit]
    replay = read(write(tmp_path / "a.gplay", header(), *lines, {"e": "note", "i": 1, "mark": True}))
    assert [node.i for node in replay.branch()] == [0, 1, 3, 4]
    assert [node.i for node in replay.branch(2)] == [0, 1, 2]
    assert [[move.action for move in history.moves] for history in replay.histories] == [[2, 4], [2, 5, None]]
    assert replay.history().index == 2  # an edit adds no step
    assert replay.history().seed == 8
    assert replay.history(2).seed == 3
    assert np.array_equal(replay.history().moves[2].pixels, painted)
    assert replay.bookmarks == [1]
    assert [node.seed for node in replay.nodes.values()] == [3, 3, 3, 8, 8]


def test_nothing_is_overwritten(tmp_path):
    (tmp_path / "a.gplay").write_text("mine")
    writer = Writer(tmp_path / "a.gplay")
    assert not (tmp_path / "a-2.gplay").exists()  # made by the first append
    writer.append(header())
    assert writer.path == tmp_path / "a-2.gplay"
    assert (tmp_path / "a.gplay").read_text() == "mine"
    writer.append(step(1, ROOT))
    assert len(read(writer.path).nodes) == 2  # valid before it is closed
    writer.close()
    writer.close()
    writer.append(step(2, journal.token_hash(ROOT, tokens(1, 2, 3, 4, 65535))))
    assert len(read(writer.path).nodes) == 3
    assert writer.another().path == tmp_path / "a.gplay"
    writer.close()


def test_a_cut_anywhere_loses_at_most_the_last_line(tmp_path):
    lines = [header()]
    previous = ROOT
    for i in range(1, 6):
        lines.append(step(i, previous))
        previous = lines[-1]["h"]
    data = write(tmp_path / "a.gplay", *lines).read_bytes()
    ends = [i + 1 for i, byte in enumerate(data) if byte == 10]
    for cut in [*range(ends[0] - 1, len(data) + 1, 7), *ends]:
        (tmp_path / "cut.gplay").write_bytes(data[:cut])
        replay = read(tmp_path / "cut.gplay")
        # a line without its newline is whole if its last brace is there
        whole = sum(end - 1 <= cut for end in ends)
        assert len(replay.nodes) == whole, cut
        assert replay.cut == (cut not in ends and cut + 1 not in ends)
    for cut in (0, 1, ends[0] // 2):
        (tmp_path / "cut.gplay").write_bytes(data[:cut])
        with pytest.raises(ReplayError, match=r"empty|cut short"):
            read(tmp_path / "cut.gplay")
    (tmp_path / "cut.gplay").write_bytes(data[:-20] + bytes(64))  # what a lost power may leave
    assert len(read(tmp_path / "cut.gplay").nodes) == 5


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda line: b"{oops", "line 3: it is no JSON"),
        (lambda line: b"[1]", "line 3: it is no JSON object"),
        (lambda line: line.replace(b'"a":2', b'"a":3').replace(b'"t":"A', b'"t":"B'), "do not match their hash"),
        (lambda line: line.replace(b'"a":2', b'"a":8'), "outside 0..7"),
        (lambda line: line.replace(b'"i":2', b'"i":1'), "number 1 comes twice"),
        (lambda line: line.replace(b'"i":2', b'"i":"2"'), "'i' is not a whole number"),
        (lambda line: line.replace(b'"t":"', b'"t":"!'), "bad base64"),
        (lambda line: line.replace(b'"t":"', b'"t":"AAAA'), "line 3"),
        (lambda line: b'{"e":"goto","i":9,"from":1}', "no node 9"),
        (lambda line: b'{"e":"edit","i":2,"png":"AAAA","t":"","h":""}', "line 3"),
        (lambda line: b'{"no":"e"}', "line 3"),
    ],
)
def test_damage_in_the_middle_names_its_line(tmp_path, damage, says):
    one = step(1, ROOT)
    two = step(2, one["h"])
    path = write(tmp_path / "a.gplay", header(), one, two, step(3, two["h"]))
    lines = path.read_bytes().split(b"\n")
    lines[2] = damage(lines[2])
    (tmp_path / "bad.gplay").write_bytes(b"\n".join(lines))
    with pytest.raises(ReplayError, match=says):
        read(tmp_path / "bad.gplay")


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b'{"gplay": 2}\n', "newer version"),
        (b'{"gplay": "x"}\n', "not a replay"),
        (b'{"glay": 1}\n', "not a replay"),
        (b"PK\x03\x04 a zip\n and more\n", "not a replay"),
        (b"", "empty"),
        (b"[" * 100_000 + b"\n", "not a replay"),
    ],
)
def test_what_is_no_replay_says_so(tmp_path, data, says):
    (tmp_path / "x.gplay").write_bytes(data)
    with pytest.raises(ReplayError, match=says):
        read(tmp_path / "x.gplay")
    with pytest.raises(ReplayError, match="cannot read"):
        read(tmp_path / "none.gplay")


def test_a_picture_of_another_size_is_refused_before_it_is_decompressed(tmp_path):
    with pytest.raises(ReplayError, match="a picture is 32x24, not 16x16"):
        read(write(tmp_path / "a.gplay", header(size=[16, 16])))


def test_a_replay_knows_which_engine_it_fits(tmp_path):
    replay = read(write(tmp_path / "a.gplay", header()))
    replay.check(CountingEngine().info)
    with pytest.raises(ReplayError, match="32x24 pixels"):
        replay.check(CountingEngine(size=(16, 24)).info)
    other = read(write(tmp_path / "b.gplay", header(checkpoint={"name": "spark", "sha256": "ab" * 32})))
    with pytest.raises(ReplayError, match="belongs to spark"):
        other.check(CountingEngine().info)


actions = st.lists(st.one_of(st.integers(0, 7), st.tuples(st.just("goto"), st.integers(0, 30))), max_size=25)


@settings(max_examples=40, deadline=None)
@given(plan=actions, seed=st.integers(0, 2**64 - 1), reseeds=st.sets(st.integers(0, 24), max_size=3))
def test_any_play_comes_back(tmp_path_factory, plan, seed, reseeds):
    path = tmp_path_factory.mktemp("plays") / "a.gplay"
    engine = CountingEngine()
    session = Session(engine, prompt(), seed, Writer(path))
    session.start()
    nodes = 1
    for turn, act in enumerate(plan):
        if turn in reseeds:
            session.reseed(turn)
        if isinstance(act, tuple):
            session.goto(act[1] % nodes)
        else:
            session.step(act)
            nodes += 1
    session.bookmark()
    session.close()
    replay = read(path)
    assert len(replay.nodes) == nodes
    assert replay.bookmarks == [session.node]
    for i in replay.nodes:
        session.goto(i)
        expected, found = session.history.moves, replay.history(i).moves
        assert [move.action for move in found] == [move.action for move in expected]
        assert all(np.array_equal(a.tokens, b.tokens) for a, b in zip(found, expected, strict=True))
    # each node again from its parent under the seed it was made with
    for node in list(replay.nodes.values())[1:]:
        engine.restore(replay.history(node.parent, node.seed))
        frame = engine.step(node.move.action)
        assert journal.token_hash(replay.nodes[node.parent].hash, frame.tokens) == node.hash


class Disk:
    """A file on a disk that fills up after `room` bytes, in the middle of a write."""

    def __init__(self, file, room: int) -> None:
        self.file, self.room = file, room

    def write(self, data) -> int:
        if not self.room:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        taken = self.file.write(bytes(data)[: self.room])
        self.room -= taken
        return taken

    def __getattr__(self, name: str):
        return getattr(self.file, name)


def test_a_full_disk_is_told_once_and_caught_up_later(tmp_path, caplog):
    now = [0.0]
    writer = Writer(tmp_path / "a.gplay", clock=lambda: now[0])
    writer.append(header())
    disk = writer._file = Disk(writer._file, 40)
    previous = ROOT
    for i in range(1, 6):
        line = step(i, previous)
        previous = line["h"]
        writer.append(line)
    assert writer.problem is not None
    assert "No space left" in writer.problem
    assert len(caplog.records) == 1
    assert len(read(writer.path).nodes) == 1
    assert not read(writer.path).cut  # the half line was taken back
    disk.room, now[0] = 1 << 20, 60.0
    writer.append(step(6, previous))
    assert writer.problem is None
    writer.close()
    assert len(read(writer.path).nodes) == 7


def test_a_folder_that_cannot_be_made_stops_nobody(tmp_path):
    (tmp_path / "file").write_text("in the way")
    writer = Writer(tmp_path / "file" / "a.gplay")
    session = Session(CountingEngine(), prompt(), 1, writer)
    session.start()
    session.step(1)
    session.step(2)
    assert session.index == 2
    said = session.journal_problem()
    assert said is not None
    assert "cannot be written" in said
    assert session.journal_problem() is None
    session.close()


KILLED = """
import sys
sys.path.insert(0, sys.argv[2])
from pathlib import Path
from fakes import CountingEngine, prompt
from genie_play.session.journal import Writer
from genie_play.session.session import Session
session = Session(CountingEngine(), prompt(), 1, Writer(Path(sys.argv[1])))
session.start()
for turn in range(10**9):
    frame = session.step(turn % 7)
    sys.stdout.write(f"{frame.index}\\n")
    sys.stdout.flush()
"""


def test_killed_at_any_moment_it_replays(tmp_path):
    odds = random.Random(5)
    for n in range(4):
        path = tmp_path / f"{n}.gplay"
        command = [sys.executable, "-c", KILLED, str(path), str(Path(__file__).parent)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=Path(__file__).parent.parent) as child:
            assert child.stdout is not None
            child.stdout.readline()
            time.sleep(odds.random() * 0.2)
            child.send_signal(signal.SIGKILL)
            told = child.stdout.read().split(b"\n")
        replay = read(path)
        steps = replay.history().index
        assert steps >= 1
        assert steps >= len(told) - 1  # every frame that was handed over is there
        history = replay.history()
        assert [move.action for move in history.moves] == [turn % 7 for turn in range(steps)]
        continued = Session.from_replay(replay, CountingEngine())
        assert continued.step(3).index == steps + 1


def test_errors_are_for_people():
    assert issubclass(ReplayError, GenieError)
