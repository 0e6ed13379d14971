"""Where training computes, and what it keeps."""

from __future__ import annotations

import subprocess
import sys

import pytest

pytestmark = pytest.mark.slow

FAULTS = """
import resource, sys, torch
from training.fit.device import keep_freed_memory
if sys.argv[1] == "kept":
    keep_freed_memory()
net = torch.nn.Sequential(*(torch.nn.Conv2d(3 if i == 0 else 32, 32, 3) for i in range(3)))
photos = torch.rand(16, 3, 96, 96)
for step in range(14):
    if step == 10:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    net(photos).relu().mean().backward()
    net.zero_grad()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's allocator")
def test_memory_that_is_freed_is_used_again_without_page_faults() -> None:
    def faults(how: str) -> int:
        return int(subprocess.check_output([sys.executable, "-c", FAULTS, how], text=True))

    assert faults("kept") < faults("given back") / 4
