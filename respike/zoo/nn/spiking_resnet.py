"""Spiking ResNet: membrane-shortcut residual blocks on folded time, the branch that sees the residuals.

Rows are folded as in `lif.py`: `[R·G, C, H, W]`, step by step, G groups each.

Source: Hu et al., *Advancing Spiking Neural Networks Toward Deep Residual Learning* (TNNLS 2024), for the
membrane shortcut: what travels between blocks is real-valued, and every 3×3 convolution inside a block sees spikes.
"""

import itertools
from dataclasses import dataclass, field

from torch import Tensor, nn

from respike.errors import SettingError
from respike.zoo.nn.lif import LIF, LIFSettings


@dataclass(frozen=True, kw_only=True)
class SpikingResNetSettings:
    """The size of a spiking ResNet: channels of the stem and of each stage, blocks a stage, and its neurons."""

    stem_channels: int = 64
    channels: tuple[int, ...] = (64, 128, 256, 512)
    blocks_per_stage: int = 2
    lif: LIFSettings = field(default_factory=LIFSettings)

    def __post_init__(self) -> None:
        for count in (self.stem_channels, *self.channels, self.blocks_per_stage):
            if count < 1:
                raise SettingError(
                    f"a spiking ResNet of {count} channels or blocks, allowed are 1 and more", "raise it"
                )


class SpikingStem(nn.Module):
    """3×3 convolution of stride 2 and batch norm on the residuals themselves: the branch's only real-valued input."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, channels, 3, stride=2, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(channels)

    def forward(self, residuals: Tensor) -> Tensor:
        """Map `[R·G, 3, H, W]` to `[R·G, C, H/2, W/2]`."""
        mapped: Tensor = self.norm(self.conv(residuals))
        return mapped


class Shortcut(nn.Sequential):
    """2×2 average pooling, 1×1 convolution, batch norm: the block's input brought to its output's shape."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.pool = nn.AvgPool2d(2)
        self.conv = nn.Conv2d(in_channels, out_channels, 1, bias=False)
        self.norm = nn.BatchNorm2d(out_channels)


class SpikingBlock(nn.Module):
    """LIF, 3×3 convolution, batch norm, twice; plus the block's input, brought to shape where the block strides."""

    def __init__(self, in_channels: int, out_channels: int, *, stride: int, lif: LIFSettings) -> None:
        super().__init__()
        self.lif1 = LIF(lif)
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, stride=stride, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(out_channels)
        self.lif2 = LIF(lif)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(out_channels)
        self.shortcut = Shortcut(in_channels, out_channels) if stride == 2 else nn.Identity()

    def forward(self, potential: Tensor, num_steps: int) -> Tensor:
        """Map `[R·G, C, H, W]` to `[R·G, C', H/stride, W/stride]`."""
        inner = self.norm1(self.conv1(self.lif1(potential, num_steps)))
        inner = self.norm2(self.conv2(self.lif2(inner, num_steps)))
        summed: Tensor = inner + self.shortcut(potential)
        return summed


class SpikingStage(nn.Module):
    """Blocks of one width, the first of which halves height and width."""

    def __init__(self, in_channels: int, out_channels: int, num_blocks: int, lif: LIFSettings) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            SpikingBlock(out_channels if i else in_channels, out_channels, stride=1 if i else 2, lif=lif)
            for i in range(num_blocks)
        )

    def forward(self, potential: Tensor, num_steps: int) -> Tensor:
        """Map `[R·G, C, H, W]` to `[R·G, C', H/2, W/2]`."""
        for block in self.blocks:
            potential = block(potential, num_steps)
        return potential


class SpikingResNet(nn.Module):
    """The stem and the stages; `respike.py` runs them one by one, since a fusion may follow each stage."""

    def __init__(self, settings: SpikingResNetSettings) -> None:
        super().__init__()
        self.stem = SpikingStem(settings.stem_channels)
        widths = (settings.stem_channels, *settings.channels)
        self.stages = nn.ModuleList(
            SpikingStage(narrow, wide, settings.blocks_per_stage, settings.lif)
            for narrow, wide in itertools.pairwise(widths)
        )
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, residuals: Tensor, num_steps: int) -> Tensor:
        """Run the branch alone, from normalised residuals `[R·G, 3, H, W]` to the last map `[R·G, C, H/32, W/32]`."""
        potential: Tensor = self.stem(residuals)
        for stage in self.stages:
            potential = stage(potential, num_steps)
        return potential
