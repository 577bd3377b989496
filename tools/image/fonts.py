"""Makes matplotlib draw Chinese in an engine's image: `python fonts.py CACHE`, run by the image's Python in its build.

Writes matplotlib's list of fonts into the folder CACHE, so that no engine spends its first plot on making it, and names
a font with Chinese characters in matplotlib's defaults. Must not run outside of a build: it changes matplotlib's file.
"""

from __future__ import annotations

import re
import sys
from dataclasses import replace
from pathlib import Path

FAMILY = "WenQuanYi Micro Hei"
# Names that code from elsewhere asks for, of fonts that this image may not ship. They get FAMILY, as by an alias of
# fontconfig.
ALIASES = (
    "Arial Unicode MS", "FangSong", "Heiti SC", "Heiti TC", "KaiTi", "Microsoft JhengHei", "Microsoft YaHei", "NSimSun",
    "Noto Sans CJK SC", "PingFang SC", "STHeiti", "STSong", "SimHei", "SimSun", "Source Han Sans CN",
    "Source Han Sans SC", "WenQuanYi Zen Hei",
)  # fmt: skip
# The generic name first, so that code which chooses another one for it is obeyed; FAMILY has what that one lacks.
_DEFAULT = re.compile(r"^#font\.family:.*$", re.MULTILINE)


def with_family(text: str) -> str:
    """A matplotlibrc that takes from FAMILY what the first font lacks. Raises ValueError where it has no such line."""
    changed, count = _DEFAULT.subn(f"#font.family:  sans-serif, {FAMILY}", text)
    if count != 1:
        raise ValueError(f"matplotlibrc has {count} lines #font.family: look what matplotlib calls it now")
    return changed


def main(cache: Path) -> None:
    """Change matplotlib's file, and write its list. Raises ValueError where the font is not in the image."""
    import matplotlib

    path = Path(matplotlib.get_data_path(), "matplotlibrc")
    path.write_text(with_family(path.read_text()))
    from matplotlib import font_manager

    fonts = font_manager.FontManager()
    found = [entry for entry in fonts.ttflist if entry.name == FAMILY]
    if not found:
        raise ValueError(f"{FAMILY} is not among the image's fonts")
    fonts.ttflist += [replace(found[0], name=name) for name in ALIASES]
    cache.mkdir(parents=True, exist_ok=True)
    font_manager.json_dump(fonts, str(cache / f"fontlist-v{font_manager.FontManager.__version__}.json"))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
