"""From an inspection and its medium to what a page shows of it."""

from dataclasses import replace
from pathlib import Path

from service.console.report import Report
from validators.errors import InspectionError
from validators.inspect import BEYOND_LIMIT_S, Inspection, Tools
from validators.media.contact_sheet import Reading, read_contact_sheet
from validators.policy import Policy
from validators.verdict import Outcome

UNSEEN = "There are no pictures: the tool that reads them failed. The verdict stands."


async def gather(
    path: Path, inspection: Inspection, policy: Policy, tools: Tools, *, name: str
) -> Report:
    """Read pictures and sound of *path* once more. A page without them is better than none."""
    failed = (each for each in inspection.verdict.checks if each.outcome is Outcome.FAIL)
    reading = Reading(
        sandbox=tools.sandbox,
        ffmpeg=tools.ffmpeg,
        up_to_s=policy.max_duration_s + BEYOND_LIMIT_S,
        max_frame_pixels=policy.max_frame_pixels,
        max_image_pixels=policy.max_image_pixels,
    )
    report = Report(name=name, verdict=inspection.verdict, facts=inspection.facts)
    ranges = [shown for each in failed for shown in each.ranges]
    try:
        sheet = await read_contact_sheet(path, inspection.facts, ranges, reading)
    except (InspectionError, OSError):
        return replace(report, unseen=UNSEEN)
    return replace(report, sheet=sheet)
