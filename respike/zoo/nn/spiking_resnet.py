"""Spiking ResNet: membrane-shortcut residual blocks on folded time, the branch that sees the residuals.

Rows are folded as in `lif.py`: `[R·G, C, H, W]`, step by step, G groups each.

Source: Hu et al., *Advancing Spiking Neural Networks Toward Deep Residual Learning* (TNNLS 2024), for the
membrane shortcut: what travels between blocks is real-valued, and every 3×3 convolution inside a block sees spikes.
"""

import itertools
from dataclasses import dataclass, field

from torch import Tensor, nn

from respike.common.errors import SettingError
from respike.zoo.nn.lif import LIF, LIFSettings
from respike.zoo.nn.linear import OneDnnPointwiseConv

NUM_STAGES = 4
BLOCKS_BY_DEPTH = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3)}


@dataclass(frozen=True, kw_only=True)
class SpikingResNetSettings:
    """The size of a spiking ResNet: channels of the stem and of each stage, blocks of each stage, and its neurons."""

    stem_channels: int = 64
    channels: tuple[int, ...] = (64, 128, 256, 512)
    num_blocks: tuple[int, ...] = (2, 2, 2, 2)
    lif: LIFSettings = field(default_factory=LIFSettings)

    def __post_init__(self) -> None:
        # the upper bounds keep a foreign checkpoint's claims from taking all memory
        for counts, most in (((self.stem_channels, *self.channels), 4096), (self.num_blocks, 100)):
            for count in counts:
                if not 1 <= count <= most:
                    raise SettingError(
                        f"a spiking ResNet of {count} channels or blocks, allowed are 1 to {most}", "see its settings"
                    )
        if not len(self.channels) == len(self.num_blocks) == NUM_STAGES:
            raise SettingError(
                f"channels for {len(self.channels)} stages and blocks for {len(self.num_blocks)}",
                f"a spiking ResNet has {NUM_STAGES} stages",
            )

    @classmethod
    def of_depth(cls, depth: int = 18, *, width: int = 64, lif: LIFSettings | None = None) -> "SpikingResNetSettings":
        """The settings by a ResNet's usual name: `depth` 18, as published, or 34; `width` channels in the stem.

        The stages have once, twice, four and eight times as many. Raises SettingError that lists the depths.
        """
        if depth not in BLOCKS_BY_DEPTH:
            raise SettingError(f"an SNN of depth {depth}", f"choose from {', '.join(map(str, BLOCKS_BY_DEPTH))}")
        channels = tuple(width * factor for factor in (1, 2, 4, 8))
        blocks = BLOCKS_BY_DEPTH[depth]
        return cls(stem_channels=width, channels=channels, num_blocks=blocks, lif=lif or LIFSettings())


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
        self.conv = OneDnnPointwiseConv(in_channels, out_channels, bias=False)
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
            SpikingStage(narrow, wide, num_blocks, settings.lif)
            for (narrow, wide), num_blocks in zip(itertools.pairwise(widths), settings.num_blocks, strict=True)
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
