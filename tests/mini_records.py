"""Invented records in exactly the form that runs leave, for tests of tables and figures.

No number here was measured. `python tests/mini_records.py FOLDER` writes a full set to look at.
"""
import sys
from itertools import combinations
from pathlib import Path

import numpy as np

from p2net.runs.config import make_config
from p2net.runs.record import make_record, record_folder, write_record, write_rows

AP = {'p2net': .62, 'hand-made': .60, 'no-attention': .61, 'no-parallel': .59, 'no-progressive': .605, 'no-dilation': .615,
      'no-ohkm': .618, 'identity': .55, 'randaugment': .58,
      'mean-pose': .02, 'untrained': .001, 'simplebaseline': .56, 'cpn': .61, 'hrnet': .6, 'attention-control': .612, 'parallel-control': .6}
CHANGES = {'no-attention': ['network.attention=false'], 'no-parallel': ['network.parallel=false'], 'hand-made': ['policy=hand-made'],
           'attention-control': ['network.attention=control'], 'parallel-control': ['network.parallel=control'],
           'simplebaseline': ['network.architecture=simplebaseline', 'training.alpha=null'], 'cpn': ['network.architecture=cpn'],
           'hrnet': ['network={architecture: hrnet-w9-small-v2, depth: null, width: null, base_channels: null}', 'training.alpha=null']}
JOINTS = ('head', 'shoulder', 'elbow', 'wrist', 'hip', 'knee', 'ankle')
LEVELS = {'ground-truth': (1., 1.), 'jitter-10': (.7, .95), 'jitter-20': (.3, .8), 'jitter-30': (.1, .6), 'missed-10': (.9, .9),
          'missed-20': (.8, .8), 'missed-40': (.6, .6)}   # level: box AP, share of the keypoint AP
OPERATIONS = ('shear_x', 'shear_y', 'translate_x', 'translate_y', 'rotate', 'auto_contrast', 'invert', 'equalize', 'solarize',
              'posterize', 'contrast', 'color', 'brightness', 'sharpness', 'cutout')


def metrics(experiment, seed):
    "Metrics of an invented run: AP as above, a hundredth more per seed for p2net and half of that for the others."
    ap = AP[experiment] + seed*(.01 if experiment == 'p2net' else .005)
    out = {k: min(1, max(0, ap + d)) for k, d in dict(AP=0, AP50=.2, AP75=.05, APM=-.04, APL=.06, AR=.05).items()}
    pckh = {f'PCKh@0.5/{joint}': min(1, ap + .3 - .03*i) for i, joint in enumerate(JOINTS)}
    return out | pckh | {'PCKh@0.5': float(np.mean(list(pckh.values()))), 'PCK@0.2': min(1, ap + .25)}


def write_mini(root, experiment, seed=0, scale='tiny', status='complete', values=None, boxes='ground-truth', fingerprint='val0', **more):
    "Write one invented record; returns its folder."
    config = make_config(scale, overrides=(f'experiment={experiment}', f'seed={seed}', *CHANGES.get(experiment, ())))
    people = lambda n, fp: dict(name='rendered', people=n, fingerprint=fp)
    data = dict(boxes=boxes, flip_test=True, train=people(1100, 'train0'), val=people(300, fingerprint))
    machine = dict(python='3.11.9', torch='2.13.0', platform='linux', device='cpu: invented', threads=2, commit='c0ffee'*6 + 'c0ff', dirty=False)
    cost = dict(steps=1500, parameters=12_345_678, gmac=1.234, wall_s=100., people_per_s=30., peak_memory_mib=900.)
    if status == 'complete': values = metrics(experiment, seed) if values is None else values
    else: values, cost = {}, {}
    write_record(root, make_record(config, status, data, machine, cost, values, **more))
    return record_folder(root, config)


def write_history(folder, seed):
    "A learning curve beside a record."
    rng = np.random.default_rng(seed)
    write_rows(folder/'history.csv', [dict(step=s, epoch=s//34, split='train', loss=.02*np.exp(-s/400) + .004 + .0005*rng.random(), lr=1e-3)
                                      for s in range(25, 1501, 25)] + [dict(step=1500, split='val', AP=.6)])


def policy_rows(seed, steps=range(0, 151, 5)):
    "How an invented search over all pairs moved: rotate is found useful, invert harmful."
    rng, rows, pairs = np.random.default_rng(seed), [], list(combinations(OPERATIONS, 2))
    worth = dict.fromkeys(OPERATIONS, 0.) | dict(rotate=.012, cutout=.005, invert=-.02)
    pi, p, m = np.zeros(len(pairs)), np.zeros((len(pairs), 2)), np.zeros((len(pairs), 2))
    for step in range(max(steps) + 1):
        if step in steps:
            share = np.exp(pi)/np.exp(pi).sum()
            rows += [dict(step=step, sub_policy=k, pi=share[k], position=j, operation=o, p=1/(1 + np.exp(-p[k, j])), m=1/(1 + np.exp(-m[k, j])))
                     for k, pair in enumerate(pairs) for j, o in enumerate(pair)]
        pi += [sum(worth[o] for o in pair) for pair in pairs] + rng.normal(0, .02, len(pairs))
        p += rng.normal(0, .03, p.shape); m += rng.normal(0, .03, m.shape)
    return rows


def policy_json(rows):
    "The last step of `policy_rows` as the policy file that a search leaves."
    import json, torch
    from p2net.da2.policy import Policy
    policy, last = Policy(), [r for r in rows if r['step'] == rows[-1]['step']]
    column = lambda name: torch.tensor([r[name] for r in last]).reshape(-1, 2)
    with torch.no_grad():
        for parameter, value in ((policy.pi_logits, column('pi')[:, 0].log()), (policy.p_logits, column('p').logit()), (policy.m_logits, column('m').logit())):
            parameter.copy_(value)
    return json.dumps(policy.to_json(), indent=1) + '\n'


def write_examples(path):
    "The few people that a p2net run leaves, with invented predictions."
    from p2net.people.person import box_to_frame, example_person, frame_to_matrix, transform
    from p2net.people.skeleton import SKELETONS
    skeleton, rng, H, W, S = SKELETONS['people21'], np.random.default_rng(0), 192, 144, 288
    keep = {k: [] for k in ('images', 'joints', 'predicted', 'visibility', 'canvases', 'matrices', 'canvas_joints', 'canvas_visibility')}
    for i in range(6):
        image, person = example_person((H, W), (W/2, H/2), .7*H, skeleton.name)
        canvas, whole = example_person((S, S), (S/2, S/2), .5*H, skeleton.name)
        center, size = box_to_frame(np.asarray(whole.bbox), W/H)
        for k, v in zip(keep, (image, person.joints, person.joints + rng.normal(0, 3, person.joints.shape), person.visibility, canvas,
                               frame_to_matrix(center, size, (H//2, W//2)), whole.joints, whole.visibility)): keep[k].append(v)
    assert transform(keep['matrices'][0], keep['canvas_joints'][0]).shape == keep['joints'][0].shape
    np.savez_compressed(path, **{k: np.stack(v) for k, v in keep.items()}, scores=rng.random((6, len(skeleton))), skeleton=skeleton.name, input_size=(H//2, W//2))


def write_all(root, scale='tiny', seeds=(0, 1, 2)):
    "Every experiment, with what it leaves beside its record."
    root = Path(root)
    for seed in seeds:
        for experiment in AP: write_history(write_mini(root, experiment, seed, scale), seed)
        ap = metrics('p2net', seed)['AP']
        levels = {f'{k}/{level}': v for level, (box, share) in LEVELS.items() for k, v in (('AP', ap*share), ('box_AP', box - .003*seed))}
        write_mini(root, 'box-quality', seed, scale, values=levels)
        rows = policy_rows(seed)
        folder = write_mini(root, 'search', seed, scale, values=dict(entropy=4.2, drift=.1))
        write_rows(folder/'policy.csv', rows)
        for place in (folder, root/scale/'p2net'/str(seed)): (place/'policy.json').write_text(policy_json(rows))
    write_examples(root/scale/'p2net'/'0'/'examples.npz')
    return root


if __name__ == '__main__': print(write_all(sys.argv[1]))
