"""What the page of benchmarks says around its tables, in the order of the page."""

from __future__ import annotations

from typing import NamedTuple


class Text(NamedTuple):
    """The words of a section.

    Attributes:
        title: Heading.
        command: That makes the file.
        before: What is measured.
        after: What to take from it, independent of the figures.
    """

    title: str
    command: str = ''
    before: str = ''
    after: str = ''


TEXTS: dict[str, Text] = dict(
    requirements=Text(
        'What was required',
        before='As `run_all.py` judged when it last ran each benchmark.',
    ),
    reference_step=Text(
        "A training step beside the references' manner",
        'python benchmarks/reference_step.py',
        """\
STEGO with ViT-S/8 at 224 px, D = 70, random weights and images. The references' manner is a straight-line step of
our own, written from the method's description: attention maps held in memory in all blocks, image and neighbour
through the backbone one after the other in float32, every correspondence a 5-D tensor, three optimisers. Ours is
the whole `train_step` of the training loop with the config. `float32` and `bfloat16` are the precision of the
frozen backbone (`model.backbone.precision`); `cached` steps begin with the data loader, which reads the features of
the pairs from disk (type of the cache beside it). Before timing, one step of both with the same random draws is
compared: losses agree to 1e-5. Alternatives run in turn in one process.""",
    ),
    host_steps=Text(
        'Time and memory by host, batch, resolution, K and N',
        'python benchmarks/host_steps.py',
        """\
One factor at a time from STEGO + OMH, batch 4, 224 px, K = 27, N = 3, ViT-S/8. Each setting runs in processes of
its own. Memory is the rise of the resident memory over that of the model after its first step, at the peak of a
step; K and N are varied from the cache, where the heads are the whole step. HP's jittered view goes through the
backbone also with a cache.""",
    ),
    step_share=Text(
        "OMH's share of a training step",
        'python benchmarks/step_share.py',
        """\
The model of `configs/omh_stego_vit-s8_coco.py` with random weights: 224 px, 28 x 28 positions, D = 70, K = 27, 54,
108, float32, past `start_iteration` (matching on). A step is forward, backward and Adam; its backbone sees 2 B
images. OMH is forward and backward of `OMHHead.loss` on the code of such a batch, measured by itself: the
difference of two whole steps is mostly noise.""",
    ),
    gpu_rate=Text(
        'Images per second on a GPU',
        'python benchmarks/gpu_rate.py',
        """\
The bare forward is that of the vision transformer alone with weights in bfloat16, on as many images as a step has.
Steps are whole `train_step` calls with a bfloat16 backbone, on images in the memory of the device or in pinned
memory of the host; a pair of STEGO is two images.""",
    ),
    feature_cache=Text(
        'The feature cache',
        'python benchmarks/feature_cache.py',
        """\
Pictures of 224 x 224, features of 384 x 28 x 28. Making an item includes decoding, forward, checks and writing.
Reading is in random order, check sums compared at the first reading, stacked to batches of float32. Warm: the files
are in the system's cache. Cold: the system was told to forget them.""",
    ),
    loader=Text(
        'The data loader alone',
        'python benchmarks/loader.py',
        """\
Pictures of 640 x 480 and 165 kB of JPEG, as COCO's are on average, made from noise. First the decoders, one picture
after the other in one process; then whole epochs of the loader with the pipelines of the COCO-Stuff configs and
with the feature cache, and beside them the forward of the frozen backbone. A pair of STEGO is two items.""",
    ),
    plan_time=Text(
        'Transport: time of the plans',
        'python benchmarks/plan_time.py',
        """\
All plans (27 x 54 and 54 x 108) of one step, no gradient, tolerance 1e-6, at most 1000 iterations. *Random* centres
are those of a fresh head; in *hierarchical* ones each finer level is scattered around the coarser. Warm: from the
potentials before one Adam step (5e-3 per coordinate). `ot.*` is POT called plainly, cold, pair by pair. Processor
time; iterations and the gradient through the solver are in the CSV file.""",
        """\
* At lambda 0.01 the larger pair needs about 1000 iterations or more from either start: the limit ends it with a
  relative violation of the marginals of a few 1e-4.
* Float64 is as fast as float32, and much faster with hierarchical centres at lambda 0.01: on this processor
  `torch.exp` of float32 takes 20 to 60 times as long where the result underflows (arguments below -87), and costs
  divided by lambda reach -100. Flushing subnormal numbers to zero does not help.
* The single iteration of hierarchical 27 x 54 plans is right: every centre has two finer ones, and with entries
  outside the families near 0 the first scaling meets both marginals.
* POT's plain method is no choice: at lambda 0.01 its gradient in float32 was NaN or infinite with random centres.
  `solve_batch` cannot hold pairs of different sizes in one batch.""",
    ),
    lean_matching=Text(
        'Lean matching',
        'python benchmarks/lean_matching.py',
        """\
Forward and backward of `mean_p sum_j |b_pj - a_pj|` to both activations, float32, against `(a[:, :, None] *
T).amax(1)` and `.max(1)`. Memory: rise of the resident memory over that of the inputs, at its peak, each in a fresh
process; torch's profiler, summing the tensors, agrees within 0.3 MiB.""",
        """\
The lower clusters are folded in one after another: multiply, maximum, and the number of the winner kept as a float.
On these sizes that takes half the time of `max(dim)` with indices on chunks that fit the processor's cache. On a
GPU it costs four kernel launches per lower cluster.""",
    ),
    smoothness_energy=Text(
        "SmooSeg's smoothness energy",
        'python benchmarks/smoothness_energy.py',
        """\
Forward and backward, batch 32; `moments` is what the library does, `pairs` the sum over all pairs of positions.""",
    ),
    hidden_positive_loss=Text(
        "HP's contrast of hidden positives",
        'python benchmarks/hidden_positive_loss.py --batch-sizes 8 16 --lean-batch-sizes 32 64',
        """\
Forward and backward of the contrast alone, maps of 28 x 28, C = 384, D = 512. The straightforward form keeps maps
of all pairs for autograd and is run at the smaller batches.""",
    ),
    neighbour_search=Text(
        'Neighbour search',
        'python benchmarks/neighbour_search.py',
        """\
500,000 clustered directions of 384 channels in a file, 30 neighbours, blocks of 1024 rows. Three blocks are
searched and timed; the time for all rows is **extrapolated** from their median. `matmul`, the default, looks only
at groups that beat the worst neighbour so far; `topk` selects among all similarities of every tile.""",
        """\
The memory depends on `--chunk-size`, not on the number of items.""",
    ),
    evaluation=Text(
        'Prediction and scoring',
        'python benchmarks/evaluation.py',
        """\
STEGO + OMH with ViT-S/8: a probe, a linear probe and three levels, all predicted and scored, one image at a time.""",
    ),
    crf=Text(
        'Dense CRF',
        'python benchmarks/crf.py',
        """\
A picture out of as many as there are threads; five segmentations of a picture share the lattice of the torch back
end. pydensecrf runs in as many processes as there are threads.""",
    ),
)
