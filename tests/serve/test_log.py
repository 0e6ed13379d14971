"""The log: JSON or text, never in anybody's way, and a file that is added to."""

from __future__ import annotations

import json
import os
import pty
import re

import pytest

from detector.errors import FileError
from serve.logs.causes import last_line, worker_exception
from serve.logs.jvm_output import JvmOutput, Line
from serve.logs.log import QUEUE_LINES, Log


def read_all(descriptor: int) -> str:
    parts = []
    try:
        while part := os.read(descriptor, 2**16):
            parts.append(part)
    except OSError:  # the other end of a terminal is closed
        pass
    os.close(descriptor)
    return b"".join(parts).decode()


def test_elsewhere_than_at_a_terminal_each_line_is_a_json_object():
    reading, writing = os.pipe()
    log = Log(stream=writing)
    log.emit("worker_ended", "error", message="worker 7 is gone\nand more", pid=7, version="1.0", detail=None)
    log.emit("ready")
    log.close()
    os.close(writing)
    first, second = map(json.loads, read_all(reading).splitlines())
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", first.pop("time"))
    assert first == {
        **{"level": "error", "event": "worker_ended", "message": "worker 7 is gone\nand more"},
        **{"pid": 7, "version": "1.0", "detail": None},
    }
    assert (second["level"], second["event"]) == ("info", "ready")


def test_at_a_terminal_it_is_text():
    reading, writing = pty.openpty()
    log = Log(stream=writing)
    log.emit("worker_ended", "error", message="worker 7 is gone", pid=7)
    log.emit("request", protocol="rest", code="two words", seconds=0.5)
    log.close()
    os.close(writing)
    first, second = read_all(reading).splitlines()
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d error: worker 7 is gone", first)
    assert second.endswith(' request protocol=rest code="two words" seconds=0.5')


def test_a_file_is_added_to_and_begins_anew_when_it_is_large(tmp_path, monkeypatch):
    monkeypatch.setattr("serve.logs.log.FILE_BYTES", 2000)
    file = tmp_path / "new" / "server.log"
    for run in range(2):
        log = Log(file=file, stream=os.open(os.devnull, os.O_WRONLY))
        assert log.place == str(file)
        for number in range(100 if run else 3):
            log.emit("line", number=number, run=run)
        log.close()
    kept = sorted(tmp_path.rglob("server.log*"), reverse=True)
    assert [each.name for each in kept] == ["server.log.3", "server.log.2", "server.log.1", "server.log"]
    lines = [json.loads(line) for each in kept for line in each.read_text().splitlines()]
    assert [line["number"] for line in lines] == list(range(100 - len(lines), 100))
    (tmp_path / "folder").mkdir()
    with pytest.raises(FileError, match="--log-file"):
        Log(file=tmp_path / "folder")


def test_a_reader_that_does_not_read_keeps_nobody_waiting_and_what_is_lost_is_counted():
    reading, writing = os.pipe()
    log = Log(stream=writing)
    for number in range(QUEUE_LINES + 5000):
        log.emit("line", number=number, padding="x" * 100)
    (lost,) = next(iter(log.collect())).samples
    assert lost.value > 0
    log.close()  # gives up after two seconds
    os.close(reading)
    log.emit("line")  # nobody is there any more


def test_a_reader_that_comes_late_is_told_how_much_is_missing():
    reading, writing = os.pipe()
    log = Log(stream=writing)
    for number in range(QUEUE_LINES + 5000):
        log.emit("line", number=number, padding="x" * 100)
    (lost,) = next(iter(log.collect())).samples
    text = b""
    while b"log_lines_dropped" not in text:
        text += os.read(reading, 2**20)
    lines = [json.loads(line) for line in text.decode().splitlines()[:-1]]
    assert sum(line["event"] == "line" for line in lines) <= QUEUE_LINES + 5000 - lost.value
    os.close(reading)


WORKER = "INFO\tMODEL_LOG\tW-9000-detector_2.0-rc_1-stdout\t{}"


def test_the_jvms_lines_are_taken_apart():
    line = Line.of('ERROR\torg.pytorch.Worker\tW-9000-detector_1.0\tIt \\"failed\\"\\njava.lang.E: x\\n\\tat Y\\n')
    assert line == Line("error", "org.pytorch.Worker", "W-9000-detector_1.0", 'It "failed"\njava.lang.E: x\n\tat Y')
    assert (line.version, line.of_worker) == ("1.0", False)
    line = Line.of(WORKER.format("[PID]12"))
    assert (line.version, line.of_worker, line.message) == ("2.0-rc_1", True, "[PID]12")
    assert Line.of("java.lang.OutOfMemoryError: Java heap space") == Line(
        "warning", "", "", "java.lang.OutOfMemoryError: Java heap space"
    )
    assert Line.of("WARN\tx\ty\tbad \\q escape").message == "bad \\q escape"


def test_the_cause_of_a_failed_start_is_the_first_exception_of_the_worker_that_died():
    other = Line("info", "MODEL_LOG", "W-9001-detector_1.0-stdout", "Something else")
    own = [
        Line("info", "MODEL_LOG", "W-9000-detector_1.0-stdout", text)
        for text in (
            "Backend worker process died.",
            "Traceback (most recent call last):",
            '  File "x"',
            "KeyError: 1",
            "More: 2",
        )
    ]
    lines = [other, *own[:2], other, *own[2:]]
    assert worker_exception(lines) == "KeyError: 1"
    assert worker_exception(lines[:5]) is None
    assert worker_exception([other]) is None
    assert last_line([other]) == "it has printed nothing"
    assert last_line([Line("error", "a", "b", "first\nsecond"), other]) == "first"


def test_the_jvms_output_is_read_to_its_end_and_what_every_start_prints_is_left_out():
    told, seen = [], []
    output = JvmOutput(lambda event, level="info", **fields: told.append((event, fields["message"])), seen.append, quiet=True)
    writing = os.dup(output.writing)
    output.start()
    lines = ["[PID]12", "Torch worker started.", "a word of its own"]
    os.write(writing, "".join(WORKER.format(line) + "\n" for line in lines).encode())
    os.write(writing, b"WARNING: sun.misc.Unsafe\nbroken \xff text\nWARN\torg.x\tmain\tpay attention\n" + b"y" * 200_000)
    os.close(writing)
    output.finish(60)
    assert told[:3] == [
        ("worker", "a word of its own"),
        ("torchserve", "broken \ufffd text"),
        ("torchserve", "pay attention"),
    ]
    assert sum(len(message) for _, message in told[3:]) == 200_000
    assert seen == output.lines()
    assert len(seen) == len(told) + 3
