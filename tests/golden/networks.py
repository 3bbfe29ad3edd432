"""fairtat's six architectures in PyTorch, with the parameter names that its state dicts use.

Input normalisation is the first layer and not part of the state dict; every network ends in global average pooling, so
any image size that survives the strides will do. `width` is the number of channels after the first convolution.
"""

from torch import nn
from torch.nn import functional as F
import torch


def conv3x3(inputs, outputs, stride=1):
    return nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False)


def conv1x1(inputs, outputs, stride):
    return nn.Conv2d(inputs, outputs, 1, stride=stride, bias=False)


class Network(nn.Module):
    """Normalises the image, then calls `features`, pools over all pixels and applies the classifier `head`."""

    head = "linear"

    def __init__(self, channels):
        super().__init__()
        self.register_buffer("mean", torch.zeros(1, channels, 1, 1), persistent=False)
        self.register_buffer("std", torch.ones(1, channels, 1, 1), persistent=False)

    def set_normalisation(self, mean, std):
        self.mean.copy_(torch.as_tensor(mean).view_as(self.mean))
        self.std.copy_(torch.as_tensor(std).view_as(self.std))
        return self

    def forward(self, image):
        x = self.features((image - self.mean) / self.std)
        return getattr(self, self.head)(x.mean(dim=(2, 3)))


class PlainCnn(Network):
    """Three convolutions; `pools` names those after whose ReLU a 2×2 maximum is taken."""

    def __init__(self, channels, classes, width, pools):
        super().__init__(channels)
        self.conv1, self.bn1 = conv3x3(channels, width), nn.BatchNorm2d(width)
        self.conv2, self.bn2 = conv3x3(width, 2 * width), nn.BatchNorm2d(2 * width)
        self.conv3, self.bn3 = conv3x3(2 * width, 4 * width), nn.BatchNorm2d(4 * width)
        self.linear = nn.Linear(4 * width, classes)
        self.pools = pools

    def features(self, x):
        for i in (1, 2, 3):
            x = F.relu(getattr(self, f"bn{i}")(getattr(self, f"conv{i}")(x)))
            if i in self.pools:
                x = F.max_pool2d(x, 2)
        return x


class BasicBlock(nn.Module):
    """ResNet's block: normalisation after each convolution, ReLU after the join."""

    def __init__(self, inputs, outputs, stride):
        super().__init__()
        self.conv1, self.bn1 = conv3x3(inputs, outputs, stride), nn.BatchNorm2d(outputs)
        self.conv2, self.bn2 = conv3x3(outputs, outputs), nn.BatchNorm2d(outputs)
        self.downsample = None
        if stride != 1 or inputs != outputs:
            self.downsample = nn.Sequential(conv1x1(inputs, outputs, stride), nn.BatchNorm2d(outputs))

    def forward(self, x):
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        return F.relu(y + (x if self.downsample is None else self.downsample(x)))


class ResNet20(Network):
    head = "fc"

    def __init__(self, channels, classes, width):
        super().__init__(channels)
        self.conv1, self.bn1 = conv3x3(channels, width), nn.BatchNorm2d(width)
        self.layer1 = stage(BasicBlock, 3, width, width, 1)
        self.layer2 = stage(BasicBlock, 3, width, 2 * width, 2)
        self.layer3 = stage(BasicBlock, 3, 2 * width, 4 * width, 2)
        self.fc = nn.Linear(4 * width, classes)

    def features(self, x):
        return self.layer3(self.layer2(self.layer1(F.relu(self.bn1(self.conv1(x))))))


class PreActBlock(nn.Module):
    """Normalisation before each convolution; a shortcut convolution sees the activated input, an identity the raw one."""

    def __init__(self, inputs, outputs, stride):
        super().__init__()
        self.bn1, self.conv1 = nn.BatchNorm2d(inputs), conv3x3(inputs, outputs, stride)
        self.bn2, self.conv2 = nn.BatchNorm2d(outputs), conv3x3(outputs, outputs)
        self.shortcut = None
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(conv1x1(inputs, outputs, stride))

    def forward(self, x):
        a = F.relu(self.bn1(x))
        y = self.conv2(F.relu(self.bn2(self.conv1(a))))
        return y + (x if self.shortcut is None else self.shortcut(a))


class PreActResNet18(Network):
    def __init__(self, channels, classes, width):
        super().__init__(channels)
        self.conv1 = conv3x3(channels, width)
        self.layer1 = stage(PreActBlock, 2, width, width, 1)
        self.layer2 = stage(PreActBlock, 2, width, 2 * width, 2)
        self.layer3 = stage(PreActBlock, 2, 2 * width, 4 * width, 2)
        self.layer4 = stage(PreActBlock, 2, 4 * width, 8 * width, 2)
        self.bn = nn.BatchNorm2d(8 * width)
        self.linear = nn.Linear(8 * width, classes)

    def features(self, x):
        x = self.layer4(self.layer3(self.layer2(self.layer1(self.conv1(x)))))
        return F.relu(self.bn(x))


class PreActResNet18NoFinalBn(PreActResNet18):
    """The network of FRL: no batch norm and no ReLU before the pooling."""

    def __init__(self, channels, classes, width):
        super().__init__(channels, classes, width)
        del self.bn

    def features(self, x):
        return self.layer4(self.layer3(self.layer2(self.layer1(self.conv1(x)))))


class WideBlock(nn.Module):
    """The same arithmetic as `PreActBlock`; names and the order of the state dict are the wide ResNet's."""

    def __init__(self, inputs, outputs, stride):
        super().__init__()
        self.bn1, self.conv1 = nn.BatchNorm2d(inputs), conv3x3(inputs, outputs, stride)
        self.bn2, self.conv2 = nn.BatchNorm2d(outputs), conv3x3(outputs, outputs)
        self.convShortcut = conv1x1(inputs, outputs, stride) if inputs != outputs else None

    def forward(self, x):
        a = F.relu(self.bn1(x))
        y = self.conv2(F.relu(self.bn2(self.conv1(a))))
        return y + (x if self.convShortcut is None else self.convShortcut(a))


class WideStage(nn.Module):
    def __init__(self, count, inputs, outputs, stride):
        super().__init__()
        self.layer = stage(WideBlock, count, inputs, outputs, stride)

    def forward(self, x):
        return self.layer(x)


class WideResNet(Network):
    head = "fc"

    def __init__(self, channels, classes, width, depth, widen=10):
        super().__init__(channels)
        assert (depth - 4) % 6 == 0
        count, wide = (depth - 4) // 6, width * widen
        self.conv1 = conv3x3(channels, width)
        self.block1 = WideStage(count, width, wide, 1)
        self.block2 = WideStage(count, wide, 2 * wide, 2)
        self.block3 = WideStage(count, 2 * wide, 4 * wide, 2)
        self.bn1 = nn.BatchNorm2d(4 * wide)
        self.fc = nn.Linear(4 * wide, classes)

    def features(self, x):
        x = self.block3(self.block2(self.block1(self.conv1(x))))
        return F.relu(self.bn1(x))


def stage(block, count, inputs, outputs, stride):
    """`count` blocks, of which the first changes shape."""
    return nn.Sequential(block(inputs, outputs, stride), *(block(outputs, outputs, 1) for _ in range(count - 1)))


# Name: (default width, constructor from channels, classes, width).
ARCHITECTURES = {
    "digits-cnn": (16, lambda c, k, w: PlainCnn(c, k, w, pools=(2,))),
    "small-cnn": (32, lambda c, k, w: PlainCnn(c, k, w, pools=(1, 2))),
    "resnet-20": (16, ResNet20),
    "preact-resnet-18": (64, PreActResNet18),
    "preact-resnet-18-no-final-bn": (64, PreActResNet18NoFinalBn),
    "wide-resnet-28-10": (16, lambda c, k, w: WideResNet(c, k, w, depth=28)),
    "wide-resnet-34-10": (16, lambda c, k, w: WideResNet(c, k, w, depth=34)),
}


def build(name, channels=3, classes=10, width=None):
    default, constructor = ARCHITECTURES[name]
    return constructor(channels, classes, default if width is None else width)


def parameter_count(network):
    return sum(p.numel() for p in network.parameters())
