"""Who is let in: readers on this machine that know the token, under this machine's own names, and only to read."""

import secrets
from hashlib import sha256
from urllib.parse import urlsplit

from werkzeug.wrappers import Request, Response

__all__ = ["GUARDED", "Gate", "refuse"]

NAMES = ("127.0.0.1", "localhost", "::1")
"""What a browser may call this server, at any port: a tunnel's end has another than ours. A page of another host whose name
was made to point here (DNS rebinding) calls it by that name, and gets nothing."""

GUARDED = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
"""Headers of every answer."""

KEY = "token"
ASK = (
    "This page needs its token: open the address that `featstore view` printed (…/?token=…) once in this browser; "
    "links without it work from then on."
)


class Gate:
    """Holds the token; it comes as ``?token=`` once, then as a cookie that only this server gets back."""

    def __init__(self, token: str) -> None:
        self.token = token
        # Cookies are shared by all ports of a host: two viewers at once must not overwrite each other's.
        self.cookie = f"featstore-{sha256(token.encode()).hexdigest()[:10]}"

    def check(self, request: Request) -> Response | None:
        """Return the refusal, or where the token came with the page's address the way to the page; None lets pass."""
        if not is_own_name(request.environ.get("HTTP_HOST", "")):
            return refuse(403, "This server answers to 127.0.0.1 and localhost alone.")
        if request.method not in ("GET", "HEAD"):
            answer = refuse(405, "This server only reads: GET and HEAD.")
            answer.headers["Allow"] = "GET, HEAD"
            return answer
        given = request.args.get(KEY)
        if not self.knows(given) and not self.knows(request.cookies.get(self.cookie)):
            return refuse(403, ASK)
        if given is None or request.path != "/":
            return None
        onward = Response(status=303, headers={"Location": "/"})  # a browser keeps the part behind # on the way
        onward.set_cookie(self.cookie, self.token, httponly=True, samesite="Strict", path="/")
        return onward

    def knows(self, given: str | None) -> bool:
        """Whether this is the token; how long it takes to tell says nothing of it."""
        return given is not None and secrets.compare_digest(given.encode(), self.token.encode())


def is_own_name(host: str) -> bool:
    """Whether a Host header names this machine's loopback."""
    try:
        return urlsplit(f"//{host}").hostname in NAMES
    except ValueError:
        return False


def refuse(status: int, line: str) -> Response:
    """Return an answer of one line of text."""
    return Response(line + "\n", status, mimetype="text/plain")
