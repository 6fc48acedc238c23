"""Signals are heard at any moment of any mode, in destructors and native calls, and twice; see helpers/signals.py."""

import os
import signal
import subprocess
import sys
import time

import pytest
from helpers.signals import Signals

CODES = {signal.SIGTERM: 75, signal.SIGUSR1: 75, signal.SIGHUP: 75, signal.SIGINT: 130}
# What a mode does, in place of `main.main`.
WORK = """
import os, sys, time
from jaxclust import main
from jaxclust.run.preemption import GRACE
def work(argv, preemption):
    {work}
main.main = work
sys.exit(main.cli())
"""
DROPPED = """
    import gc
    class Slow:
        def __del__(self):
            print("ready", flush=True)
            for _ in range(100): time.sleep(.01)
    def callback(phase, info):
        if phase == "start":
            print("ready", flush=True)
            for _ in range(100): time.sleep(.01)
    {how}
    while True: time.sleep(.01)
"""
PLACES = {
    "in Python": "print('ready', flush=True)\n    while True: time.sleep(.01)",
    "in a destructor": DROPPED.format(how="Slow()"),
    "in a callback of the garbage collector": DROPPED.format(how="gc.callbacks.append(callback); gc.collect()"),
    "in a callback of an event loop": """
    import asyncio
    def callback():
        print("ready", flush=True)
        for _ in range(100): time.sleep(.01)
        loop.stop()
    loop = asyncio.new_event_loop()
    loop.call_soon(callback)
    loop.run_forever()
    while True: time.sleep(.01)""",
    "where somebody catches all": """
    print("ready", flush=True)
    while True:
        try:
            while True: time.sleep(.01)
        except BaseException: pass""",
    "in one native call": """
    import ctypes
    print("ready", flush=True)
    while True: ctypes.CDLL(None).usleep(900000), ctypes.CDLL(None).poll(None, 0, 60000)""",
    "where libraries make another error of it": """
    print("ready", flush=True)
    try:
        while True: time.sleep(.01)
    except BaseException: raise TypeError("a library's")""",
}


def started(place: str) -> subprocess.Popen:
    how = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    process = subprocess.Popen([sys.executable, "-c", WORK.format(work=place)], **how)
    assert process.stdout.readline() == "ready\n"
    time.sleep(0.1)
    return process


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "place"),
    [
        *((signal.SIGTERM, place) for place in PLACES),
        *((number, "in Python") for number in CODES if number != signal.SIGTERM),
        (signal.SIGINT, "in a destructor"),
        (signal.SIGHUP, "in one native call"),
    ],
)
def test_a_signal_is_heard_wherever_it_comes(number, place):
    process = started(PLACES[place])
    process.send_signal(number)
    said = process.communicate(timeout=60)[1]
    assert process.returncode == CODES[number]
    assert said.strip().startswith("jaxclust: ")
    assert len(said.strip().splitlines()) == 1, said


CLEANING = """
    try:
        print("ready", flush=True)
        while True: time.sleep(.01)
    finally:
        for _ in range(150): time.sleep(.01)
        print("clean", flush=True)"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("first", "second", "code", "clean"),
    [
        (signal.SIGUSR1, signal.SIGTERM, 75, True),
        (signal.SIGTERM, signal.SIGTERM, 75, True),
        (signal.SIGTERM, signal.SIGINT, 75, True),
        (signal.SIGINT, signal.SIGTERM, 130, True),
        (signal.SIGINT, signal.SIGINT, 130, False),  # who asks twice is in a hurry
    ],
)
def test_a_second_signal_breaks_nothing_off_but_a_second_ctrl_c_ends_at_once(first, second, code, clean):
    process = started(CLEANING)
    process.send_signal(first)
    time.sleep(0.5)
    process.send_signal(second)
    out, said = process.communicate(timeout=60)
    assert process.returncode == code
    assert ("clean" in out) is clean
    assert len(said.strip().splitlines()) == 1, said


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGKILL, signal.SIGINT])
def test_no_decoder_outlives_its_command(number, tmp_path):
    """Nor does Ctrl-C, which a terminal sends to all of them, have each say something."""
    work = f"""
    from jaxclust.data import workers
    from jaxclust.data.decode import Item
    pool = workers._pool()
    with workers._starting(): pool.submit(time.sleep, 60)
    with workers._starting(): print(pool.submit(os.getpid).result(), flush=True) if {os.cpu_count()} > 1 else None
    print("ready", flush=True)
    time.sleep(60)"""
    how = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "start_new_session": True}
    process = subprocess.Popen([sys.executable, "-c", WORK.format(work=work)], **how)
    assert "ready\n" in iter(process.stdout.readline, ""), process.stderr.read()
    (os.killpg if number == signal.SIGINT else os.kill)(process.pid, number)
    said = process.communicate(timeout=60)[1]  # its pipes are closed when the last of its processes has ended
    assert "Traceback" not in said


@pytest.mark.slow
@pytest.mark.parametrize("wait", [0.4, 0.8, 1.2, 2])
def test_ctrl_c_while_it_imports_says_nothing(wait):
    process = subprocess.Popen([sys.executable, "-m", "jaxclust.main", "--version"], stderr=subprocess.PIPE, text=True)
    time.sleep(wait)
    process.send_signal(signal.SIGINT)
    assert len(process.communicate(timeout=60)[1].splitlines()) <= 1
    assert process.returncode in (0, 130, -signal.SIGINT)


@pytest.mark.slow
def test_every_mode_ends_soon_at_any_moment(tmp_path):
    wrong = {done: what for done, what in Signals(tmp_path, seed=0).send(3) if what}
    assert not wrong
