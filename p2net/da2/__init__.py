"""DA²: a differentiable search for augmentation policies, section III.A of the paper. It knows no joints, no data set and no network."""
from .operations import DADA15, OPERATIONS, POSE16, Draws, Operation, augment
from .deploy import augment_fast
from .policy import Policy
from .search import Search, StraightThrough
from .extensions import ExtendedSearch, Paired
from .estimators import Alignment, Exact, Unrolled
from .controls import FrozenPolicy, HandMade, IdentityPolicy, RandAugment, RandomPolicy, TrivialAugment, UniformMagnitude
from .published import load_policy
from .scores import policy_from_scores, score_policies

__all__ = ['Alignment', 'DADA15', 'OPERATIONS', 'POSE16', 'Draws', 'Exact', 'ExtendedSearch', 'FrozenPolicy', 'HandMade', 'IdentityPolicy',
           'Operation', 'Paired', 'Policy', 'RandAugment', 'RandomPolicy', 'Search', 'StraightThrough', 'TrivialAugment', 'Unrolled',
           'UniformMagnitude', 'augment', 'augment_fast', 'load_policy', 'policy_from_scores', 'score_policies']
