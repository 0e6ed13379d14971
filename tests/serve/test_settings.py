"""Settings: where they come from, which are refused, and what a machine's limits make of them."""

from __future__ import annotations

import os
import socket
import sys

import pytest

from detector import UsageError
from detector.cpus import available_cpus
from serve.errors import PortTaken
from serve.ports import reserved_ports
from serve.settings import LOOPBACK, PORTS, Settings, load_settings


def test_flags_come_before_variables_and_variables_before_defaults(monkeypatch):
    monkeypatch.setenv("UNMASK_WORKERS", "3")
    monkeypatch.setenv("UNMASK_BATCH_SIZE", "4")
    settings = load_settings({"workers": 5})
    assert (settings.workers, settings.batch_size, settings.rest_port) == (5, 4, 8080)


def test_threads_are_the_cpus_shared_out_among_the_workers():
    cpus = available_cpus()
    assert Settings(workers=1).worker_threads == cpus
    assert Settings(workers=4 * cpus).worker_threads == 1
    assert Settings(threads=3).worker_threads == 3


@pytest.mark.parametrize(
    ("given", "word"),
    [
        ({"workers": -1}, "workers"),
        ({"archive": "keras"}, "archive"),
        ({"rest_port": 70000}, "UNMASK_REST_PORT"),
        ({"wrkers": 1}, "wrkers"),
    ],
)
def test_a_setting_that_can_not_be_is_named(given, word):
    with pytest.raises(UsageError, match=word):
        load_settings(given)


def test_every_setting_has_a_sentence():
    for name, field in Settings.model_fields.items():
        assert field.description, name
        assert field.description.endswith("."), name


def test_zero_takes_free_ports_all_different():
    wanted = load_settings(dict.fromkeys(PORTS, 0))
    with reserved_ports(wanted) as one, reserved_ports(wanted) as other:
        ports = [getattr(settings, field) for settings in (one, other) for field in PORTS]
    assert len(set(ports)) == 2 * len(PORTS)
    assert all(ports)


@pytest.mark.skipif(sys.platform != "linux", reason="ports are held on Linux")
def test_a_picked_port_is_given_to_nobody_else_until_the_server_has_it():
    with reserved_ports(load_settings(dict.fromkeys(PORTS, 0))) as settings:
        address = LOOPBACK, settings.rest_port
        with socket.socket() as other, pytest.raises(OSError, match="in use"):
            other.bind(address)
        with socket.create_server(address) as server, socket.create_connection(address) as client:
            client.sendall(b"x")
            connection, _ = server.accept()
            with connection:
                assert connection.recv(1) == b"x"


@pytest.mark.parametrize("field", PORTS)
def test_a_taken_port_is_named_with_its_purpose_and_flag(field):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        settings = load_settings(dict.fromkeys(PORTS, 0) | {field: port})
        match = rf"port {port} \({PORTS[field]}\).*--{field.replace('_', '-')}"
        with pytest.raises(PortTaken, match=match), reserved_ports(settings):
            pytest.fail("it was reserved all the same")


@pytest.mark.parametrize(
    "files",
    [
        {"proc/self/cgroup": "0::/", "sys/fs/cgroup/cpu.max": "100000 100000"},
        {"proc/self/cgroup": "0::/a/b", "sys/fs/cgroup/a/cpu.max": "150000 100000", "sys/fs/cgroup/a/b/cpu.max": "max 100000"},
        {"proc/self/cgroup": "0::/", "sys/fs/cgroup/cpu.max": "20000 100000"},
        {
            "proc/self/cgroup": "3:cpu,cpuacct:/x",
            "sys/fs/cgroup/cpu/x/cpu.cfs_quota_us": "100000",
            "sys/fs/cgroup/cpu/x/cpu.cfs_period_us": "100000",
        },
    ],
    ids=["quota of this group", "quota of a group above", "less than one", "version 1"],
)
def test_a_container_limited_to_one_cpu_is_seen_as_such(tmp_path, files):
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(content + "\n")
    assert available_cpus(tmp_path) == 1


def test_without_a_quota_the_affinity_counts(tmp_path):
    assert available_cpus(tmp_path) == len(os.sched_getaffinity(0))
