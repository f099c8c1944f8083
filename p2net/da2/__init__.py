"""DA²: a differentiable search for augmentation policies, section III.A of the paper. It knows no joints, no data set and no network."""
from .operations import DADA15, OPERATIONS, POSE16, Draws, Operation, augment
from .deploy import augment_fast
from .policy import Policy
from .search import Search
from . import estimators  # puts 'alignment', 'exact' and 'unrolled' on the list of names
from .controls import FrozenPolicy, HandMade, IdentityPolicy, RandAugment, RandomPolicy, TrivialAugment, load_policy

__all__ = ['DADA15', 'OPERATIONS', 'POSE16', 'Draws', 'FrozenPolicy', 'HandMade', 'IdentityPolicy', 'Operation', 'Policy',
           'RandAugment', 'RandomPolicy', 'Search', 'TrivialAugment', 'augment', 'augment_fast', 'load_policy']
