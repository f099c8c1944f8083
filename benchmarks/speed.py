"""Measures every speed that this project claims, in one run on one machine, and writes a record of the ratios.

    python benchmarks/speed.py
    python benchmarks/speed.py --records runs/records --repeats 5
    python benchmarks/speed.py --seed 1            # another machine: another seed, so that its record gets a folder of its own

It takes three minutes on two otherwise idle cores and writes `RECORDS/tiny/bench/SEED/record.json`, which nbs/results/95_speed.ipynb
shows. albumentations and kornia are needed for this program only: `pip install -e .[bench]`. A library that is not installed is left
out, and the record says so.

**Ratios.** Seconds depend on the machine and on its load. So all tasks of a group take turns: each repeat runs every task once,
beginning with another one each time. A ratio is taken within a repeat; the record holds all repeats and their median.

**Sampled augmentation** (metrics `deploy_...`). Batches of 64 people on 400x400 canvases become crops of 256x192, rotated by up to
30 degrees and changed in brightness by up to 40 %, with 17 joints and their heatmaps. The project's side of it is what its trainer
calls for every batch: the policy's `sample`, then `crop_people` and `targets` of p2net.runs.data. Every library does the same two
operations in its fastest correct pipeline (tests/test_bench.py compares the outputs) and ends with the same `targets`:

- albumentations has no transform that warps into a smaller image, so it cuts out what the rotated crop can see, rotates, and crops
  again. Two of its transforms multiply the brightness; both run. Its functions, called without `Compose`, can warp directly into the
  crop; that is OpenCV under another name and moves no joints, so it is reported apart (`functions of albumentations`).
- torchvision v2 draws one set of parameters for a whole batch, so it is called person by person; normalisation waits for the portion.
- kornia is batched and warps directly into the crop with one matrix for each person.

Each library runs in every suitable mode: the whole batch at once, portions of eight, threads, or processes that write into shared
memory, the best that the workers of a data loader could do. The fastest counts. A lower bound on the time is a bare `cv2.warpAffine`
of the same crops with all cores and the heatmaps (`bare warp`); it can be undercut by copying the region that a crop sees before
warping it (nbs/da2/50_deploy.ipynb). Noise stands in for photographs: no pipeline depends on what a pixel shows.

**Differentiable augmentation** (`differentiable_...`, `sampled_...`). `augment` and kornia's functions on the same canvases with the
same draws, forward and backward into both magnitudes through images and joints, with given output gradients: no loss is timed. Beside
them, PyTorch's bilinear sampler alone (`bare sampler`), forward and backward into the positions, on float images and ready positions.
Two operations are the smallest policy, so the start policy of a search (105 pairs of the 15 operations, each with probability 0.5) is
timed as well. Where a function of kornia passes no gradient on (`equalize`), its backward pass is spared the work.

**A search step** (`search_...`) at scale `tiny`: 32 people at 96x72, the validation gradient unprojected; projection costs one more
forward and backward pass. The plain step (forward, loss, backward, Adam, fp32) gets its crops and targets ready-made; the search step
makes its own. Memory is the peak of PyTorch's allocator during a step, with weights and the state of the optimizer.

**The training loop** (`augmented_loop_...`) at `tiny` with the start policy, against the same loop with ready-made crops, and with
crops but no policy.

**A training step** (`training_...`) of P2Net against forward and backward of its bare backbone, at the same size, batch and precision:
the network of `tiny` on a CPU, that of `small` on a GPU.
"""
from __future__ import annotations

import argparse, importlib, importlib.metadata, mmap, multiprocessing, os, time
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import local
from typing import Callable, NamedTuple

import cv2
import numpy as np
import torch
from torch import Tensor, nn

from p2net.da2.controls import Control, FrozenPolicy, IdentityPolicy, directions
from p2net.da2.deploy import augment_fast, cv2_on_one_thread, thread_pool
from p2net.da2.operations import (IMAGENET_MEAN, IMAGENET_STD, OPERATIONS, Draws, Operation, augment, colour_values, cutout,
                                  invert_affine, source_boxes, step_matrices, total_matrix)
from p2net.network.backbone import ResNetPyramid
from p2net.network.losses import pose_loss
from p2net.people.pack import Canvases, Pack
from p2net.people.skeleton import SKELETONS, Skeleton
from p2net.runs.config import Config, make_config
from p2net.runs.data import crop_people, targets
from p2net.runs.record import environment, make_record, peak_memory_mib, write_record
from p2net.runs.searching import Searcher, bilevel_step
from p2net.runs.training import Trainer, autocast, make_network

# --- time, in turn ---


def time_in_turn(tasks: dict[str, Callable], repeats: int, clock: Callable = time.perf_counter) -> dict[str, list[float]]:
    "Seconds of each task in each repeat. Every task runs once untimed; each repeat begins with another task."
    names, seconds = list(tasks), {name: [] for name in tasks}
    for name in names: tasks[name]()
    for repeat in range(repeats):
        at = repeat % len(names)
        for name in names[at:] + names[:at]:
            start = clock()
            tasks[name]()
            seconds[name].append(clock() - start)
    return seconds


def ratios(above: list[float], below: list[float]) -> list[float]:
    "Ratio within each repeat."
    return [a/b for a, b in zip(above, below, strict=True)]


def repeated(task: Callable, times: int) -> Callable:
    "A task that runs the given one several times."
    def run():
        for _ in range(times): task()
    return run


def cores() -> int:
    "Number of cores that this process may use."
    return len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count() or 1


# --- the batch that everyone augments ---

SIZE, SIDE, BATCH, JOINTS, SIGMA = (256, 192), 400, 64, 17, 2.
DEGREES, BRIGHTNESS = 30., .4   # largest rotation; largest change of the brightness, a fraction
REACH = (320, 296)              # H, W of what a crop rotated by DEGREES can see: 2(128 cos + 96 sin), 2(96 cos + 128 sin), rounded up
GREY = (124, 116, 104)          # ImageNet's mean in levels


def shared_array(shape: tuple, dtype) -> np.ndarray:
    "An array that forked processes write to as well."
    length = int(np.prod(shape))*np.dtype(dtype).itemsize
    return np.frombuffer(mmap.mmap(-1, length), dtype).reshape(shape)


class Scene(NamedTuple):
    "A batch of people, and arrays for what the libraries make of them."
    canvases: np.ndarray        # (n, S, S, 3) uint8
    joints: np.ndarray          # (n, J, 2) canvas px
    visibility: np.ndarray      # (n, J)
    matrix: np.ndarray          # (n, 2, 3) canvas px -> input px: the crop in the middle
    images: np.ndarray          # (n, H, W, 3) float32, written by the libraries
    heatmaps: np.ndarray        # (n, J, h, w) float32, likewise
    moved: np.ndarray           # (n, J, 2) joints in input px, likewise


def make_scene(n: int = BATCH, seed: int = 0) -> Scene:
    "Noise at five scales, and joints over the middle of each canvas."
    rng = np.random.default_rng(seed)
    canvases = shared_array((n, SIDE, SIDE, 3), np.uint8)
    for canvas in canvases:
        layers = [cv2.resize(rng.random((SIDE//k, SIDE//k, 3), np.float32)*k**.7, (SIDE, SIDE)) for k in (50, 16, 8, 4, 2)]
        canvas[:] = cv2.normalize(sum(layers), None, 20, 235, cv2.NORM_MINMAX)
    matrix = np.tile(np.array([[1., 0, (SIZE[1] - SIDE)/2], [0, 1, (SIZE[0] - SIDE)/2]]), (n, 1, 1))
    return Scene(canvases, rng.uniform(100, 300, (n, JOINTS, 2)), rng.integers(1, 3, (n, JOINTS)), matrix,
                 shared_array((n, *SIZE, 3), np.float32), shared_array((n, JOINTS, SIZE[0]//4, SIZE[1]//4), np.float32),
                 shared_array((n, JOINTS, 2), np.float64))


def make_pack(canvases: np.ndarray, joints: np.ndarray, visibility: np.ndarray, skeleton: Skeleton, size: tuple[int, int]) -> Pack:
    "People as the trainer takes them, each in a frame of the size of the input in the middle of the canvas."
    n, side, rows = len(canvases), canvases.shape[1], np.arange(len(canvases))
    return Pack(joints, visibility, np.full((n, 2), (side - 1)/2), np.tile(np.array(size[::-1], float), (n, 1)),
                np.tile(np.eye(2, 3), (n, 1, 1)), np.tile([0., 0, side, side], (n, 1)), np.full(n, 1000.), rows, rows, np.ones(n),
                np.full(n, 20.), rows.astype(str), Canvases(canvases), skeleton, size, 'noise')


class RotateAndBrighten(Control):
    "Both operations for each person, at a uniform magnitude and a random sign."
    kind = 'bench'
    operations = replace(OPERATIONS['rotate'], high=DEGREES), replace(OPERATIONS['brightness'], high=BRIGHTNESS)

    def sample_operations(self, n, gen):
        both = torch.arange(2).repeat(n, 1)
        return both, both >= 0, torch.rand(n, 2, generator=gen), directions((n, 2), gen)


# --- sampled augmentation: ours, a lower bound, the libraries ---


def add_heatmaps(scene: Scene, first: int, last: int) -> None:
    "The targets of the joints that a library has moved."
    moved = torch.from_numpy(scene.moved[first:last]).float()
    inside = ((moved >= -.5) & (moved <= torch.tensor(SIZE[::-1]) - .5)).all(-1)
    scene.heatmaps[first:last] = targets(moved, torch.from_numpy(scene.visibility[first:last])*inside, SIZE, SIGMA)[0]


def bare_warp(scene: Scene) -> Callable:
    "(first, last) -> None: one warp for each person, and the heatmaps."
    out, angles = np.zeros((len(scene.canvases), *SIZE, 3), np.uint8), np.random.default_rng(0).uniform(-DEGREES, DEGREES, len(scene.canvases))
    middle = (SIDE - 1)/2
    matrices = [cv2.getRotationMatrix2D((middle, middle), angle, 1.) for angle in angles]
    for matrix in matrices: matrix[:, 2] += scene.matrix[0, :, 2]
    scene = scene._replace(moved=scene.joints + scene.matrix[:, None, :, 2])
    def work(first, last):
        for i in range(first, last):
            cv2.warpAffine(scene.canvases[i], matrices[i], SIZE[::-1], out[i], cv2.INTER_LINEAR, cv2.BORDER_CONSTANT, GREY)
        add_heatmaps(scene, first, last)
    return work


def deployed(scene: Scene, output: str = 'float', threads: int | None = None, policy=None) -> Callable:
    "() -> None: the batch as the trainer makes it, each time with new draws. `output` 'uint8': the same call of `augment_fast`, unnormalised."
    n, policy, gen = len(scene.canvases), policy or RotateAndBrighten(), torch.Generator().manual_seed(0)
    pack, rows, threads = make_pack(*scene[:3], SKELETONS['coco17'], SIZE), np.arange(n), threads or cores()
    def work():
        draws, before = policy.sample(n, gen), torch.get_num_threads()
        torch.set_num_threads(threads)
        try:
            if output == 'float': x, joints, visibility = crop_people(pack, rows, draws, policy.operations)
            else:
                x, *found = augment_fast(scene.canvases, scene.matrix, scene.joints, scene.visibility, draws, policy.operations, SIZE, output,
                                         which=rows, threads=threads)
                joints, visibility = torch.from_numpy(found[0]).float(), torch.from_numpy(found[1])
            return x, joints, targets(joints, visibility, SIZE, SIGMA)
        finally: torch.set_num_threads(before)
    return work


def albumentations(scene: Scene, brightness: str = 'ColorJitter', angles=(-DEGREES, DEGREES), factors=(1 - BRIGHTNESS, 1 + BRIGHTNESS)) -> Callable:
    "(first, last) -> None."
    os.environ['NO_ALBUMENTATIONS_UPDATE'] = '1'
    A = importlib.import_module('albumentations')
    fixed = dict(scale=(1, 1), translate_percent=(0, 0), shear=(0, 0), interpolation=cv2.INTER_LINEAR, fill=GREY)
    change = dict(ColorJitter=lambda: A.ColorJitter(factors, (1, 1), (1, 1), (0, 0), p=1),
                  MultiplicativeNoise=lambda: A.MultiplicativeNoise(factors, per_channel=False, elementwise=False, p=1))
    steps = lambda: (A.CenterCrop(*REACH), A.Affine(rotate=angles, p=1, **fixed), A.CenterCrop(*SIZE), change[brightness](), A.Normalize())
    points = A.KeypointParams(format='xy', remove_invisible=False)
    own = local()               # a pipeline for each thread
    def work(first, last):
        if not hasattr(own, 'pipeline'): own.pipeline = A.Compose(steps(), keypoint_params=points)
        for i in range(first, last):
            done = own.pipeline(image=scene.canvases[i], keypoints=scene.joints[i])
            scene.images[i], scene.moved[i] = done['image'], done['keypoints']
        add_heatmaps(scene, first, last)
    return work


def albumentations_functions(scene: Scene) -> Callable:
    "(first, last) -> None: three functions of albumentations without its pipeline."
    warp = importlib.import_module('albumentations.augmentations.geometric.functional').warp_affine_with_value_extension
    core = importlib.import_module('albucore')
    mean, scale = (np.float32(t) for t in (np.multiply(IMAGENET_MEAN, 255), 1/np.multiply(IMAGENET_STD, 255)))
    def work(first, last):
        rng = np.random.default_rng(first)
        for i in range(first, last):
            matrix = cv2.getRotationMatrix2D(((SIDE - 1)/2, (SIDE - 1)/2), rng.uniform(-DEGREES, DEGREES), 1.)
            matrix[:, 2] += scene.matrix[i, :, 2]
            x = warp(scene.canvases[i], matrix, SIZE[::-1], cv2.INTER_LINEAR, cv2.BORDER_CONSTANT, GREY)
            scene.images[i] = core.normalize(core.multiply(x, rng.uniform(1 - BRIGHTNESS, 1 + BRIGHTNESS)), mean, scale)
            scene.moved[i] = scene.joints[i] @ matrix[:, :2].T + matrix[:, 2]
        add_heatmaps(scene, first, last)
    return work


def torchvision_v2(scene: Scene, angles=(-DEGREES, DEGREES), factors=(1 - BRIGHTNESS, 1 + BRIGHTNESS)) -> Callable:
    "(first, last) -> None."
    importlib.import_module('p2net.compat')
    v2, things = (importlib.import_module(f'torchvision.{name}') for name in ('transforms.v2', 'tv_tensors'))
    fill = [round(255*f) for f in IMAGENET_MEAN]
    one = v2.Compose([v2.CenterCrop(REACH), v2.RandomRotation(angles, v2.InterpolationMode.BILINEAR, fill=fill), v2.CenterCrop(SIZE),
                      v2.ColorJitter(brightness=factors)])
    rest = v2.Compose([v2.ToDtype(torch.float32, scale=True), v2.Normalize(IMAGENET_MEAN, IMAGENET_STD, inplace=True)])
    planes, joints = torch.from_numpy(scene.canvases).permute(0, 3, 1, 2), torch.from_numpy(scene.joints).float()
    out = torch.from_numpy(scene.images).view(-1, 3, *SIZE)
    def work(first, last):
        done = [one(things.Image(planes[i]), things.KeyPoints(joints[i], canvas_size=(SIDE, SIDE))) for i in range(first, last)]
        out[first:last] = rest(torch.stack([x for x, _ in done]))
        scene.moved[first:last] = torch.stack([j for _, j in done]).numpy()
        add_heatmaps(scene, first, last)
    return work


def central_region(canvases: Tensor) -> tuple[Tensor, float, float]:
    "What a rotated crop can see of (n, 3, S, S) uint8, as (n, 3, *REACH) in [0, 1], and what was cut off at the left and above."
    top, left = (SIDE - REACH[0])//2, (SIDE - REACH[1])//2
    return canvases[:, :, top:top + REACH[0], left:left + REACH[1]].float().div_(255), left, top


def kornia_crops(canvases: Tensor, joints: Tensor, degrees: Tensor, factor: Tensor) -> tuple[Tensor, Tensor]:
    "Crops (n, 3, H, W) in [0, 1] and joints (n, J, 2), rotated and brightened with kornia; differentiable in `degrees` and `factor`."
    K = importlib.import_module('kornia')
    x, left, top = central_region(canvases)
    middle = x.new_tensor([[(REACH[1] - 1)/2, (REACH[0] - 1)/2]]).repeat(len(x), 1)
    matrix = K.geometry.transform.get_rotation_matrix2d(middle, degrees, torch.ones_like(middle))
    shift = x.new_tensor([[(SIZE[1] - REACH[1])/2], [(SIZE[0] - REACH[0])/2]])
    matrix = torch.cat([matrix[..., :2], matrix[..., 2:] + shift], -1)
    x = K.geometry.transform.warp_affine(x, matrix, SIZE)
    bottom = x.new_tensor([[[0., 0, 1]]]).expand(len(x), 1, 3)
    joints = K.geometry.linalg.transform_points(torch.cat([matrix, bottom], 1), joints - joints.new_tensor([left, top]))
    return K.enhance.adjust_brightness_accumulative(x, factor), joints


def kornia(scene: Scene, angles=(-DEGREES, DEGREES), factors=(1 - BRIGHTNESS, 1 + BRIGHTNESS)) -> Callable:
    "(first, last) -> None."
    K = importlib.import_module('kornia')
    planes, joints = torch.from_numpy(scene.canvases).permute(0, 3, 1, 2), torch.from_numpy(scene.joints).float()
    out, mean, std = torch.from_numpy(scene.images).view(-1, 3, *SIZE), *(torch.tensor(t) for t in (IMAGENET_MEAN, IMAGENET_STD))
    def work(first, last):
        drawn = (low + (high - low)*torch.rand(last - first) for low, high in (angles, factors))
        with torch.no_grad():
            x, moved = kornia_crops(planes[first:last], joints[first:last], *drawn)
            out[first:last], scene.moved[first:last] = K.enhance.normalize(x, mean, std), moved.numpy()
        add_heatmaps(scene, first, last)
    return work


PORTION = 8
LIBRARIES = {                   # name -> (package, how to make it, modes)
    'albumentations (ColorJitter)': ('albumentations', albumentations, ('threads', 'processes')),
    'albumentations (MultiplicativeNoise)': ('albumentations', partial(albumentations, brightness='MultiplicativeNoise'), ('threads', 'processes')),
    'torchvision v2': ('torchvision', torchvision_v2, ('threads', 'processes')),
    'kornia': ('kornia', kornia, ('whole', 'portions', 'processes')),
}
PIPELINES = {}                  # name -> (first, last) -> None; a global, since forked processes look them up by name


def installed(package: str) -> str | None:
    "Version of a package; None where it is not installed."
    try: return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError: return None


def run_portion(name: str, first: int, last: int) -> None:
    "One portion, in a forked process."
    PIPELINES[name](first, last)


def one_thread() -> None:
    "Start of a forked process: the other cores belong to the other processes."
    torch.set_num_threads(1)


def batch_task(name: str, mode: str, n: int, pool: ProcessPoolExecutor | None) -> Callable:
    "() -> None: a pipeline on n people: 'whole', 'portions', 'threads' or 'processes'."
    firsts = range(0, n, PORTION)
    lasts = [min(n, first + PORTION) for first in firsts]
    if mode == 'whole': return lambda: PIPELINES[name](0, n)
    if mode == 'portions': return lambda: [PIPELINES[name](*span) for span in zip(firsts, lasts)]
    if mode == 'processes': return lambda: list(pool.map(partial(run_portion, name), firsts, lasts))
    def threads():
        with cv2_on_one_thread(): list(thread_pool(cores()).map(PIPELINES[name], firsts, lasts))
    return threads


@contextmanager
def forked(scene: Scene):
    "Fills PIPELINES, then forks a pool of processes that know them (before OpenCV starts threads, which a fork would lose); None without fork."
    PIPELINES.clear()
    PIPELINES.update({name: make(scene) for name, (package, make, _) in LIBRARIES.items() if installed(package)}, **{'bare warp': bare_warp(scene)})
    if installed('albumentations'): PIPELINES['functions'] = albumentations_functions(scene)
    if 'fork' not in multiprocessing.get_all_start_methods(): yield None; return
    with cv2_on_one_thread(), ProcessPoolExecutor(cores(), multiprocessing.get_context('fork'), one_thread) as pool:
        list(pool.map(abs, range(4*cores())))       # starts them now
        yield pool


def deploy_speeds(scene: Scene, pool, repeats: int) -> dict[str, list[float]]:
    "People per second of each pipeline in each repeat."
    n, times = len(scene.canvases), 4               # short tasks run four times in a repeat
    tasks = {'bare warp': batch_task('bare warp', 'threads', n, pool), 'deployed uint8': deployed(scene, 'uint8'), 'deployed': deployed(scene),
             'deployed on one core': deployed(scene, threads=1), 'deployed, all pairs': deployed(scene, policy=FrozenPolicy(p=.999))}
    if 'functions' in PIPELINES: tasks['functions of albumentations'] = batch_task('functions', 'threads', n, pool)
    often = {name: times for name in tasks}
    for name, (_, _, modes) in LIBRARIES.items():
        for mode in modes:
            if name in PIPELINES and (pool or mode != 'processes'): tasks[f'{name}, {mode}'] = batch_task(name, mode, n, pool)
    seconds = time_in_turn({name: repeated(task, often.get(name, 1)) for name, task in tasks.items()}, repeats)
    return {name: [n*often.get(name, 1)/s for s in values] for name, values in seconds.items()}


# --- differentiable augmentation ---


def differentiable(scene: Scene) -> dict[str, Callable]:
    "name -> () -> images, joints (lists of portions), gradients in the magnitudes (n, 2)."
    n, gen = len(scene.canvases), torch.Generator().manual_seed(0)
    planes, matrix = torch.from_numpy(scene.canvases).permute(0, 3, 1, 2).contiguous(), torch.from_numpy(scene.matrix)
    joints, visibility = torch.from_numpy(scene.joints).float(), torch.from_numpy(scene.visibility)
    draws, operations = RotateAndBrighten().sample(n, gen), RotateAndBrighten.operations
    grad_x, grad_joints = torch.rand(n, 3, *SIZE, generator=gen), torch.rand(n, JOINTS, 2, generator=gen)
    def forward_backward(forward, few):             # forward(m, rows) -> images, joints
        m, done = draws.m.clone().requires_grad_(), []
        for rows in (slice(at, at + few) for at in range(0, n, few)):
            done.append(forward(m[rows], rows))
            torch.autograd.backward(done[-1], (grad_x[rows], grad_joints[rows]))
        return *([t.detach() for t in part] for part in zip(*done)), m.grad
    def ours(m, rows): return augment(planes, matrix, joints, visibility, draws._replace(m=m), operations, SIZE)[:2]
    def theirs(m, rows):
        rotation, change = (m*draws.sign[rows]).unbind(1)
        return kornia_crops(planes[rows], joints[rows], -DEGREES*rotation, 1 + BRIGHTNESS*change)
    modes = dict(whole=n, portions=PORTION) if installed('kornia') else {}
    return {'ours': partial(forward_backward, ours, n), **{f'kornia, {mode}': partial(forward_backward, theirs, few) for mode, few in modes.items()},
            'bare sampler': bare_sampler(central_region(planes)[0], -DEGREES*draws.m[:, 0]*draws.sign[:, 0], grad_x)}


def bare_sampler(x: Tensor,                         # (n, 3, *REACH) float
                 degrees: Tensor,                   # (n,) rotation of the positions: against that of the image
                 grad: Tensor,                      # (n, 3, *SIZE) gradient of a loss in the crops
                 ) -> Callable:
    "() -> crops, gradients in the positions (lists of portions): PyTorch's sampler forward and backward, without conversion, positions or autograd."
    cos, sin = degrees.deg2rad().cos(), degrees.deg2rad().sin()
    h, w = (s/r for s, r in zip(SIZE, REACH))
    rows = torch.stack([cos*w, -sin*h*REACH[0]/REACH[1], 0*cos, sin*w*REACH[1]/REACH[0], cos*h, 0*cos], -1).view(-1, 2, 3)
    grid = torch.nn.functional.affine_grid(rows, (len(x), 3, *SIZE), align_corners=False)
    def task():
        done = []
        for part in (slice(at, at + PORTION) for at in range(0, len(x), PORTION)):
            out = torch.grid_sampler_2d(x[part], grid[part], 0, 0, False)
            done.append((out, torch.ops.aten.grid_sampler_2d_backward(grad[part], x[part], grid[part], 0, 0, False, [False, True])[1]))
        return zip(*done)
    return task


def kornia_augment(planes: Tensor,                  # (n, 3, SIDE, SIDE) uint8
                   total: Tensor,                   # (n, 2, 3) canvas px -> input px
                   draws: Draws, values: Tensor,    # (n, N) from `colour_values`
                   operations: tuple[Operation, ...]) -> Tensor:
    "Images (n, 3, H, W) in [0, 1] of these draws with kornia's functions: one warp, then people with the same operation together; black outside."
    K = importlib.import_module('kornia')
    functions = dict(auto_contrast=lambda x, v: K.enhance.normalize_min_max(x), invert=lambda x, v: K.enhance.invert(x),
                     equalize=lambda x, v: K.enhance.equalize(x), solarize=lambda x, v: K.enhance.solarize(x, (255.5 - v)/255),
                     posterize=lambda x, v: K.enhance.posterize(x, (8 - v).floor().int()),
                     contrast=lambda x, v: K.enhance.adjust_contrast_with_mean_subtraction(x, 1 + v),
                     color=lambda x, v: K.enhance.adjust_saturation_with_gray_subtraction(x, 1 + v),
                     brightness=lambda x, v: K.enhance.adjust_brightness_accumulative(x, 1 + v), sharpness=lambda x, v: K.enhance.sharpness(x, 1 + v))
    ends = torch.tensor(source_boxes(invert_affine(total.detach()).float(), SIZE, planes.shape[2:])).T
    (left, top), (right, bottom) = ends[:2].amin(1).tolist(), ends[2:].amax(1).tolist()     # what any of the crops can see
    shift = (total[..., :2]*total.new_tensor([left, top])).sum(-1)
    matrix = torch.cat([total[..., :2], (total[..., 2] + shift)[..., None]], -1)
    x = K.geometry.transform.warp_affine(planes[..., top:bottom, left:right].float()/255, matrix.float(), SIZE)
    for kind in ('colour', 'erase'):
        for i in range(draws.op.shape[1]):
            for index, o in enumerate(operations):
                rows = (draws.on[:, i] & (draws.op[:, i] == index)).nonzero().flatten()
                if o.kind != kind or not len(rows): continue
                y = cutout(x[rows], draws.m[rows, i], draws.u[rows, i], operation=o) if kind == 'erase' else functions[o.name](x[rows], values[rows, i])
                x = x.index_copy(0, rows, y)
    return x


def sampled_policy(scene: Scene) -> dict[str, Callable]:
    "name -> () -> images (list of portions): the crop alone, and the start policy of a search forward, and forward and backward, ours and kornia's."
    n, gen, policy = len(scene.canvases), torch.Generator().manual_seed(0), FrozenPolicy()
    planes, matrix = torch.from_numpy(scene.canvases).permute(0, 3, 1, 2).contiguous(), torch.from_numpy(scene.matrix)
    sampled, grad, operations = policy.sample(n, gen), torch.rand(n, 3, *SIZE, generator=gen), policy.operations
    def ours(rows, draws): return augment(planes[rows], matrix[rows], None, None, draws, operations, SIZE)[0]
    def theirs(rows, draws):
        total = total_matrix(matrix[rows], step_matrices(draws, operations, SIZE))
        return kornia_augment(planes[rows], total, draws, colour_values(draws, operations), operations)
    def task(forward, few, backward, draws=sampled):
        done = []
        for rows in (slice(at, at + few) for at in range(0, n, few)):
            part = Draws(*(t[rows] for t in draws))
            done.append(forward(rows, part._replace(m=part.m.clone().requires_grad_(backward))))
            if backward and done[-1].requires_grad: done[-1].backward(grad[rows])
        return [x.detach() for x in done]
    modes = dict(whole=n, portions=PORTION) if installed('kornia') else {}
    return {'crop': partial(task, ours, n, False, sampled._replace(on=torch.zeros_like(sampled.on))),
            'sampled': partial(task, ours, n, False), 'sampled, forward and backward': partial(task, ours, n, True),
            **{f'sampled, forward and backward, kornia, {mode}': partial(task, theirs, few, True) for mode, few in modes.items()}}


# --- a search step, time and memory ---


def noise_pack(config: Config, n: int = 256) -> Pack:
    "People of noise for the network of `config`."
    rng, size = np.random.default_rng(1), config.data.input_size
    side, skeleton = int(config.data.reach*max(size)), SKELETONS['people21']
    return make_pack(rng.integers(0, 256, (n, side, side, 3), np.uint8), rng.uniform(side/4, side*3/4, (n, len(skeleton), 2)),
                     rng.integers(1, 3, (n, len(skeleton))), skeleton, size)


class PlainStep:
    "One fp32 training step, crops and targets ready-made."
    def __init__(self, searcher: Searcher):
        batch = searcher.batches.train_batch(0)
        n = len(batch.indices)
        self.x, self.target = searcher.augment(batch, IdentityPolicy().sample(n, torch.Generator()), torch.arange(n))
        self.model = searcher.model
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=searcher.config.search.lr, fused=True)

    def __call__(self):
        self.model.train()
        loss = pose_loss(self.model(self.x), *self.target)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()


def make_searcher(work: str, **search) -> Searcher:
    "The search of `tiny` with these settings, the validation gradient unprojected."
    config = make_config('tiny', experiment='bench', search=dict(project=False) | search)
    return Searcher(config, noise_pack(config), work, progress=False)


def held_bytes(model: nn.Module, optimizer: torch.optim.Optimizer) -> int:
    "Bytes of weights, buffers and the state of the optimizer."
    state = [t for s in optimizer.state.values() for t in s.values() if isinstance(t, Tensor)]
    return sum(t.numel()*t.element_size() for t in (*model.parameters(), *model.buffers(), *state))


def peak_bytes(task: Callable) -> int:
    "Peak of PyTorch's CPU allocator during a task, above what it held before."
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile: task()
    changes = [e for e in profile.profiler.kineto_results.events() if e.name() == '[memory]']
    return int(np.cumsum([0] + [e.nbytes() for e in sorted(changes, key=lambda e: e.start_ns())]).max())


def step_memory(step: Callable, model: nn.Module, optimizer: torch.optim.Optimizer, release: Callable = lambda: None) -> int:
    "Bytes that a step needs; `release` drops what the step before it left behind."
    step()
    optimizer.zero_grad(set_to_none=True)
    release()
    return held_bytes(model, optimizer) + peak_bytes(step)


def search_steps(searcher: Searcher):
    "As many steps as share one validation gradient."
    for _ in range(searcher.config.search.val_every): bilevel_step(searcher, 0)


def search_speeds(work: str, repeats: int, **search) -> tuple[dict[str, list[float]], dict[str, int]]:
    "Seconds of each repeat and bytes: a step of each estimator, of the default search, and a plain one."
    variants = {'paired': dict(compared=1., val_every=1), 'straight-through': dict(estimator='straight-through', val_every=1), 'default': {}}
    searchers = {name: make_searcher(work, **variant | search) for name, variant in variants.items()}
    plain = PlainStep(searchers['paired'])
    tasks = {name: partial(search_steps, s) for name, s in searchers.items()} | dict(plain=plain)
    seconds = time_in_turn(tasks, repeats)
    for name, s in searchers.items(): seconds[name] = [t/s.config.search.val_every for t in seconds[name]]
    memory = {'plain': step_memory(plain, plain.model, plain.optimizer)}
    plain.optimizer.state.clear()
    for name, s in searchers.items():
        release = partial(vars(s.search.estimator).update, views=None, x_hat=None)
        memory[name] = step_memory(tasks[name], s.model, s.search.optimizer, release)
    return seconds, memory


# --- the training loop, and a training step beside the backbone ---

LOOP_STEPS = 20


def loop_task(policy, ready: bool, work: str, steps: int) -> Callable:
    "() -> None: so many more steps of the trainer; `ready`: with four batches made beforehand. Without a policy no mirror and no scaling."
    config = make_config('tiny', experiment='bench', **({} if policy else dict(training=dict(flip=0, scale=0))))
    trainer = Trainer(config, make_network(config, 21), noise_pack(config), policy or IdentityPolicy(), work, progress=False)
    trainer.save = lambda: None
    if ready:
        batches = [trainer.batch(step) for step in range(4)]
        trainer.batch = lambda step: batches[step % 4]
    def more():
        trainer.step_done %= config.training.steps//2       # far from the last step, which also saves
        trainer.fit(until=trainer.step_done + steps)
    return more


def loop_speeds(work: str, repeats: int, steps: int = LOOP_STEPS) -> dict[str, list[float]]:
    "Seconds of the loop with the policy, with crops only, and with ready-made batches."
    return time_in_turn(dict(augmented=loop_task(FrozenPolicy(), False, work, steps), cropped=loop_task(None, False, work, steps),
                             plain=loop_task(None, True, work, steps)), repeats)


class TrainingSpeeds(NamedTuple):
    "A training step of P2Net, and a pass of its backbone."
    config: Config
    device: str
    bf16: bool                          # or float32
    seconds: dict[str, list[float]]     # 'p2net', 'backbone' -> each repeat
    peak: dict[str, int]                # 'p2net', 'backbone' -> bytes; empty on a CPU


class BackbonePass:
    "Forward and backward of the bare backbone, from its last features."
    def __init__(self, trainer: Trainer, x: Tensor):
        network, self.x = trainer.config.network, x
        backbone = ResNetPyramid(network.depth, base_channels=network.base_channels)
        self.model = backbone.to(trainer.device, memory_format=torch.channels_last).train()
        self.autocast = partial(autocast, trainer.training.precision, trainer.device)

    def __call__(self):
        with self.autocast(): c5 = self.model(self.x)[-1]
        torch.autograd.backward(c5, torch.ones_like(c5))
        self.model.zero_grad()


def synchronised(task: Callable) -> Callable:
    "The task, and a wait for its last kernel on a GPU."
    def run():
        task()
        if torch.cuda.is_available(): torch.cuda.synchronize()
    return run


def cuda_peak_bytes(task: Callable) -> int:
    "Peak of the GPU's allocator during a task, above what it held before."
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    synchronised(task)()
    return torch.cuda.max_memory_allocated() - before


def training_speeds(work: str, repeats: int, config: Config | None = None) -> TrainingSpeeds:
    "A training step and a pass of its backbone, in turn, on the same crops."
    config = config or make_config('small' if torch.cuda.is_available() else 'tiny', experiment='bench')
    pack = noise_pack(config, config.training.batch)
    trainer = Trainer(config, make_network(config, len(pack.skeleton)), pack, IdentityPolicy(), work, progress=False)
    x, target, weight = (t.to(trainer.device) for t in trainer.batch(0))
    backbone = BackbonePass(trainer, x)
    with backbone.autocast(): bf16 = backbone.model(x)[-1].dtype == torch.bfloat16
    tasks = dict(p2net=synchronised(partial(trainer.step, x, target, weight)), backbone=synchronised(backbone))
    seconds, peak = time_in_turn(tasks, repeats), {}
    if trainer.device.type == 'cuda':
        held = dict(p2net=held_bytes(trainer.unwrapped(), trainer.optimizer),
                    backbone=sum(t.numel()*t.element_size() for t in (*backbone.model.parameters(), *backbone.model.buffers())))
        peak = {name: held[name] + cuda_peak_bytes(task) for name, task in tasks.items()}
    return TrainingSpeeds(config, trainer.device.type, bf16, seconds, peak)


# --- the record ---


def fastest_library(speeds: dict[str, list[float]]) -> str | None:
    "The library and mode with the largest median."
    names = [name for name in speeds if name.split(', ')[0] in LIBRARIES]
    return max(names, key=lambda name: np.median(speeds[name]), default=None)


def all_ratios(deploy: dict, differ: dict, search: dict, memory: dict, loop: dict, training: TrainingSpeeds) -> dict[str, list[float]]:
    "Metric -> its repeats. `deploy` holds people/s, the others seconds. What could not be measured is absent."
    peer, out = fastest_library(deploy), {'deploy_vs_bare_warp': ratios(deploy['deployed uint8'], deploy['bare warp'])}
    fastest_of = lambda start: min((v for name, v in differ.items() if name.startswith(start)), key=np.median, default=None)
    def add(metric, above, below):
        if above is not None and below is not None: out[metric] = ratios(above, below)
    add('deploy_vs_fastest_peer', deploy['deployed'], deploy.get(peer))
    add('deploy_vs_albumentations_functions', deploy['deployed'], deploy.get('functions of albumentations'))
    add('differentiable_vs_sampler', differ.get('bare sampler'), differ['ours'])
    add('differentiable_vs_kornia', fastest_of('kornia'), differ['ours'])
    add('sampled_vs_crop', differ.get('sampled'), differ.get('crop'))
    add('sampled_forward_backward_vs_crop', differ.get('sampled, forward and backward'), differ.get('crop'))
    add('sampled_vs_kornia', fastest_of('sampled, forward and backward, kornia'), differ.get('sampled, forward and backward'))
    for name, label in (('paired', ''), ('default', '_default'), ('straight-through', '_straight_through')):
        add(f'search_step{label}_vs_plain', search[name], search['plain'])
        out[f'search_memory{label}_vs_plain'] = [memory[name]/memory['plain']]
    add('augmented_loop_vs_plain', loop['augmented'], loop['plain'])
    add('augmented_loop_vs_cropped', loop['augmented'], loop['cropped'])
    add('training_vs_backbone', training.seconds['backbone'], training.seconds['p2net'])   # ratio of people/s
    if training.peak: out['training_memory_vs_backbone'] = [training.peak['p2net']/training.peak['backbone']]
    return out


def bench_record(config: Config, deploy: dict, differ: dict, search: dict, memory: dict, loop: dict, training: TrainingSpeeds, wall: float) -> dict:
    "Everything that was measured, as a record."
    network = training.config.network
    about = dict(device=training.device, depth=network.depth, width=network.width, input_size=list(training.config.data.input_size),
                 batch=training.config.training.batch, precision='bf16' if training.bf16 else 'fp32')
    repeats = {**all_ratios(deploy, differ, search, memory, loop, training),
               **{f'people_per_s/{name}': v for name, v in deploy.items()},
               **{f'people_per_s/differentiable/{name}': [BATCH/s for s in v] for name, v in differ.items()},
               **{f'people_per_s/loop/{name}': [LOOP_STEPS*config.training.batch/s for s in v] for name, v in loop.items()},
               **{f'people_per_s/training/{name}': [about['batch']/s for s in v] for name, v in training.seconds.items()},
               **{f'mib/training/{name}': [v/2**20] for name, v in training.peak.items()},
               **{f'seconds/step/{name}': v for name, v in search.items()},
               **{f'mib/step/{name}': [v/2**20] for name, v in memory.items()}}
    libraries = {name: installed(name) for name in ('albumentations', 'kornia', 'torchvision')}
    return make_record(config, 'complete', {}, environment(), dict(wall_s=wall, peak_memory_mib=peak_memory_mib()),
                       {name: float(np.median(v)) for name, v in repeats.items()}, repeats=repeats, fastest_peer=fastest_library(deploy),
                       training=about, cores=cores(),
                       libraries={**libraries, 'opencv-python-headless': installed('opencv-python-headless'), 'opencv': cv2.__version__},
                       left_out=[f'{name}: not installed' for name, version in libraries.items() if not version])


def bench(records: str | Path, repeats: int, seed: int, say: Callable = print) -> tuple[dict, Path]:
    "Measure everything and write the record; returns it and its file. `seed` is that of the people and names the folder."
    start, config, before = time.perf_counter(), make_config('tiny', experiment='bench', seed=seed), torch.get_num_threads()
    torch.set_num_threads(cores())
    scene = make_scene(seed=seed)
    try:
        with forked(scene) as pool, TemporaryDirectory() as work:
            say(f'sampled augmentation, ours and the libraries, {cores()} cores')
            deploy = deploy_speeds(scene, pool, repeats)
            say('differentiable augmentation')
            differ = time_in_turn(differentiable(scene) | sampled_policy(scene), repeats)
            say('a search step')
            search, memory = search_speeds(work, repeats)
            say('the training loop')
            loop = loop_speeds(work, max(3, repeats//2 + 1))
            say('a training step beside its backbone')
            training = training_speeds(work, repeats)
    finally: torch.set_num_threads(before); PIPELINES.clear()
    record = bench_record(config, deploy, differ, search, memory, loop, training, time.perf_counter() - start)
    return record, write_record(records, record)


def main(words: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description='Measure every speed in one run, as ratios, and write its record.')
    parser.add_argument('--records', default='paper_results/runs', help='folder of all records; this one goes to tiny/bench/SEED below it')
    parser.add_argument('--repeats', type=int, default=9, help='how often each task is timed')
    parser.add_argument('--seed', type=int, default=0, help='of the people; give another machine another seed')
    args = parser.parse_args(words)
    if args.repeats < 1: parser.error('--repeats must be at least 1')
    record, path = bench(args.records, args.repeats, args.seed, partial(print, flush=True))
    for name, values in record['repeats'].items():
        if '/' not in name: print(f"  {name} {record['metrics'][name]:.2f} ({min(values):.2f} to {max(values):.2f})")
    for line in record['left_out']: print(f'  left out: {line}; pip install -e .[bench]')
    print(path)


if __name__ == '__main__': main()
