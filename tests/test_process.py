"""An engine in a child process: the same answers, and its death is a message."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from multiprocessing.connection import wait
from pathlib import Path

import numpy as np
import pytest
from engine_conformance import check_engine
from fakes import CountingEngine, prompt

from genie_play.data.platformer import PlatformerEngine
from genie_play.engine.process import Channel, EngineProcess, Inline, Reply
from genie_play.types import CheckpointError, Frame, GenieError, SourceError

FAKE = "fakes:CountingEngine"
TESTS = Path(__file__).parent


@pytest.fixture
def engine() -> Iterator[EngineProcess]:
    child = EngineProcess(FAKE)
    yield child
    child.close()


def wait_for(channel: EngineProcess | Inline, seconds: float = 10.0) -> Reply:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if (reply := channel.poll(0.05)) is not None:
            return reply
    raise AssertionError("no reply")


def wait_until_gone(pid: int, seconds: float = 10.0) -> None:
    """Wait until a process that is not a child of ours is gone, or a zombie."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            if Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z":
                return
        except OSError:
            return
        time.sleep(0.02)
    raise AssertionError(f"process {pid} lives on")


def test_same_answers_as_in_process(engine):
    here = CountingEngine()
    frames = [(engine.reset(prompt(), 5), here.reset(prompt(), 5))]
    frames += [(engine.step(action), here.step(action)) for action in (2, 2, 3, 1)]
    frames += list(zip(engine.futures([0, 5]), here.futures([0, 5]), strict=True))
    for theirs, ours in frames:
        assert (theirs.index, theirs.action) == (ours.index, ours.action)
        assert np.array_equal(theirs.pixels, ours.pixels)
        assert np.array_equal(theirs.tokens, ours.tokens)
    assert engine.info == here.info
    assert np.array_equal(engine.see(frames[0][0].pixels), here.see(frames[0][0].pixels))


@pytest.mark.parametrize("kind", ["process", "inline"])
def test_the_protocol_holds_across_it(kind):
    """The fake and the game, each in a child and by requests in this process."""
    size = (24, 32)
    pictures = prompt(size)

    def make(name: str) -> Channel:
        if kind == "process":
            return EngineProcess(FAKE if name == "fake" else "platformer", {"size": size})
        return Inline(CountingEngine(size) if name == "fake" else PlatformerEngine(size))

    for name in ("fake", "platformer"):
        check_engine(lambda name=name: make(name), pictures)


def test_one_request_at_a_time(engine):
    engine.submit("reset", prompt(), 1)
    assert engine.busy
    with pytest.raises(ValueError, match="'reset' is still under way"):
        engine.submit("step", 1)
    reply = wait_for(engine)
    assert reply.verb == "reset"
    assert reply.value.index == 0
    assert reply.error is None
    assert reply.seconds >= 0
    assert not engine.busy
    assert engine.poll() is None
    with pytest.raises(ValueError, match="none of"):
        engine.submit("dance")


def test_status_while_loading_and_a_request_before_it_is_ready(engine):
    assert not engine.ready
    engine.submit("reset", prompt(), 1)  # kept until the engine can take it
    seen = [engine.status]
    while (reply := engine.poll(10)) is None:
        seen.append(engine.status)
    assert isinstance(reply.value, Frame)
    assert seen[0] == "starting"
    assert "loading world" in seen
    assert "warming up" in seen
    assert engine.status == "ready"


def test_status_names_the_size_of_the_world(tmp_path):
    weights = tmp_path / "w.safetensors"
    weights.write_bytes(bytes(3 * 2**20))
    engine, seen = EngineProcess(FAKE, {"weights": weights}), set()
    while not engine.ready:
        engine.poll(10)
        seen.add(engine.status)
    engine.close()
    assert "loading world 3.0 MB" in seen


def test_the_loop_can_wait_on_the_pipe(engine):
    engine.submit("reset", prompt(), 1)
    while engine.busy:
        assert wait([engine], 10) == [engine]
        engine.poll()


def test_errors_keep_their_kind():
    engine = EngineProcess(FAKE, {"fail": "step"})
    with pytest.raises(ValueError, match="reset comes first"):
        engine.step(1)
    engine.reset(prompt(), 1)
    with pytest.raises(ValueError, match="outside 0"):
        engine.step(8)
    with pytest.raises(SourceError, match="try another key"):
        engine.step(7)
    assert engine.step(1).index == 1  # still alive
    engine.close()


def test_a_bug_in_the_engine_comes_with_its_traceback():
    engine = EngineProcess(FAKE, {"fail": "bug"})
    engine.reset(prompt(), 1)
    with pytest.raises(RuntimeError, match="the engine failed: KeyError: 'missing'") as caught:
        engine.step(7)
    assert "_go_wrong" in caught.value.__notes__[0]
    assert engine.step(1).index == 1
    engine.close()


@pytest.mark.parametrize(("fail", "kind"), [("load", CheckpointError), ("import", RuntimeError)])
def test_an_engine_that_cannot_load(fail, kind):
    engine = EngineProcess(FAKE, {"fail": fail})
    reply = wait_for(engine)
    assert reply.verb == "start"
    assert isinstance(reply.error, kind)
    assert engine.dead
    assert not engine.ready
    with pytest.raises(kind):
        engine.submit("reset", prompt(), 1)
    with pytest.raises(kind):
        engine.info  # noqa: B018
    engine.close()


def test_a_child_killed_at_rest(engine):
    engine.reset(prompt(), 1)
    os.kill(engine.pid, signal.SIGKILL)
    reply = wait_for(engine)
    assert isinstance(reply.error, GenieError)
    assert "the engine stopped (signal 9" in str(reply.error)
    assert "press R to restart it" in str(reply.error)
    assert engine.dead
    start = time.monotonic()
    assert engine.poll(0.05) is None  # told once; after that it waits like any other poll
    assert time.monotonic() - start >= 0.04
    with pytest.raises(GenieError, match="signal 9"):
        engine.submit("step", 1)


def test_a_child_that_dies_in_the_middle_and_is_restarted():
    engine = EngineProcess(FAKE, {"fail": "die"})
    first = engine.reset(prompt(), 1)
    engine.submit("step", 7)
    reply = wait_for(engine)
    assert reply.verb == "step"
    assert reply.args == (7,)
    assert "signal 9" in str(reply.error)
    assert not engine.busy
    old = engine.pid
    engine.restart()
    assert not engine.dead
    assert np.array_equal(engine.reset(prompt(), 1).pixels, first.pixels)
    assert engine.pid != old
    engine.close()


def test_close_is_quick_and_twice_is_fine():
    idle, loading, working = EngineProcess(FAKE), EngineProcess(FAKE), EngineProcess(FAKE, {"delay": 60.0})
    idle.reset(prompt(), 1)
    working.reset(prompt(), 1)
    working.submit("step", 1)
    start = time.monotonic()
    for engine in (idle, loading, working):
        engine.close()
        engine.close()
        wait_until_gone(engine.pid)
        with pytest.raises(ValueError, match="closed"):
            engine.submit("step", 1)
    assert time.monotonic() - start < 5


def test_ctrl_c_is_not_for_the_child(engine):
    engine.reset(prompt(), 1)
    os.kill(engine.pid, signal.SIGINT)
    assert engine.step(1).index == 1


def test_the_child_ends_with_its_parent():
    program = textwrap.dedent(
        f"""
        import sys, time
        sys.path.insert(0, {str(TESTS)!r})
        from genie_play.engine.process import EngineProcess
        if __name__ == "__main__":
            engine = EngineProcess({FAKE!r})
            engine.info
            print(engine.pid, flush=True)
            time.sleep(60)
        """
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, cwd=TESTS.parent) as parent:
        pid = int(parent.stdout.readline())
        parent.kill()
    wait_until_gone(pid)


def test_unknown_engines_are_named():
    with pytest.raises(GenieError, match="there are platformer, genie"):
        EngineProcess("nothing")


def test_inline_does_one_request_when_polled():
    engine = Inline(CountingEngine())
    engine.submit("reset", prompt(), 1)
    with pytest.raises(ValueError, match="under way"):
        engine.submit("step", 1)
    assert engine.busy
    reply = engine.poll()
    assert reply.value.index == 0
    assert not engine.busy
    assert engine.poll() is None
    assert engine.step(1).index == 1
    with pytest.raises(ValueError, match="outside"):
        engine.step(9)
    engine.close()
    engine.close()


def test_importing_it_does_not_import_torch():
    program = "import sys, genie_play.engine.process; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", program], check=True, cwd=TESTS.parent)
