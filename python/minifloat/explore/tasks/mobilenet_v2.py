"""MobileNetV2 at width 1, after table 2 of Sandler et al., 2018, with the parameter names of the published weights."""

from torch import nn

# expansion, output channels, repeats, stride of the first
STAGES = [(1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1)]
STEM, HEAD, CLASSES = 32, 1280, 1000


def conv(inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> nn.Sequential:
    """Convolution, batch norm, ReLU6."""
    layer = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
    return nn.Sequential(layer, nn.BatchNorm2d(outputs), nn.ReLU6())


class Bottleneck(nn.Module):
    """Expand (unless by 1), filter each channel, project without an activation; add the input where shapes allow."""

    def __init__(self, inputs: int, outputs: int, stride: int, expansion: int):
        super().__init__()
        hidden = inputs * expansion
        expand = [conv(inputs, hidden, 1)] if expansion > 1 else []
        project = [nn.Conv2d(hidden, outputs, 1, bias=False), nn.BatchNorm2d(outputs)]
        self.conv = nn.Sequential(*expand, conv(hidden, hidden, 3, stride, groups=hidden), *project)
        self.residual = stride == 1 and inputs == outputs

    def forward(self, x):
        y = self.conv(x)
        return x + y if self.residual else y


class MobileNetV2(nn.Module):
    """(B, 3, H, W) -> (B, 1000) logits; H and W multiples of 32."""

    def __init__(self):
        super().__init__()
        layers, channels = [conv(3, STEM, 3, 2)], STEM
        for expansion, outputs, repeats, stride in STAGES:
            for i in range(repeats):
                layers.append(Bottleneck(channels, outputs, stride if i == 0 else 1, expansion))
                channels = outputs
        self.features = nn.Sequential(*layers, conv(channels, HEAD, 1))
        self.classifier = nn.Sequential(nn.Dropout(0.2), nn.Linear(HEAD, CLASSES))

    def forward(self, x):
        return self.classifier(self.features(x).mean((2, 3)))
