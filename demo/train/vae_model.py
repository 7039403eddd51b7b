"""The Wan2.2 VAE with small widths, in one pass over the whole clip. Parameter names are the official ones.

The official code encodes and decodes in chunks with caches; because every convolution in time is causal, one pass over
the clip gives the same numbers.
"""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from demo.shapes import Pixels

LATENT_CHANNELS = 48
# The official normalisation of the latents.
LATENT_MEAN = (
    -0.2289, -0.0052, -0.1323, -0.2339, -0.2799, 0.0174, 0.1838, 0.1557, -0.1382, 0.0542, 0.2813, 0.0891,
    0.1570, -0.0098, 0.0375, -0.1825, -0.2246, -0.1207, -0.0698, 0.5109, 0.2665, -0.2108, -0.2158, 0.2502,
    -0.2055, -0.0322, 0.1109, 0.1567, -0.0729, 0.0899, -0.2799, -0.1230, -0.0313, -0.1649, 0.0117, 0.0723,
    -0.2839, -0.2083, -0.0520, 0.3748, 0.0152, 0.1957, 0.1433, -0.2944, 0.3573, -0.0548, -0.1681, -0.0667,
)  # fmt: skip
LATENT_STD = (
    0.4765, 1.0364, 0.4514, 1.1677, 0.5313, 0.4990, 0.4818, 0.5013, 0.8158, 1.0344, 0.5894, 1.0901,
    0.6885, 0.6165, 0.8454, 0.4978, 0.5759, 0.3523, 0.7135, 0.6804, 0.5833, 1.4146, 0.8986, 0.5659,
    0.7069, 0.5338, 0.4889, 0.4917, 0.4069, 0.4999, 0.6866, 0.4093, 0.5709, 0.6065, 0.6415, 0.4944,
    0.5726, 1.2042, 0.5458, 1.6887, 0.3971, 1.0600, 0.3943, 0.5537, 0.5444, 0.4089, 0.7468, 0.7744,
)  # fmt: skip
LOG_VARIANCE = -4.0  # of the encoder's posterior, the same everywhere: a standard deviation of 0.135


class CausalConv3d(nn.Conv3d):
    """Zero frames stand in for the past. The taps on the past start at zero: a clip begins as a pile of pictures."""

    def __init__(self, inputs: int, outputs: int, kernel: int | tuple[int, int, int] = 3, stride_t: int = 1) -> None:
        kernel = (kernel, kernel, kernel) if isinstance(kernel, int) else kernel
        padding = (0, kernel[1] // 2, kernel[2] // 2)
        super().__init__(inputs, outputs, kernel, (stride_t, 1, 1), padding=padding)
        with torch.no_grad():
            self.weight[:, :, :-1] = 0
            if kernel[0] > 1:
                self.weight *= math.sqrt(kernel[0])  # the default fan-in counts the taps that are zero

    def forward(self, x: Tensor, past: int | None = None) -> Tensor:
        past = self.kernel_size[0] - 1 if past is None else past
        if x.shape[2] == 1 and self.stride[0] == 1:
            return F.conv2d(x[:, :, 0], self.weight[:, :, -1], self.bias, padding=self.padding[1:]).unsqueeze(2)
        return super().forward(F.pad(x, (0, 0, 0, 0, past, 0)) if past else x)


class ChannelNorm(nn.Module):
    def __init__(self, channels: int, pictures: bool = False) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(channels, *((1, 1) if pictures else (1, 1, 1))))

    def forward(self, x: Tensor) -> Tensor:
        return F.normalize(x, dim=1) * (x.shape[1] ** 0.5 * self.gamma)


class ResidualBlock(nn.Module):
    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.residual = nn.Sequential(
            ChannelNorm(inputs), nn.SiLU(), CausalConv3d(inputs, outputs),
            ChannelNorm(outputs), nn.SiLU(), nn.Identity(), CausalConv3d(outputs, outputs),
        )  # fmt: skip
        self.shortcut = CausalConv3d(inputs, outputs, 1) if inputs != outputs else nn.Identity()
        with torch.no_grad():
            self.residual[6].weight *= 0.5

    def forward(self, x: Tensor) -> Tensor:
        return self.shortcut(x) + self.residual(x)


def frame_by_frame(module: nn.Module, x: Tensor) -> Tensor:
    batch, channels, frames, height, width = x.shape
    y = module(x.transpose(1, 2).reshape(batch * frames, channels, height, width))
    return y.reshape(batch, frames, *y.shape[1:]).transpose(1, 2)


class FrameAttention(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = ChannelNorm(channels, pictures=True)
        self.to_qkv = nn.Conv2d(channels, 3 * channels, 1)
        self.proj = nn.Conv2d(channels, channels, 1)
        nn.init.zeros_(self.proj.weight)
        nn.init.zeros_(self.proj.bias)

    def forward(self, x: Tensor) -> Tensor:
        batch, channels, frames, height, width = x.shape
        y = self.norm(x.transpose(1, 2).reshape(batch * frames, channels, height, width))
        q, k, v = self.to_qkv(y).flatten(2).transpose(1, 2).chunk(3, -1)
        y = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(batch * frames, channels, height, width)
        return x + self.proj(y).reshape(batch, frames, channels, height, width).transpose(1, 2)


class Resample(nn.Module):
    """Half or double the size, and the frame rate if `time`. The first frame stands alone in time."""

    def __init__(self, channels: int, up: bool, time: bool) -> None:
        super().__init__()
        self.up, self.time = up, time
        if up:
            nearest = nn.Upsample(scale_factor=2, mode="nearest-exact")
            self.resample = nn.Sequential(nearest, nn.Conv2d(channels, channels, 3, padding=1))
        else:
            self.resample = nn.Sequential(nn.ZeroPad2d((0, 1, 0, 1)), nn.Conv2d(channels, channels, 3, stride=2))
        if time:
            outputs = 2 * channels if up else channels
            self.time_conv = CausalConv3d(channels, outputs, (3, 1, 1), 1 if up else 2)
            with torch.no_grad():  # start by repeating a frame, or by picking the last
                self.time_conv.weight.zero_()
                self.time_conv.bias.zero_()
                self.time_conv.weight[:, :, 2, 0, 0] = torch.eye(channels).repeat(2 if up else 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        if self.up and self.time and x.shape[2] > 1:
            y = self.time_conv(x[:, :, 1:])
            batch, channels, frames, height, width = y.shape
            y = y.reshape(batch, 2, channels // 2, frames, height, width).permute(0, 2, 3, 1, 4, 5)
            x = torch.cat([x[:, :, :1], y.reshape(batch, channels // 2, 2 * frames, height, width)], 2)
        x = frame_by_frame(self.resample, x)
        if not self.up and self.time and x.shape[2] > 1:
            x = torch.cat([x[:, :, :1], self.time_conv(x, past=0)], 2)
        return x


class DownBlock(nn.Module):
    """Residual blocks and a shortcut that averages groups of channels, rows, columns and frames."""

    def __init__(self, inputs: int, outputs: int, blocks: int, down: bool, time: bool) -> None:
        super().__init__()
        self.outputs, self.factor_t, self.factor_s = outputs, 2 if time else 1, 2 if down else 1
        modules: list[nn.Module] = [ResidualBlock(inputs if i == 0 else outputs, outputs) for i in range(blocks)]
        if down:
            modules.append(Resample(outputs, up=False, time=time))
        self.downsamples = nn.Sequential(*modules)

    def shortcut(self, x: Tensor) -> Tensor:
        ft, fs = self.factor_t, self.factor_s
        x = F.pad(x, (0, 0, 0, 0, -x.shape[2] % ft, 0))
        batch, channels, frames, height, width = x.shape
        x = x.reshape(batch, channels, frames // ft, ft, height // fs, fs, width // fs, fs)
        x = x.permute(0, 1, 3, 5, 7, 2, 4, 6)
        return x.reshape(batch, self.outputs, -1, frames // ft, height // fs, width // fs).mean(2)

    def forward(self, x: Tensor) -> Tensor:
        return self.downsamples(x) + self.shortcut(x)


class UpBlock(nn.Module):
    """Residual blocks and a shortcut that repeats channels into rows, columns and frames."""

    def __init__(self, inputs: int, outputs: int, blocks: int, up: bool, time: bool) -> None:
        super().__init__()
        self.inputs, self.outputs, self.up, self.factor_t = inputs, outputs, up, 2 if time else 1
        modules: list[nn.Module] = [ResidualBlock(inputs if i == 0 else outputs, outputs) for i in range(blocks)]
        if up:
            modules.append(Resample(outputs, up=True, time=time))
        self.upsamples = nn.Sequential(*modules)

    def shortcut(self, x: Tensor) -> Tensor:
        batch, _, frames, height, width = x.shape
        ft, out = self.factor_t, self.outputs
        x = x.repeat_interleave(out * ft * 4 // self.inputs, 1).reshape(batch, out, ft, 2, 2, frames, height, width)
        x = x.permute(0, 1, 5, 2, 6, 3, 7, 4).reshape(batch, out, frames * ft, 2 * height, 2 * width)
        return x[:, :, ft - 1 :]

    def forward(self, x: Tensor) -> Tensor:
        y = self.upsamples(x)
        return y + self.shortcut(x) if self.up else y


class Encoder(nn.Module):
    def __init__(self, base: int, outputs: int) -> None:
        super().__init__()
        widths = [base * factor for factor in (1, 1, 2, 4, 4)]
        time = (False, True, True, False)
        self.conv1 = CausalConv3d(12, widths[0])
        self.downsamples = nn.Sequential(
            *(DownBlock(widths[i], widths[i + 1], 2, down=i < 3, time=time[i]) for i in range(4))
        )
        inner = widths[4]
        self.middle = nn.Sequential(ResidualBlock(inner, inner), FrameAttention(inner), ResidualBlock(inner, inner))
        self.head = nn.Sequential(ChannelNorm(inner), nn.SiLU(), CausalConv3d(inner, outputs))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.middle(self.downsamples(self.conv1(x))))


class Decoder(nn.Module):
    def __init__(self, base: int, inputs: int) -> None:
        super().__init__()
        widths = [base * factor for factor in (4, 4, 4, 2, 1)]
        time = (True, True, False, False)
        inner = widths[0]
        self.conv1 = CausalConv3d(inputs, inner)
        self.middle = nn.Sequential(ResidualBlock(inner, inner), FrameAttention(inner), ResidualBlock(inner, inner))
        self.upsamples = nn.Sequential(
            *(UpBlock(widths[i], widths[i + 1], 3, up=i < 3, time=time[i]) for i in range(4))
        )
        self.head = nn.Sequential(ChannelNorm(widths[4]), nn.SiLU(), CausalConv3d(widths[4], 12))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.upsamples(self.middle(self.conv1(x))))


class Vae(nn.Module):
    """Latents have the given mean and standard deviation taken out; fresh weights have none to take out."""

    latent_mean: Tensor
    latent_std: Tensor

    def __init__(self, base: int = 16, *, normalised: bool) -> None:
        super().__init__()
        z = LATENT_CHANNELS
        self.encoder, self.decoder = Encoder(base, 2 * z), Decoder(base, z)
        self.conv1, self.conv2 = CausalConv3d(2 * z, 2 * z, 1), CausalConv3d(z, z, 1)
        mean, std = (LATENT_MEAN, LATENT_STD) if normalised else ((0.0,) * z, (1.0,) * z)
        self.register_buffer("latent_mean", torch.tensor(mean), persistent=False)
        self.register_buffer("latent_std", torch.tensor(std), persistent=False)
        with torch.no_grad():
            self.conv1.weight[z:] = 0
            self.conv1.bias[z:] = LOG_VARIANCE

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """[batch, 3, frames, height, width] in -1..1 -> mean and log variance [batch, 48, frames', h / 16, w / 16]"""
        batch, channels, frames, height, width = x.shape
        x = x.reshape(batch, channels, frames, height // 2, 2, width // 2, 2).permute(0, 1, 6, 4, 2, 3, 5)
        x = x.reshape(batch, 4 * channels, frames, height // 2, width // 2)
        mean, log_variance = self.conv1(self.encoder(x)).chunk(2, 1)
        shape = (1, -1, 1, 1, 1)
        return (mean - self.latent_mean.view(shape)) / self.latent_std.view(shape), log_variance

    def decode(self, latents: Tensor) -> Tensor:
        shape = (1, -1, 1, 1, 1)
        x = self.decoder(self.conv2(latents * self.latent_std.view(shape) + self.latent_mean.view(shape)))
        batch, _, frames, height, width = x.shape
        x = x.reshape(batch, 3, 2, 2, frames, height, width).permute(0, 1, 4, 5, 3, 6, 2)
        return x.reshape(batch, 3, frames, 2 * height, 2 * width)

    @torch.no_grad()
    def fold(self, mean: Tensor, std: Tensor) -> None:
        """Given the statistics of its latents, make them standard under the official constants: the correction is exact
        and goes into conv1 and conv2."""
        z = LATENT_CHANNELS
        new_mean, new_std = torch.tensor(LATENT_MEAN), torch.tensor(LATENT_STD)
        gain = new_std / (self.latent_std * std)
        self.conv1.weight[:z] *= gain.view(-1, 1, 1, 1, 1)
        self.conv1.bias[:z] = self.conv1.bias[:z] * gain + new_mean - gain * self.latent_mean - new_std * mean / std
        offset = self.latent_mean + self.latent_std * mean - self.latent_std * std * new_mean / new_std
        self.conv2.bias += self.conv2.weight[:, :, 0, 0, 0] @ offset
        self.conv2.weight *= (1 / gain).view(1, -1, 1, 1, 1)
        self.latent_mean, self.latent_std = new_mean, new_std


def to_input(frames: Pixels) -> Tensor:
    """[..., frames, height, width, 3] -> float [..., 3, frames, height, width] in -1..1"""
    return torch.from_numpy(np.ascontiguousarray(frames)).float().movedim(-1, -4) / 127.5 - 1


def to_pixels(decoded: Tensor) -> Pixels:
    """The way back, rounded as officially: [..., 3, frames, height, width] -> [..., frames, height, width, 3]"""
    pixels: Pixels = ((decoded.clamp(-1, 1) + 1) * 127.5).round().byte().movedim(-4, -1).cpu().numpy()
    return pixels
