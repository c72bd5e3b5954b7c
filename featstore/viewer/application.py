"""The web application: which address gives what. It reads the store and nothing else."""

import json
import math
import sys
import traceback
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import lru_cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from werkzeug.exceptions import HTTPException
from werkzeug.routing import Map, Rule
from werkzeug.wrappers import Request, Response

from featstore.annotations import meaning_of
from featstore.errors import FeatstoreError, InputError, LockedError, NotInStoreError
from featstore.figure import colours_of
from featstore.manifest import plain
from featstore.places import placed

from .catalogue import columns_of, facts_of, store_of
from .gate import GUARDED, Gate
from .listings import Asked, Listing, Listings
from .maps import Maps
from .pictures import Kept, colour_of, jpeg_of, mask_of

__all__ = ["Application"]

PAGE, MOST = 60, 240
THUMBNAIL, PHOTOGRAPH = 200, 1024
"""Longest sides [pixels]."""
CLUSTERS = 8, 20
KINDS = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
FOREVER = "private, max-age=86400, immutable"
"""For addresses that name the bytes they answer with."""


class Application:
    """A WSGI application over one store."""

    def __init__(self, root: Path, token: str) -> None:
        self.root, self.gate = root, Gate(token)
        self.listings = Listings(root)
        self.maps = Maps(root, self.listings)
        self.thumbnails, self.photographs = Kept(64 << 20), Kept(64 << 20)
        self.assets = {file.name: file.read_bytes() for file in files(__package__).joinpath("assets").iterdir()}
        answers: dict[str, Callable[..., Response]] = {
            "/": lambda request: self.asset(request, "index.html"),
            "/assets/<name>": self.asset,
            "/api/store": lambda request: as_json(store_of(self.root)),
            "/api/columns": lambda request: as_json(columns_of(self.root)),
            "/api/colours": lambda request: as_json(colour_tables()),
            "/api/images": self.images,
            "/api/image": self.image,
            "/api/thumbnail": self.thumbnail,
            "/api/photograph": self.photograph,
            "/api/mask": self.mask,
            "/api/features": self.features,
            "/api/map": self.map,
        }
        self.answers = answers
        self.routes = Map([Rule(path, endpoint=path) for path in answers])

    def __call__(self, environ: dict[str, Any], start: Any) -> Iterable[bytes]:
        """Answer a request."""
        request = Request(environ)
        answer = self.gate.check(request) or self.answer(request)
        for name, value in GUARDED.items():
            answer.headers[name] = value
        answer.headers.setdefault("Cache-Control", "no-store")
        return answer(environ, start)

    def answer(self, request: Request) -> Response:
        """Return the answer to one who is let in; errors are one line of JSON."""
        try:
            endpoint, given = self.routes.bind_to_environ(request.environ).match()
            return self.answers[endpoint](request, **given)
        except HTTPException as error:
            return as_json({"error": f"{error.name}: {request.path}"}, error.code or 500)
        except FeatstoreError as error:
            return as_json({"error": " ".join(str(error).split())}, status_of(error))
        except Exception as error:  # one damaged file must not end the page; whoever runs the server sees where it was
            traceback.print_exc(file=sys.stderr)
            return as_json({"error": f"{type(error).__name__}: {' '.join(str(error).split())}"}, 500)

    def asset(self, request: Request, name: str) -> Response:
        """Return a file of the page: one of those that lie there, by name."""
        if name not in self.assets:
            return as_json({"error": f"no such file: {name}"}, 404)
        return Response(self.assets[name], content_type=f"{KINDS[Path(name).suffix]}; charset=utf-8")

    def images(self, request: Request) -> Response:
        """Return a page of images; ``around`` is an image on whose page to be, where it is among them."""
        given = request.args
        asked = replace(asked_of(request), where=given.get("where", ""), sort=given.get("sort", ""))
        listing, size = self.listings.get(asked), number(given.get("size"), 1, MOST, PAGE)
        pages = max(1, math.ceil(listing.count / size))
        page = number(given.get("page"), 1, pages, 1)
        around = given.get("around")
        if around:
            found = listing.rows("image_id = ?", [around])
            page = found[0]["n"] // size + 1 if found else page
        column = asked.sort.lstrip("-")
        shown = [
            {"image_id": row["image_id"], "key": row["sha256"][:16], "n": row["n"], "value": row.get(column)}
            for row in listing.page(page - 1, size)
        ]
        return as_json({"count": listing.count, "page": page, "pages": pages, "size": size, "images": shown})

    def image(self, request: Request) -> Response:
        """Return what is known of one image."""
        listing, row = self.found(request)
        return as_json(facts_of(listing, row))

    def thumbnail(self, request: Request) -> Response:
        """Return a small photograph."""
        return self.jpeg(request, self.thumbnails, THUMBNAIL)

    def photograph(self, request: Request) -> Response:
        """Return a photograph for the screen."""
        return self.jpeg(request, self.photographs, PHOTOGRAPH)

    def jpeg(self, request: Request, kept: Kept, side: int) -> Response:
        """Return a photograph at a size."""
        listing, row = self.found(request)
        path = placed(listing.folder, row["path"])
        data = kept.get((row["sha256"], side), lambda: jpeg_of(path, side))
        return Response(
            data, mimetype="image/jpeg", headers={"Cache-Control": FOREVER if "key" in request.args else "no-store"}
        )

    def mask(self, request: Request) -> Response:
        """Return an image's mask in colours; the labels in it, their colours and names come as a header."""
        listing, row = self.found(request)
        if row["mask_path"] is None:
            raise NotInStoreError(f"{row['image_id']} has no mask")
        meaning = meaning_of(self.root, listing.asked.dataset)
        ignored, names = meaning.mask_ignored or (), meaning.mask_classes or ()
        ignored = (*ignored, 0) if names[:1] == ("background",) else ignored  # the photograph is what tells most there
        data, labels = mask_of(placed(listing.folder, row["mask_path"]), meaning.mask_coding, ignored, PHOTOGRAPH)
        said = [(names[n] if n < len(names) and names[n] else str(n), colour_of(n)) for n in labels]
        return Response(data, mimetype="image/png", headers={"X-Labels": json.dumps(said)})

    def features(self, request: Request) -> Response:
        """Return features as they are stored: float16, little-endian, (H, W, C), the shape as a header."""
        _, row = self.found(request)
        return as_array(self.maps.read(row, request.args.get("variant", "raw")).astype("<f2", copy=False))

    def map(self, request: Request) -> Response:
        """Return principal components as colours (H, W, 3), or clusters (H, W), as bytes."""
        listing, row = self.found(request)
        given = request.args
        variant, beside = given.get("variant", "raw"), given.get("beside")
        other = self.listings.get(Asked(listing.asked.dataset, beside)) if beside else None
        if given.get("kind") == "pca":
            return as_array(self.maps.colours(listing, row, variant, other))
        if given.get("kind") == "kmeans":
            count = number(given.get("clusters"), 2, CLUSTERS[1], CLUSTERS[0])
            return as_array(self.maps.clusters(listing, row, variant, other, count))
        raise InputError("kind is pca or kmeans")

    def found(self, request: Request) -> tuple[Listing, dict[str, Any]]:
        """Return the whole listing of what is asked for, and the image's row in it."""
        listing = self.listings.get(asked_of(request))
        return listing, listing.find(request.args.get("image", ""))


def asked_of(request: Request) -> Asked:
    """Return the data set and version asked for; version ``none`` is the indexed images, whatever has features."""
    version = request.args.get("version", "none")
    return Asked(request.args.get("dataset", ""), "" if version == "none" else version)


def number(text: str | None, low: int, high: int, default: int) -> int:
    """Return a number in its bounds; raises InputError for what is none."""
    try:
        return default if text is None or text == "" else max(low, min(high, int(text)))
    except ValueError as error:
        raise InputError(f"{text!r} is no whole number") from error


def status_of(error: FeatstoreError) -> int:
    """Return the HTTP status of an error."""
    if isinstance(error, NotInStoreError):
        return 404
    return 503 if isinstance(error, LockedError) else 400 if isinstance(error, ValueError) else 500


def as_json(value: Any, status: int = 200) -> Response:
    """Return JSON."""
    return Response(json.dumps(plain(value), ensure_ascii=False), status, mimetype="application/json")


def as_array(values: Any) -> Response:
    """Return an array's bytes, its shape as a header."""
    shape = ",".join(map(str, values.shape))
    return Response(values.tobytes(), mimetype="application/octet-stream", headers={"X-Shape": shape})


@lru_cache(maxsize=1)
def colour_tables() -> dict[str, Any]:
    """Return the colours of figures: 256 of cosines and of norms, those of up to eight clusters and of more."""
    import numpy as np
    from matplotlib import colormaps

    from featstore.figure import COSINES, NORMS

    tables = {
        name: colormaps[kind](np.arange(256), bytes=True)[:, :3]
        for name, kind in (("cosine", COSINES), ("norm", NORMS))
    }
    tables |= {"few": colours_of(CLUSTERS[0]), "many": colours_of(CLUSTERS[1])}
    return {name: [int(value) for value in colours.ravel()] for name, colours in tables.items()}
