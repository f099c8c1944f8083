"""torchvision beside a build of torch that it was not compiled for, and without the compiler that nobody asked for.

torchvision's extension links CUDA libraries; beside a CPU build of torch from another index its import ends in
`operator torchvision::nms does not exist`. Everything that we use of it is pure Python, so the two operators that
its import asks for are declared, without an implementation, and the import is tried again. Where it works at once,
nothing is touched. `torchvision.ops.nms` and `torchvision.io` stay unusable in the mended state.

Its `roi_align` takes one small function from `torch._dynamo` when it is imported, and with it the whole compiler: a
third of the time that `p2net predict` needs for a photograph. It gets a stand-in, which fetches the function when it
is called. A torchvision that asks for more than this is imported as it is.
"""
import contextlib, sys, types

import torch

_COMPILER = ('torch._dynamo', 'torch._dynamo.utils')


def is_compile_supported(device_type):
    "torch's own, fetched at the first call."
    from torch._dynamo.utils import is_compile_supported as own
    return own(device_type)


@contextlib.contextmanager
def _without_compiler():
    "A stand-in for `torch._dynamo.utils`, as long as the `with` lasts; nothing where the compiler is already there."
    if _COMPILER[0] in sys.modules: yield; return
    stand_in = {name: types.ModuleType(name) for name in _COMPILER}
    stand_in[_COMPILER[1]].is_compile_supported = is_compile_supported
    sys.modules.update(stand_in)
    try: yield
    finally:
        for name in _COMPILER:
            if sys.modules.get(name) is stand_in[name]: del sys.modules[name]


def _import():
    "torchvision, mended where it must be."
    light, declared = True, False
    while True:
        try:
            with _without_compiler() if light else contextlib.nullcontext(): import torchvision
            return torchvision
        except RuntimeError as error:
            if declared or 'torchvision::' not in str(error): raise
            _declare(); declared = True
        except (ImportError, AttributeError):
            if not light: raise
            light = False
        for name in [n for n in sys.modules if n.split('.')[0] == 'torchvision']: del sys.modules[name]


def _declare():
    "Declare the operators that torchvision's import asks for; they live as long as the library object does."
    global _library
    _library = torch.library.Library('torchvision', 'DEF')
    for name in ('nms', 'qnms'): _library.define(f'{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor')


torchvision = _import()
__all__ = ['torchvision']
