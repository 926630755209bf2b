"""Close-ups for the report: what a network's walks or a fitted system do to one image on the way to its labels.

A module here runs models on the results that stages left; pictures are drawn by `figures`. A kind more is a module more
and a line below.
"""

from pipeline.closeups import costs, mean_field, walks
from pipeline.figures import pairwise, stepwise
from pipeline.figures import walks as walked

# Title and words of a section of the page, and what returns the HTML of one `Subject`, "" if it has none of it.
KINDS = (
    ("Mean field, step by step", stepwise.EXPLAINED, mean_field.show),
    ("Costs between neighbours", pairwise.EXPLAINED, costs.show),
    ("Walks", walked.EXPLAINED, walks.show),
)
