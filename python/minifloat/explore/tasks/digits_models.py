"""Two small networks that read digits: one of convolutions, one of attention."""

import torch
from torch import nn

PATCH = 4  # pixels, each side


class CNN(nn.Module):
    """(B, 1, 8, 8) -> (B, 10). Plain, depthwise and pointwise convolutions with batch norm, and one linear layer."""

    def __init__(self, width: int = 32):
        super().__init__()

        def conv(inputs, outputs, kernel, stride=1, groups=1):
            layer = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
            return nn.Sequential(layer, nn.BatchNorm2d(outputs), nn.ReLU())

        self.features = nn.Sequential(
            conv(1, width, 3),
            conv(width, width, 3, groups=width),
            conv(width, 2 * width, 1),
            conv(2 * width, 2 * width, 3, stride=2, groups=2 * width),
            conv(2 * width, 2 * width, 1),
            conv(2 * width, 2 * width, 3, stride=2),
        )
        self.classifier = nn.Linear(2 * width, 10)

    def forward(self, x):
        return self.classifier(self.features(x).mean((2, 3)))


class Block(nn.Module):
    """Attention and a perceptron, each behind a layer norm and beside a shortcut."""

    def __init__(self, dim: int, heads: int):
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.qkv, self.out = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)
        self.up, self.down = nn.Linear(dim, 4 * dim), nn.Linear(4 * dim, dim)

    def forward(self, x):
        batch, tokens, dim = x.shape
        q, k, v = self.qkv(self.norm1(x)).view(batch, tokens, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        attended = nn.functional.scaled_dot_product_attention(q, k, v)
        x = x + self.out(attended.transpose(1, 2).reshape(batch, tokens, dim))
        return x + self.down(nn.functional.gelu(self.up(self.norm2(x))))


class ViT(nn.Module):
    """(B, 1, height, width) -> (B, places, 10): the digits side by side in an image.

    Patches of 4 x 4; each place is read from the mean over the patches in its share of the width.
    """

    def __init__(self, height: int, width: int, places: int, dim: int = 64, depth: int = 4, heads: int = 4):
        super().__init__()
        self.rows, self.places = height // PATCH, places
        self.patches = nn.Linear(PATCH * PATCH, dim)
        self.positions = nn.Parameter(0.02 * torch.randn(1, self.rows * (width // PATCH), dim))
        self.blocks = nn.Sequential(*[Block(dim, heads) for _ in range(depth)])
        self.norm, self.head = nn.LayerNorm(dim), nn.Linear(dim, 10)

    def forward(self, x):
        patches = nn.functional.unfold(x, PATCH, stride=PATCH).transpose(1, 2)
        x = self.norm(self.blocks(self.patches(patches) + self.positions))
        return self.head(x.unflatten(1, (self.rows, self.places, -1)).mean((1, 3)))
