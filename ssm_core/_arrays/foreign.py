"""Arrays that look like ours but compute otherwise, by the names of their classes: why, and what to write instead."""

from __future__ import annotations

from collections.abc import Iterable

_SPARSE = "is sparse, and recurrences fill every entry"
_LABELED = "has labels, which would be lost"

# (root module, class or None for all of it): the cause, and the call that makes an ordinary array of {0}.
_FOREIGN: dict[tuple[str, str | None], tuple[str, str]] = {
    ("numpy", "matrix"): ("has two axes whatever is taken of it, and * is its matrix product", "numpy.asarray({0})"),
    ("numpy", "MaskedArray"): ("hides entries behind a mask, which would be lost", "{0}.filled(0.0)"),
    ("scipy", None): (_SPARSE, "{0}.toarray()"),
    ("sparse", None): (_SPARSE, "{0}.todense()"),
    ("jax", "JAXSparse"): (_SPARSE, "{0}.todense()"),
    ("cupyx", None): (_SPARSE, "{0}.toarray()"),
    ("dask", None): ("is computed later and in pieces", "{0}.compute()"),
    ("pandas", None): (_LABELED, "{0}.to_numpy()"),
    ("xarray", None): (_LABELED, "{0}.values"),
    ("tensorflow", None): ("belongs to a library without the array API standard", "{0}.numpy()"),
}


_seen: dict[type, tuple[str, str] | None] = {}  # torch.compile looks behind functools.cache, and warns


def advice(cls: type) -> tuple[str, str] | None:
    """The cause and the call to write, if arrays of this class are none of ours.

    >>> import numpy
    >>> advice(numpy.matrix)[1].format("A"), advice(numpy.ndarray)
    ('numpy.asarray(A)', None)
    """
    if cls not in _seen:
        _seen[cls] = _advice(cls)
    return _seen[cls]


def note_ours(classes: Iterable[type]) -> None:
    """Note that classes are a framework's own, before a trace, in which nothing can be noted."""
    _seen.update(dict.fromkeys(classes))


def _advice(cls: type) -> tuple[str, str] | None:
    for base in cls.__mro__:
        root = base.__module__.partition(".")[0]
        found = _FOREIGN.get((root, base.__name__)) or _FOREIGN.get((root, None))
        if found is not None:
            return found
    return None
