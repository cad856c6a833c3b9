"""Spiking ResNet: the branch for the residuals, of membrane-shortcut residual blocks.

Rows are folded as in `lif.py`: `[R·G, C, H, W]`, R steps of G groups.

Source: Hu et al., *Advancing Spiking Neural Networks Toward Deep Residual Learning* (TNNLS 2024), for the
membrane shortcut: blocks pass real values to each other, and every 3×3 convolution inside a block sees spikes.
"""

import itertools
from dataclasses import dataclass, field
from typing import Annotated

from torch import Tensor, nn

from respike.common.config import Config, option
from respike.common.errors import SettingError
from respike.zoo.model_options import SNNInit
from respike.zoo.nn.lif import LIF, LIFSettings
from respike.zoo.nn.linear import OneDnnPointwiseConv

NUM_STAGES = 4
BLOCKS_BY_DEPTH = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3)}


@dataclass(frozen=True, kw_only=True)
class SpikingResNetSettings(Config):
    """The size of a spiking ResNet: channels of the stem and of each stage, blocks of each stage, and its neurons."""

    # the upper bounds keep a checkpoint from elsewhere from taking all memory
    stem_channels: Annotated[int, option("Channels of the stem.", ge=1, le=4096)] = 64
    channels: tuple[Annotated[int, option("Channels of a stage.", ge=1, le=4096)], ...] = (64, 128, 256, 512)
    num_blocks: tuple[Annotated[int, option("Blocks of a stage.", ge=1, le=100)], ...] = (2, 2, 2, 2)
    lif: LIFSettings = field(default_factory=LIFSettings)

    def check(self) -> None:
        """Check the number of stages. Raises SettingError."""
        if not len(self.channels) == len(self.num_blocks) == NUM_STAGES:
            raise SettingError(
                f"channels for {len(self.channels)} stages and blocks for {len(self.num_blocks)}",
                f"a spiking ResNet has {NUM_STAGES} stages",
            )

    @classmethod
    def of_depth(cls, depth: int = 18, *, width: int = 64, lif: LIFSettings | None = None) -> "SpikingResNetSettings":
        """Return the settings of a ResNet of `depth` 18, as published, or 34, with `width` channels in the stem.

        The stages have 1, 2, 4 and 8 times as many channels. Raises SettingError that lists the depths.
        """
        if depth not in BLOCKS_BY_DEPTH:
            raise SettingError(f"an SNN of depth {depth}", f"choose from {', '.join(map(str, BLOCKS_BY_DEPTH))}")
        channels = tuple(width * factor for factor in (1, 2, 4, 8))
        blocks = BLOCKS_BY_DEPTH[depth]
        return cls(stem_channels=width, channels=channels, num_blocks=blocks, lif=lif or LIFSettings())


class SpikingStem(nn.Module):
    """3×3 convolution of stride 2 and batch norm on the residuals, which are real values."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, channels, 3, stride=2, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(channels)

    def forward(self, residuals: Tensor) -> Tensor:
        """Map `[R·G, 3, H, W]` to `[R·G, C, H/2, W/2]`."""
        mapped: Tensor = self.norm(self.conv(residuals))
        return mapped


class Shortcut(nn.Sequential):
    """2×2 average pooling, 1×1 convolution, batch norm: brings a block's input to the shape of its output."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.pool = nn.AvgPool2d(2)
        self.conv = OneDnnPointwiseConv(in_channels, out_channels, bias=False)
        self.norm = nn.BatchNorm2d(out_channels)


class SpikingBlock(nn.Module):
    """Twice LIF, 3×3 convolution and batch norm, plus the block's input, through a shortcut where the stride is 2."""

    def __init__(self, in_channels: int, out_channels: int, *, stride: int, lif: LIFSettings) -> None:
        super().__init__()
        self.lif1 = LIF(lif)
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, stride=stride, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(out_channels)
        self.lif2 = LIF(lif)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(out_channels)
        self.shortcut = Shortcut(in_channels, out_channels) if stride == 2 else nn.Identity()

    def forward(self, features: Tensor, num_steps: int) -> Tensor:
        """Map `[R·G, C, H, W]` to `[R·G, C', H/stride, W/stride]`."""
        inner = self.norm1(self.conv1(self.lif1(features, num_steps)))
        inner = self.norm2(self.conv2(self.lif2(inner, num_steps)))
        summed: Tensor = inner + self.shortcut(features)
        return summed


class SpikingStage(nn.Module):
    """Blocks of one width; the first halves height and width."""

    def __init__(self, in_channels: int, out_channels: int, num_blocks: int, lif: LIFSettings) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            SpikingBlock(out_channels if i else in_channels, out_channels, stride=1 if i else 2, lif=lif)
            for i in range(num_blocks)
        )

    def forward(self, features: Tensor, num_steps: int) -> Tensor:
        """Map `[R·G, C, H, W]` to `[R·G, C', H/2, W/2]`."""
        for block in self.blocks:
            features = block(features, num_steps)
        return features


class SpikingResNet(nn.Module):
    """The stem and the stages. `ReSpike` runs them one by one, since a fusion may follow each stage.

    `init` is how the convolutions start: `torch` keeps torch's default, as the published code does; `kaiming` draws
    from a normal distribution of variance 2 / fan-out. Batch norm follows, so only the training differs:
    larger first weights change direction more slowly at the same learning rate.
    """

    def __init__(self, settings: SpikingResNetSettings, init: SNNInit = "torch") -> None:
        super().__init__()
        self.stem = SpikingStem(settings.stem_channels)
        widths = (settings.stem_channels, *settings.channels)
        self.stages = nn.ModuleList(
            SpikingStage(narrow, wide, num_blocks, settings.lif)
            for (narrow, wide), num_blocks in zip(itertools.pairwise(widths), settings.num_blocks, strict=True)
        )
        for module in self.modules():
            if init == "kaiming" and isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, residuals: Tensor, num_steps: int) -> Tensor:
        """Map normalised residuals `[R·G, 3, H, W]` to the last features `[R·G, C, H/32, W/32]`, without fusions."""
        features: Tensor = self.stem(residuals)
        for stage in self.stages:
            features = stage(features, num_steps)
        return features
