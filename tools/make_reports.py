"""Make docs/reports/ and docs/images/report.png again, from samples/ alone.

``python tools/make_reports.py`` judges an accepted and a rejected sample with
`greenroom check --html`. The picture of the page wants chromium; without one the old picture
stays, and it says so.
"""

import io
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image

ROOT = Path(__file__).parents[1]
REPORTS = ROOT / "docs" / "reports"
PICTURE = ROOT / "docs" / "images" / "report.png"
PAGES = {"accepted.html": "samples/one_person.mp4", "rejected.html": "samples/two_people.mp4"}
MAX_BYTES = 400_000  # of a page that is committed
EXPECTED = {"accepted.html": 0, "rejected.html": 1}  # exit statuses of the command
WINDOW = (1280, 1600)  # down to the end of the time axis
COLOURS = 160
BROWSERS = ("chromium", "chromium-browser", "google-chrome")


def make_page(name: str, sample: str) -> Path:
    path = REPORTS / name
    argv = [sys.executable, "-m", "service", "check", "--html", str(path), sample]
    ended = subprocess.run(argv, cwd=ROOT, check=False, timeout=300)
    if ended.returncode != EXPECTED[name]:
        sys.exit(f"make_reports: {sample} ended with {ended.returncode}, want {EXPECTED[name]}")
    if path.stat().st_size > MAX_BYTES:
        sys.exit(f"make_reports: {path} has {path.stat().st_size} bytes, want {MAX_BYTES} at most")
    return path


def make_picture(page: Path) -> bool:
    """Whether there was a browser to take it with."""
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        return False
    with tempfile.TemporaryDirectory() as folder:
        shot = Path(folder) / "shot.png"
        options = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"]
        options += [f"--window-size={WINDOW[0]},{WINDOW[1]}", f"--screenshot={shot}"]
        argv = [browser, *options, f"--user-data-dir={folder}/profile", page.as_uri()]
        subprocess.run(argv, check=True, timeout=120, capture_output=True)
        small = io.BytesIO()
        Image.open(shot).convert("RGB").quantize(COLOURS).save(small, "PNG", optimize=True)
    PICTURE.write_bytes(small.getvalue())
    return True


def main() -> None:
    REPORTS.mkdir(exist_ok=True)
    pages = {name: make_page(name, sample) for name, sample in PAGES.items()}
    for path in pages.values():
        print(f"{path.relative_to(ROOT)}  {path.stat().st_size} bytes")
    if make_picture(pages["rejected.html"]):
        print(f"{PICTURE.relative_to(ROOT)}  {PICTURE.stat().st_size} bytes")
    else:
        print(f"no chromium here: {PICTURE.relative_to(ROOT)} is as it was")


if __name__ == "__main__":
    main()
