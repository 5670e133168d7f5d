"""Architectures that people deploy, for benchmarks/coverage.py: by name, from torchvision and timm, and a few here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

CLASSES = 10
Kind = Literal["classification", "segmentation", "regression", "text"]


@dataclass(frozen=True, kw_only=True)
class Net:
    """One architecture. size: of its inputs, small, and as large as it takes. options: of its builder."""

    name: str
    family: str
    source: Literal["timm", "torchvision", "here"]
    size: int = 64
    kind: Kind = "classification"
    build: Callable[[], nn.Module] | None = None
    options: dict[str, Any] = field(default_factory=dict)

    def module(self) -> nn.Module:
        """Random weights, and batch norms that have seen something: without, answers vanish in deep networks."""
        torch.manual_seed(0)
        made = self._built()
        for part in made.modules():
            if isinstance(part, (nn.BatchNorm1d, nn.BatchNorm2d)):
                part.momentum = None  # the mean of everything that is shown
            if isinstance(part, nn.Linear) and not part.weight.any():
                nn.init.normal_(part.weight, std=0.1)  # heads that begin at zero answer nothing that could be compared
        made.train()
        with torch.no_grad():
            for _ in range(2):
                made(self.inputs(8))
        return made.eval()

    def _built(self) -> nn.Module:
        if self.build is not None:
            return self.build()
        if self.source == "timm":
            import timm

            return timm.create_model(self.name, num_classes=CLASSES, **self.options)  # type: ignore[no-any-return]
        import torchvision

        return torchvision.models.get_model(self.name, weights=None, **({"num_classes": CLASSES} | self.options))

    def inputs(self, count: int) -> Tensor:
        """As the network takes them."""
        generator = torch.Generator().manual_seed(1)
        if self.kind == "text":
            return torch.randint(1, 100, (count, self.size), generator=generator)
        coarse = torch.rand(count, 3, 8, 8, generator=generator)
        return F.interpolate(coarse, self.size, mode="bilinear")


class Output(nn.Module):
    """Of torchvision's segmentation networks: what it calls `out`."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        return self.network(x)["out"]  # type: ignore[no-any-return]


class RawBoxes(nn.Module):
    """Of torchvision's single-stage detectors: boxes and classes of every anchor, as they leave the heads."""

    def __init__(self, detector: Any) -> None:
        super().__init__()
        self.backbone, self.head = detector.backbone, detector.head

    def forward(self, x: Tensor) -> Tensor:
        found = self.head(list(self.backbone(x).values()))
        return torch.cat([found["bbox_regression"].flatten(1), found["cls_logits"].flatten(1)], dim=1)


class Keywords(nn.Module):
    """Sound as it comes: 1-D convolutions with strides, as in M5 (Dai et al., 2017, arXiv:1610.00087)."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        inside = 1
        for kernel, outside in ((15, width), (3, width), (3, 2 * width), (3, 4 * width)):
            layers += [nn.Conv1d(inside, outside, kernel, stride=2, padding=kernel // 2), nn.BatchNorm1d(outside),
                       nn.ReLU(), nn.MaxPool1d(2)]  # fmt: skip
            inside = outside
        self.body, self.head = nn.Sequential(*layers), nn.Linear(inside, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x.flatten(1).unsqueeze(1)).mean(dim=2))  # type: ignore[no-any-return]


class Frames(nn.Module):
    """Spectra over time: a convolution, a GRU, a head on its last state."""

    def __init__(self, size: int, width: int = 64) -> None:
        super().__init__()
        self.conv = nn.Conv1d(3 * size, width, 3, padding=1)
        self.gru = nn.GRU(width, width, batch_first=True)
        self.head = nn.Linear(width, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        frames = torch.relu(self.conv(x.flatten(1, 2))).transpose(1, 2)
        return self.head(self.gru(frames)[0][:, -1])  # type: ignore[no-any-return]


def _segmentation(name: str) -> Callable[[], nn.Module]:
    def build() -> nn.Module:
        import torchvision

        made = torchvision.models.get_model(name, weights=None, weights_backbone=None, num_classes=CLASSES)
        return Output(made)

    return build


def _detector() -> nn.Module:
    import torchvision

    return RawBoxes(
        torchvision.models.detection.ssdlite320_mobilenet_v3_large(
            weights=None, weights_backbone=None, num_classes=CLASSES
        )
    )


def _bert() -> nn.Module:
    """Hugging Face's BERT, small."""
    from transformers import BertConfig, BertForSequenceClassification

    class Logits(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            config = BertConfig(
                vocab_size=100, hidden_size=64, num_hidden_layers=2, num_attention_heads=4, intermediate_size=128,
                num_labels=CLASSES, attn_implementation="eager",
            )  # fmt: skip
            self.network = BertForSequenceClassification(config)

        def forward(self, tokens: Tensor) -> Tensor:
            return self.network(tokens).logits  # type: ignore[no-any-return]

    return Logits()


def _timm(family: str, *names: str, size: int = 64, **options: Any) -> list[Net]:
    return [Net(name=name, family=family, source="timm", size=size, options=options) for name in names]


def _vision(family: str, *names: str, size: int = 64, **options: Any) -> list[Net]:
    return [Net(name=name, family=family, source="torchvision", size=size, options=options) for name in names]


NETS: tuple[Net, ...] = (
    *_vision("ResNet", "resnet18", "resnet50", "wide_resnet50_2"),
    *_vision("ResNeXt", "resnext50_32x4d"),
    *_vision("RegNet", "regnet_x_400mf", "regnet_y_400mf"),
    *_vision("DenseNet", "densenet121"),
    *_vision("MobileNet", "mobilenet_v2", "mobilenet_v3_small", "mobilenet_v3_large"),
    *_vision("EfficientNet", "efficientnet_b0", "efficientnet_v2_s"),
    *_vision("MNASNet", "mnasnet0_5"),
    *_vision("ShuffleNet", "shufflenet_v2_x0_5"),
    *_vision("SqueezeNet", "squeezenet1_1"),
    *_vision("VGG", "vgg11_bn"),
    *_vision("AlexNet", "alexnet"),
    *_vision("Inception", "googlenet", aux_logits=False, init_weights=False),
    *_vision("ConvNeXt", "convnext_tiny"),
    *_vision("ViT", "vit_b_16", image_size=64),
    *_vision("Swin", "swin_t"),
    *_timm("ResNet", "resnet26d", "resnetv2_50", "seresnet18", "res2net50_26w_4s", "skresnet18"),
    *_timm("ResNeXt", "resnext26ts"),
    *_timm("RegNet", "regnetx_002", "regnety_002"),
    *_timm("MobileNet", "mobilenetv1_100", "mobilenetv2_050", "mobilenetv3_small_050", "mobilenetv4_conv_small"),
    *_timm("EfficientNet", "efficientnet_lite0", "tf_efficientnetv2_b0"),
    *_timm("GhostNet", "ghostnet_100", "ghostnetv2_100"),
    *_timm("MNASNet", "mnasnet_small", "semnasnet_075", "spnasnet_100", "fbnetc_100"),
    *_timm("small", "lcnet_050", "tinynet_e", "mixnet_s", "rexnet_100", "hardcorenas_a", "mobileone_s0", "repvit_m0_9"),
    *_timm("VGG", "vgg11"),
    *_timm("Inception", "inception_v3", size=96, aux_logits=False),
    *_timm("Xception", "xception41", size=96),
    *_timm("ConvNeXt", "convnext_atto", "convnextv2_atto", "inception_next_atto"),
    *_timm("RepVGG", "repvgg_a0"),
    *_timm("dense", "dla34", "dpn68", "hrnet_w18_small", "ese_vovnet19b_dw", "selecsls42", "cspresnet50", "darknet53"),
    *_timm("HGNet", "hgnetv2_b0"),
    *_timm("StarNet", "starnet_s1"),
    *_timm("ViT", "vit_tiny_patch16_224", img_size=64),
    *_timm("DeiT", "deit_tiny_patch16_224", img_size=64),
    *_timm("Swin", "swin_tiny_patch4_window7_224", img_size=64, window_size=4),
    *_timm("EfficientViT", "efficientvit_b0"),
    *_timm("EfficientViT", "efficientvit_m0", size=224),
    *_timm("MobileViT", "mobilevit_xxs", "mobilevitv2_050"),
    *_timm("EdgeNeXt", "edgenext_xx_small"),
    *_timm("FastViT", "fastvit_t8"),
    *_timm("PoolFormer", "poolformer_s12"),
    *_timm("LeViT", "levit_128s", size=224),
    *_timm("MLP", "mixer_s32_224", "resmlp_12_224", img_size=64),
    *(Net(name=name, family="segmentation", source="torchvision", kind="segmentation", build=_segmentation(name))
      for name in ("lraspp_mobilenet_v3_large", "deeplabv3_mobilenet_v3_large")),
    Net(name="ssdlite320_mobilenet_v3_large", family="detection", source="torchvision", kind="regression", size=96,
        build=_detector),
    Net(name="keywords-conv1d", family="sound", source="here", size=32, build=Keywords),
    Net(name="spectra-gru", family="sound", source="here", size=32, build=lambda: Frames(32)),
    Net(name="bert-of-transformers", family="text", source="here", kind="text", size=16, build=_bert),
)  # fmt: skip
