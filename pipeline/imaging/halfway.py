"""Two visits of one person in one frame, halfway between them, so that neither is favoured."""

import numpy as np
from scipy.linalg import polar
from scipy.spatial.transform import Rotation

from pipeline.imaging.atlas.mni152 import GRID_CENTRE
from pipeline.imaging.header import Affine


def halfway(first: Affine, second: Affine) -> tuple[Affine, Affine, Affine]:
    """Return the way from a shared MNI152 frame to those of two scans, and back to one head.

    `first` and `second` (4, 4) are each scan's native world to its MNI152 world (mm). A head does
    not grow between visits: the two native spaces differ by a rotation and a shift, and what else
    differs between the affines is their estimation error, which would look like a change of volume.
    So the heads are laid on each other rigidly, each moved half the way, and both go to MNI152 by
    the mean of the two affines.

    Returns
    -------
    to_first, to_second
        (4, 4): point of the shared frame to the point of the scan's own MNI152 frame.
    head_to_shared
        (4, 4): the head between the two (mm, its own size) to the shared frame.
    """
    between = np.linalg.inv(first) @ second
    turn = polar(between[:3, :3])[0]
    vector = Rotation.from_matrix(turn).as_rotvec()
    # The centre of the brain in each native space: the heads are turned about it.
    centre = np.append(np.asarray(GRID_CENTRE), 1.0)
    centres = [(np.linalg.inv(affine) @ centre)[:3] for affine in (first, second)]
    middle_first = (centres[0] + (between @ np.append(centres[1], 1.0))[:3]) / 2
    middle_second = (np.linalg.inv(between) @ np.append(middle_first, 1.0))[:3]
    ways = []
    for share, middle in ((0.5, middle_first), (-0.5, middle_second)):
        way = np.eye(4)
        way[:3, :3] = Rotation.from_rotvec(share * vector).as_matrix()
        way[:3, 3] = middle
        ways.append(way)
    to_first, to_second = first @ ways[0], second @ ways[1]
    shared = (to_first + to_second) / 2
    back = np.linalg.inv(shared)
    return to_first @ back, to_second @ back, shared
