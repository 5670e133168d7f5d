"""The table of losses: which name means which class. No torch here until a loss is made."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any

from ...targets.errors import RecipeError, did_you_mean

if TYPE_CHECKING:
    from .nouns import Term

LOSSES: dict[str, str] = {
    "ce": "response:CrossEntropy",
    "kd": "response:KnowledgeDistillation",
    "bce": "supervised:BinaryCrossEntropy",
    "mse": "supervised:MeanSquaredError",
    "huber": "supervised:Huber",
    "bkd": "supervised:BinaryDistillation",
    "logits": "logits:LogitRegression",
    "hard": "logits:HardLabel",
    "uld": "logits:UniversalLogit",
    "dkd": "decoupled:Decoupled",
    "cakd": "decoupled:CorrelationAware",
    "normkd": "temperature:NormKD",
    "lskd": "temperature:LogitStandardisation",
    "luminet": "temperature:LumiNet",
    "ctkd": "temperature:CurriculumTemperature",
    "dist": "classes:DIST",
    "clkd": "classes:ClassAware",
    "mlkd": "classes:MultiLevel",
    "tfkd": "virtual:TeacherFree",
    "drkd": "virtual:DynamicRectification",
    "skd": "virtual:StudentFriendly",
    "specialists": "specialists:Specialists",
    "sdd": "scales:ScaleDecoupled",
    "blockwise": "blockwise:BlockWise",
    "pad": "embeddings:PrimeAware",
    "triplet": "embeddings:Triplet",
    "nd": "embeddings:NormAndDirection",
    "hint": "features:Hint",
    "fitnet": "features:Hint",
    "channel": "features:ChannelDistillation",
    "gkd": "features:GuidedDistillation",
    "vid": "features:VariationalInformation",
    "ab": "boundaries:ActivationBoundaries",
    "ofd": "boundaries:Overhaul",
    "at": "attention:AttentionTransfer",
    "nst": "attention:NeuronSelectivity",
    "ft": "attention:FactorTransfer",
    "afd": "attention:AttentionFeatureMatching",
    "fsp": "flow:FlowOfSolution",
    "indistill": "flow:InDistill",
    "stagewise": "flow:StageByStage",
    "reviewkd": "fusion:KnowledgeReview",
    "famkd": "fusion:FrequencyAttention",
    "mgd": "generation:MaskedGeneration",
    "vitkd": "generation:ViTDistillation",
    "simkd": "reuse:ReusedClassifier",
    "sakd": "spots:SpotAdaptive",
    "cam": "classwise:ClassActivationMaps",
    "catkd": "classwise:AttentionOfClasses",
    "l2d": "classwise:LabelWise",
    "rkd": "relation:RelationalKnowledge",
    "sp": "relation:SimilarityPreserving",
    "pkt": "relation:ProbabilisticTransfer",
    "cc": "relation:CorrelationCongruence",
    "affinity": "relation:Affinities",
    "crd": "contrastive:MemoryContrast",
    "crd_inbatch": "contrastive:InBatchContrast",
    "wcord": "transport:WassersteinContrast",
    "cwd": "dense:ChannelWise",
    "pkd": "dense:PearsonFeatures",
    "skd_pixel": "dense:PixelWise",
    "skd_pair": "dense:PairWise",
    "ifvd": "dense:IntraClass",
    "ld": "detection:Localisation",
    "focal_global": "detection:FocalGlobal",
    "cosine": "language:Cosine",
    "hidden": "language:HiddenStates",
    "embeddings": "language:Embeddings",
    "sequence": "language:Sequence",
    "hybrid": "language:Hybrid",
    "attention": "selfattention:Attention",
    "attention_relation": "selfattention:AttentionRelation",
    "pskd": "selfteaching:ProgressiveSelfDistillation",
    "temporal": "selfteaching:TemporalEnsembling",
    "meanteacher": "selfteaching:MeanTeacher",
    "cskd": "selfteaching:ClassWise",
    "ddgsd": "selfteaching:DistortionGuided",
    "byot": "exits:BeYourOwnTeacher",
    "one": "exits:OnTheFlyEnsemble",
    "camkd": "weighing:Camkd",
    "stacking": "weighing:Stacking",
    "fool": "adversarial:Fool",
    "fool_features": "adversarial:FoolFeatures",
    "ard": "robust:AdversariallyRobust",
    "rslad": "robust:RobustSoftLabels",
}  # family:class, families being modules of this folder


def check_name(name: str) -> None:
    """RecipeError: there is no such loss."""
    if name not in LOSSES:
        raise RecipeError(f"no loss is called {name!r}{did_you_mean(name, LOSSES)}; `compress losses` lists them all")


def term_class(name: str) -> type[Term]:
    """The class behind a name."""
    check_name(name)
    family, _, cls = LOSSES[name].partition(":")
    found: type[Term] = getattr(import_module(f".{family}", __package__), cls)
    return found


def defaults(name: str) -> dict[str, Any]:
    """The options of a loss with their defaults; inspect.Parameter.empty where one must be given."""
    return options_of(term_class(name))


def make(name: str, options: Mapping[str, Any]) -> Term:
    """A loss with its options. RecipeError: it has no such option, or the value is not one it takes."""
    return construct(term_class(name), options, called=f"the loss {name}")


def options_of(cls: type[Term]) -> dict[str, Any]:
    """What a class of losses can be told, with the defaults."""
    parameters = inspect.signature(cls.__init__).parameters
    return {key: value.default for key, value in parameters.items() if value.kind is value.KEYWORD_ONLY}


def construct(cls: type[Term], options: Mapping[str, Any], *, called: str) -> Term:
    """A loss of this class with its options. called: what errors call it. RecipeError: as `make`."""
    known = options_of(cls)
    for key in options:
        if key not in known:
            listed = f"; it has {', '.join(known)}" if known else "; it has none"
            raise RecipeError(f"{called} has no option {key!r}{did_you_mean(key, known)}{listed}")
    missing = [key for key, value in known.items() if value is inspect.Parameter.empty and key not in options]
    if missing:
        raise RecipeError(f"{called} needs {' and '.join(missing)}")
    try:
        return cls(**options)
    except (TypeError, ValueError) as error:
        raise RecipeError(f"{called}: {error}") from None
