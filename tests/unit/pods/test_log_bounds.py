"""What an engine's pod is told about its logs fits the volume that they are on."""

from __future__ import annotations

from linkis_ecm.agent.formats.log_pages import BLOCK
from linkis_ecm.agent.logs.bounded_file import STEP
from linkis_ecm.agent.settings import read_settings
from linkis_ecm.agent.tasks import JOURNAL_BYTES
from linkis_ecm.engine.pod import launch
from linkis_ecm.model.formats import parse_quantity
from linkis_ecm.model.plugin import LOG_VOLUME

MIB = 1 << 20


def test_the_agents_bounds_are_half_of_the_volume_at_most() -> None:
    volume = int(parse_quantity(LOG_VOLUME))
    assert volume >= 2 * launch.LOG_TOTAL_MIB * MIB
    # Also where a filesystem keeps as much again ready behind each file's end.
    assert volume > 2 * (2 * launch.LOG_FILE_MIB * MIB + JOURNAL_BYTES)


def test_an_agent_without_new_settings_keeps_its_defaults() -> None:
    settings = read_settings({"ECM_AGENT_KEY": "k"})
    assert settings.log_file_bytes == launch.LOG_FILE_MIB * MIB
    assert settings.log_total_bytes == launch.LOG_TOTAL_MIB * MIB


def test_a_log_drops_whole_blocks_of_the_index() -> None:
    assert STEP % BLOCK == 0
