"""A worker's settings: through environment variables and back, and what is said of wrong ones."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import pytest

from detector.errors import UsageError
from detector.worker_settings import PREFIX, WorkerSettings

OTHER = WorkerSettings(
    device="tensorrt",
    threads=3,
    cuda_graphs=True,
    engine_cache=Path("/srv/a folder/engines"),
    cpu_lock=Path("cpu.lock"),
    log_level="DEBUG",
    max_body_bytes=2**20,
    max_photos=5,
    max_pixels=10**6,
    max_jpeg_pixels=10**7,
    load_error=Path("/srv/ü.txt"),
    requests=Path("/srv/requests"),
    counting=Path("/srv/counting"),
)


@pytest.mark.parametrize("settings", [WorkerSettings(), OTHER], ids=["defaults", "others"])
def test_settings_come_back_as_they_were(settings):
    assert WorkerSettings.from_env({"PATH": "/bin", "UNMASK_WORKERS": "2"} | settings.to_env()) == settings


def test_each_setting_has_a_variable_of_its_own():
    assert all(getattr(OTHER, each.name) != each.default for each in fields(OTHER))
    assert set(OTHER.to_env()) == {PREFIX + each.name.upper() for each in fields(OTHER)}


def test_without_variables_the_defaults_hold():
    assert WorkerSettings.from_env({}) == WorkerSettings()


@pytest.mark.parametrize(
    ("name", "value", "accepted"),
    [
        ("DEVICE", "gpu", "cpu, cuda, tensorrt"),
        ("THREADS", "-1", "from 0"),
        ("THREADS", "two", "from 0"),
        ("CUDA_GRAPHS", "yes", "0, 1"),
        ("CPU_LOCK", "", "a path"),
        ("LOG_LEVEL", "LOUD", "ERROR, WARNING"),
        ("MAX_PHOTOS", "0", "from 1"),
        ("MAX_BODY_BYTES", "16M", "from 1"),
        ("TREADS", "1", "UNMASK_WORKER_THREADS"),
    ],
)
def test_a_wrong_value_or_name_is_refused_by_the_name_of_its_variable(name, value, accepted):
    with pytest.raises(UsageError, match=f"^{PREFIX}{name} is .*{accepted}"):
        WorkerSettings.from_env({PREFIX + name: value})
