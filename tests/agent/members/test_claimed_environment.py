"""What a claim may carry, and how it reaches the kernel: without a process."""

from __future__ import annotations

import os
import threading

import pytest

from linkis_ecm.agent.executors.ipython import CAPABILITIES
from linkis_ecm.agent.formats.member_requests import member_request, read_member_request
from linkis_ecm.agent.formats.startup import read_at_start
from linkis_ecm.agent.member.environment import (
    STRING_BYTES,
    TOTAL_BYTES,
    TooLargeError,
    UnusableError,
    claimed_environment,
)

OWN = {
    "PATH": "/usr/bin", "LANG": "C.UTF-8", "HOME": "/tmp/home", "ECM_MEMBER": "1", "ECM_PRELOAD": "pandas",
    "ECM_NAMESPACE": "pool", "ECM_POD_UID": "pod", "ECM_STOP_GRACE": "30", "ECM_WORK_DIR": "/work",
    "ECM_LOG_DIR": "/var/log/engine", "ECM_MAX_PROCESSES": "100",
}  # fmt: skip
TAKES = CAPABILITIES.takes


def test_the_claims_variables_are_over_the_members_and_none_of_the_members_stays() -> None:
    claimed = {"ECM_UID": "u", "ECM_POD_UID": "another", "ECM_ENV_A": "1", "OF_PLATFORM": "2", "PATH": "/opt/bin"}
    assert claimed_environment(OWN | {"ECM_UID": "old", "ECM_ENV_OLD": "x"}, claimed, TAKES) == {
        "PATH": "/opt/bin", "LANG": "C.UTF-8", "HOME": "/tmp/home", "ECM_POD_UID": "pod",
        "ECM_LOG_DIR": "/var/log/engine", "ECM_MAX_PROCESSES": "100", "ECM_UID": "u", "ECM_ENV_A": "1",
        "OF_PLATFORM": "2",
    }  # fmt: skip


@pytest.mark.parametrize("name", ["ECM_MAX_PROCESSES", "ECM_LOG_DIR", "ECM_MODE", "ECM_IDENTITY_FILE", "ECM_AGENT_KEY"])
def test_what_the_agents_process_was_started_with_cannot_be_claimed(name: str) -> None:
    with pytest.raises(UnusableError, match=f"{name} differs from the member's"):
        claimed_environment(OWN, {name: "other"}, TAKES)
    if name in OWN:
        assert claimed_environment(OWN, {name: OWN[name]}, TAKES)[name] == OWN[name]


@pytest.mark.parametrize(
    "name", ["LANG", "ECM_ENV_LC_ALL", "ECM_ENV_LD_PRELOAD", "PYTHONHASHSEED", "ECM_ENV_OMP_NUM_THREADS"]
)
def test_what_a_process_reads_at_its_start_cannot_differ(name: str) -> None:
    with pytest.raises(UnusableError, match=r"is read when the kernel's process starts"):
        claimed_environment(OWN, {name: "other"}, TAKES)
    assert claimed_environment(OWN | {"PYTHONHASHSEED": "other"}, {"PYTHONHASHSEED": "other"}, TAKES)
    # The user's own may be what the platform's is already.
    assert claimed_environment(OWN, {"ECM_ENV_LANG": "C.UTF-8"}, TAKES)["ECM_ENV_LANG"] == "C.UTF-8"


PATHS = ["/etc/localtime", ":/proc/self/fd/1", "./UTC", ":../../../proc/self/fd/1", "Europe/../../x", ".."]


@pytest.mark.parametrize("zone", PATHS)
def test_a_zone_that_is_a_path_starts_cold(zone: str) -> None:
    """A kernel that runs would read that file, whatever it is."""
    with pytest.raises(UnusableError, match=r"TZ is a path: name a zone, such as Europe/Berlin, or start") as told:
        claimed_environment(OWN, {"ECM_ENV_TZ": zone}, TAKES)
    assert zone not in str(told.value)
    # The member was started with it.
    assert claimed_environment(OWN | {"TZ": zone}, {"TZ": zone, "ECM_ENV_TZ": zone}, TAKES)["ECM_ENV_TZ"] == zone


@pytest.mark.parametrize(
    "zone", ["", "UTC", "Europe/Berlin", ":Asia/Shanghai", "CET-1CEST,M3.5.0,M10.5.0/3", "<+03>-3"]
)
def test_a_zone_by_its_name_or_rule_can_be_claimed(zone: str) -> None:
    assert claimed_environment(OWN, {"ECM_ENV_TZ": zone}, TAKES)["ECM_ENV_TZ"] == zone


def test_which_variables_those_are() -> None:
    assert all(
        map(
            read_at_start,
            ("PYTHONPATH", "LD_LIBRARY_PATH", "LANG", "LC_TIME", "MKL_NUM_THREADS", "VIRTUAL_ENV", "TZDIR"),
        )
    )
    assert not any(map(read_at_start, ("PATH", "HOME", "TZ", "TMPDIR", "LANGUAGES", "PIP_INDEX_URL", "MPLBACKEND")))


@pytest.mark.parametrize(
    ("module", "reads", "not_reads"),
    [
        ("matplotlib.pyplot", "MPLBACKEND MPLCONFIGDIR MATPLOTLIBRC", "HF_HOME ARROW_DEFAULT_MEMORY_POOL"),
        ("pandas", "ARROW_DEFAULT_MEMORY_POOL PANDAS_COPY_ON_WRITE", "MPLBACKEND HF_TOKEN AWS_REGION"),
        ("seaborn", "MPLBACKEND ARROW_IO_THREADS", "HF_HOME"),
        ("transformers", "HF_HOME TRANSFORMERS_CACHE TOKENIZERS_PARALLELISM CUDA_VISIBLE_DEVICES USE_TF", "MPLBACKEND"),
        ("jax.numpy", "JAX_PLATFORMS XLA_FLAGS CUDA_VISIBLE_DEVICES", "TF_CPP_MIN_LOG_LEVEL"),
        ("os.path", "", "MPLBACKEND OS_VERSION HF_HOME"),
        # It may import whatever it likes.
        ("acme_tools", "ACME_TOOLS_REGION MPLBACKEND HF_HOME POLARS_MAX_THREADS", "AWS_REGION HOME HTTPS_PROXY"),
    ],
)
def test_what_a_module_of_the_preload_reads_at_its_import(module: str, reads: str, not_reads: str) -> None:
    preload = ("json", module)
    assert [one for one in reads.split() if not read_at_start(one, preload)] == []
    assert [one for one in not_reads.split() if read_at_start(one, preload)] == []
    assert not any(map(read_at_start, reads.split()))


def test_what_an_imported_module_has_read_cannot_be_claimed() -> None:
    """The member has imported pandas: which memory pool pyarrow uses is decided."""
    claimed = {"ECM_ENV_ARROW_DEFAULT_MEMORY_POOL": "system"}
    with pytest.raises(UnusableError, match="ARROW_DEFAULT_MEMORY_POOL is read when the kernel's process starts or"):
        claimed_environment(OWN, claimed, TAKES)
    assert claimed_environment(OWN | {"ECM_PRELOAD": ""}, claimed, TAKES).items() >= claimed.items()
    assert claimed_environment(OWN, {"ECM_ENV_MPLBACKEND": "agg"}, TAKES)["ECM_ENV_MPLBACKEND"] == "agg"


def test_a_variable_and_all_together_are_bounded() -> None:
    name = "ECM_ENV_A"
    longest = "x" * (STRING_BYTES - len(name) - 2)
    assert claimed_environment(OWN, {name: longest}, TAKES)[name] == longest
    with pytest.raises(TooLargeError, match="ECM_ENV_A takes more than 131072 bytes"):
        claimed_environment(OWN, {name: f"{longest}x"}, TAKES)
    with pytest.raises(TooLargeError, match="ECM_ENV_A takes more than"):
        claimed_environment(OWN, {name: "ä" * (STRING_BYTES // 2)}, TAKES)
    many = {f"ECM_ENV_{number}": "x" * 100_000 for number in range(TOTAL_BYTES // 100_000 + 1)}
    with pytest.raises(TooLargeError, match="all variables together"):
        claimed_environment(OWN, many, TAKES)


def test_a_process_can_be_started_with_what_is_just_allowed() -> None:
    """And may start another one with an argument: the bound leaves room for it."""
    count, size = TOTAL_BYTES // STRING_BYTES, STRING_BYTES - 32
    full = {f"ECM_ENV_{number}": "x" * size for number in range(count - 1)}
    found = claimed_environment(OWN, full, TAKES)
    assert sum(len(name) + len(value) for name, value in found.items()) > TOTAL_BYTES * 0.9
    pid = os.posix_spawn("/bin/true", ["true", "y" * (100 << 10)], found)
    assert os.waitpid(pid, 0)[1] == 0


def test_a_name_in_a_sentence_is_short_and_plain() -> None:
    with pytest.raises(UnusableError) as caught:
        claimed_environment(OWN, {f"\ud800\n{'x' * 5000}": 7}, TAKES)
    assert len(str(caught.value)) < 400
    assert str(caught.value).isascii()


@pytest.mark.parametrize("size", [0, 1, 300_000])
def test_a_request_of_any_size_comes_whole(size: int) -> None:
    request = {"environment": {"A": "ä\n" * size}, "folder": "/tmp"}
    reading, writing = os.pipe()
    rest = memoryview(member_request(request) * 2)

    def write() -> None:
        nonlocal rest
        while rest:
            rest = rest[os.write(writing, rest[:1000]) :]
        os.close(writing)

    thread = threading.Thread(target=write)
    thread.start()
    assert [read_member_request(reading) for _ in range(3)] == [request, request, None]
    thread.join()
    os.close(reading)
