"""What can stop an inspection short of a verdict. A refusal is a Verdict, never one of these.

InspectionError          somebody of ours must act, or a retry on a fresh child may do
 |- ToolCrashedError     ffmpeg or ffprobe died of a signal, or could not be started
 |- ToolTimeoutError     it ran past its deadline and was killed with its process group
 |- AnalysisCrashedError the analysis child died, broke the protocol or outgrew its memory
 `- AnalysisTimeoutError the analysis child ran past its deadline and was killed
"""


class InspectionError(Exception):
    """No verdict could be reached. The same bytes may be tried again on a fresh child."""


class ToolCrashedError(InspectionError):
    """ffmpeg or ffprobe died of a signal, or could not be started."""


class ToolTimeoutError(InspectionError):
    """A media tool ran past its deadline and was killed."""


class AnalysisCrashedError(InspectionError):
    """The analysis child died or broke the protocol. A fresh one serves the next request."""


class AnalysisTimeoutError(InspectionError):
    """The analysis child ran past its deadline and was killed."""
