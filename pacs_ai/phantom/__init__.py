"""A phantom for demonstration, probes and tests: one voxel body, and Studies that look at it.

The body (:mod:`~pacs_ai.phantom.body`) is the project's own and asymmetric, so that a mirrored
or shifted result shows. Radiographs are its projections, the CT samples it on an oblique grid. The
truth functions are for tests only: nothing of them is in the Instances, and no model sees them.

The phantom shares no code and no parameter with :mod:`pacs_ai.reference`.
"""

from pacs_ai.phantom.computed_tomography import thorax_ct, thorax_truth
from pacs_ai.phantom.radiograph import chest_radiographs, frontal_truth, opacity_box

__all__ = ["chest_radiographs", "frontal_truth", "opacity_box", "thorax_ct", "thorax_truth"]
