"""A cohort of two phantom subjects."""

from schemas.params import PhantomParams

TINY = PhantomParams(subjects=2, zooms=4.0, multi_visit_share=0.0, masks=True)
