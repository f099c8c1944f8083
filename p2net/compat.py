"""torchvision beside a build of torch that it was not compiled for.

torchvision's extension links CUDA libraries; beside a CPU build of torch from another index its import ends in
`operator torchvision::nms does not exist`. Everything that we use of it is pure Python, so the two operators that
its import asks for are declared, without an implementation, and the import is tried again. Where it works at once,
nothing is touched. `torchvision.ops.nms` and `torchvision.io` stay unusable in the mended state.
"""
import sys

import torch

try: import torchvision
except RuntimeError as error:
    if 'torchvision::' not in str(error): raise
    for name in [n for n in sys.modules if n.split('.')[0] == 'torchvision']: del sys.modules[name]
    _library = torch.library.Library('torchvision', 'DEF')  # kept: the declarations live as long as it does
    for _name in ('nms', 'qnms'): _library.define(f'{_name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor')
    import torchvision

__all__ = ['torchvision']
