"""Ranks of a match among the candidates of a query."""

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def cosine_distances(queries: Floats, matches: Floats) -> tuple[Floats, Floats]:
    """Return 1 − cosine of queries to each other (query, candidate), and to their own match.

    Queries and matches are codes (query, dim).

    Cosine, not length: codes of people whom the encoder never saw are shorter than those of its
    training, and a contrast moves all of them alike.
    """
    queries, matches = (
        x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12) for x in (queries, matches)
    )
    return 1 - queries @ queries.T, 1 - (queries * matches).sum(axis=1)


def match_rank(to_others: Floats, to_match: float) -> int:
    """Return the rank of a match by its distance and those of the other candidates; 1 is found.

    Ties count against the match: representations that tell nobody apart are of no use.
    """
    return 1 + int((to_others <= to_match).sum())
