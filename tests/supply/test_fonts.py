"""What the image's build makes of matplotlib: a font with Chinese characters by default, and its list of fonts."""

from __future__ import annotations

import json
from pathlib import Path

import matplotlib as mpl
import pytest
from matplotlib import font_manager

from tools.image import fonts


def test_the_default_of_this_matplotlib_is_changed_in_one_line() -> None:
    text = Path(mpl.get_data_path(), "matplotlibrc").read_text()
    changed = fonts.with_family(text)
    before, after = set(text.splitlines()), set(changed.splitlines())
    assert before - after == {"#font.family:  sans-serif"}
    assert after - before == {f"#font.family:  sans-serif, {fonts.FAMILY}"}


@pytest.mark.parametrize("text", ["", "font.family: serif\n", "#font.family: a\n#font.family: b\n"])
def test_a_file_of_another_form_stops_the_build(text: str) -> None:
    with pytest.raises(ValueError, match=r"lines #font\.family"):
        fonts.with_family(text)


def test_the_list_has_the_font_by_the_names_that_code_asks_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data, cache = tmp_path / "data", tmp_path / "cache/a"
    data.mkdir()
    (data / "matplotlibrc").write_text("#font.family:  sans-serif\n")
    monkeypatch.setattr(mpl, "get_data_path", lambda: str(data))

    class Found(font_manager.FontManager):
        """As if the image had the font: a copy of one that matplotlib brings."""

        def __init__(self) -> None:
            one = font_manager.FontEntry(fname="/usr/share/fonts/truetype/wqy/wqy-microhei.ttc", name=fonts.FAMILY)
            self.ttflist, self.afmlist = [one], []

    monkeypatch.setattr(font_manager, "FontManager", Found)
    Found.__version__ = font_manager.fontManager.__version__
    fonts.main(cache)
    (written,) = cache.iterdir()
    assert written.name == f"fontlist-v{Found.__version__}.json"
    listed = {one["name"]: one["fname"] for one in json.loads(written.read_text())["ttflist"]}
    assert set(listed) == {fonts.FAMILY, *fonts.ALIASES}
    assert set(listed.values()) == {"/usr/share/fonts/truetype/wqy/wqy-microhei.ttc"}
    assert {"SimHei", "Microsoft YaHei"} < set(listed)


def test_an_image_without_the_font_stops_the_build(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "matplotlibrc").write_text("#font.family:  sans-serif\n")
    monkeypatch.setattr(mpl, "get_data_path", lambda: str(tmp_path))
    monkeypatch.setattr(fonts, "FAMILY", "No Such Font")
    with pytest.raises(ValueError, match="No Such Font is not among the image's fonts"):
        fonts.main(tmp_path / "cache")
