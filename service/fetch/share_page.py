"""What to send instead of a page of a sharing service. Pure; nothing is refused for it.

People paste the link that they can see: it opens a page around the file. The hints are common
knowledge of these services in 2026, not promises of theirs; one that is out of date costs a try.
"""

import re

_ONLY_UPLOAD = "it has no lasting direct links, so upload the file"
_FILE_ITSELF = "download the file there and upload it, or send the address of the file itself"

_GOOGLE_DRIVE = (
    "a Google Drive page: share the file with everyone who has the link, then send"
    " https://drive.google.com/uc?export=download&id=FILE_ID; a file over 100 MB has to be uploaded"
)
_BLOB_PAGE = "a page around the file: put /raw/ in place of /blob/ in the link"

# By host, the most specific name first; a name stands for its subdomains too.
_HINTS = {
    "docs.google.com": _GOOGLE_DRIVE,
    "drive.google.com": _GOOGLE_DRIVE,
    "drive.usercontent.google.com": _GOOGLE_DRIVE,
    "photos.google.com": f"a Google Photos page: {_ONLY_UPLOAD}",
    "photos.app.goo.gl": f"a Google Photos page: {_ONLY_UPLOAD}",
    "accounts.google.com": "a sign-in page: share the file with everyone who has the link",
    "dropbox.com": "a Dropbox page: let the link end with dl=1 in place of dl=0",
    "onedrive.live.com": f"a OneDrive page: {_ONLY_UPLOAD}",
    "1drv.ms": f"a OneDrive page: {_ONLY_UPLOAD}",
    "sharepoint.com": (
        "a SharePoint page: share the file with everyone and add download=1 to the link's query"
    ),
    "login.microsoftonline.com": "a sign-in page: share the file with everyone who has the link",
    "login.live.com": "a sign-in page: share the file with everyone who has the link",
    "box.com": "a Box page: send the direct link of its link settings, with /shared/static/ in it",
    "icloud.com": f"an iCloud page: {_ONLY_UPLOAD}",
    "wetransfer.com": f"a WeTransfer page: {_ONLY_UPLOAD}",
    "we.tl": f"a WeTransfer page: {_ONLY_UPLOAD}",
    "mega.nz": f"a MEGA page: {_ONLY_UPLOAD}",
    "mediafire.com": f"a MediaFire page: {_ONLY_UPLOAD}",
    "pcloud.com": f"a pCloud page: {_ONLY_UPLOAD}",
    "pcloud.link": f"a pCloud page: {_ONLY_UPLOAD}",
    "frame.io": f"a Frame.io page: {_FILE_ITSELF}",
    "loom.com": f"a Loom page: {_FILE_ITSELF}",
    "youtube.com": f"a YouTube page: {_FILE_ITSELF}",
    "youtu.be": f"a YouTube page: {_FILE_ITSELF}",
    "vimeo.com": f"a Vimeo page: {_FILE_ITSELF}",
    "dailymotion.com": f"a Dailymotion page: {_FILE_ITSELF}",
    "twitch.tv": f"a Twitch page: {_FILE_ITSELF}",
    "tiktok.com": f"a TikTok page: {_FILE_ITSELF}",
    "instagram.com": f"an Instagram page: {_FILE_ITSELF}",
    "facebook.com": f"a Facebook page: {_FILE_ITSELF}",
    "fb.watch": f"a Facebook page: {_FILE_ITSELF}",
    "x.com": f"a page of X: {_FILE_ITSELF}",
    "twitter.com": f"a page of X: {_FILE_ITSELF}",
    "linkedin.com": f"a LinkedIn page: {_FILE_ITSELF}",
    "soundcloud.com": f"a SoundCloud page: {_FILE_ITSELF}",
    "flickr.com": f"a Flickr page: {_FILE_ITSELF}",
    "imgur.com": "an Imgur page: send the image's own address at i.imgur.com",
    "notion.so": f"a Notion page: {_FILE_ITSELF}",
}
# Services whose hosts hold files as well; only these paths are pages.
_HINTS_BY_PATH = {
    "github.com": (re.compile(r"/[^/]+/[^/]+/blob/"), _BLOB_PAGE),
    "gitlab.com": (re.compile(r"/.+/-/blob/"), _BLOB_PAGE),
    "huggingface.co": (
        re.compile(r"/.+/blob/"),
        "a page around the file: put /resolve/ in place of /blob/ in the link",
    ),
}


def what_to_send(host: str, path: str) -> str | None:
    """Of a page at *host* (ASCII, lower case): what it is and what to send in its place.

    None where we do not know the service.
    """
    for name in _names(host.removesuffix(".")):
        if name in _HINTS:
            return _HINTS[name]
        if name in _HINTS_BY_PATH:
            is_page, hint = _HINTS_BY_PATH[name]
            return hint if is_page.match(path) else None
    return None


def _names(host: str) -> list[str]:
    """*host* and the names above it, the longest first."""
    labels = host.split(".")
    return [".".join(labels[start:]) for start in range(len(labels))]
