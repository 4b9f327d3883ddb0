"""The network is that of the paper, to the pixel and the parameter, and one code path serves 2D and 3D."""

import pytest
import torch
from torch import nn

from napari_unet.engine.card import UNetSpec
from napari_unet.engine.errors import InvalidModel
from napari_unet.engine.unet import UNet

PAPER_TABLE = [
    # encoder: after the first and the second convolution of each level (2015, Figure 1)
    *[("encoder.0.0", 570, 64), ("encoder.0.2", 568, 64)],
    *[("encoder.1.0", 282, 128), ("encoder.1.2", 280, 128)],
    *[("encoder.2.0", 138, 256), ("encoder.2.2", 136, 256)],
    *[("encoder.3.0", 66, 512), ("encoder.3.2", 64, 512)],
    *[("encoder.4.0", 30, 1024), ("encoder.4.2", 28, 1024)],
    # decoder: the up-convolution, then the two convolutions
    *[("up.3", 56, 512), ("decoder.3.0", 54, 512), ("decoder.3.2", 52, 512)],
    *[("up.2", 104, 256), ("decoder.2.0", 102, 256), ("decoder.2.2", 100, 256)],
    *[("up.1", 200, 128), ("decoder.1.0", 198, 128), ("decoder.1.2", 196, 128)],
    *[("up.0", 392, 64), ("decoder.0.0", 390, 64), ("decoder.0.2", 388, 64)],
    ("head", 388, 2),
]


def test_paper_shapes() -> None:
    with torch.device("meta"):
        network = UNet(UNetSpec.paper())
    seen = {}
    for name, module in network.named_modules():
        if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)):
            module.register_forward_hook(lambda m, i, o, name=name: seen.update({name: tuple(o.shape[1:])}))
    network(torch.empty(1, 1, 572, 572, device="meta"))
    assert seen == {name: (channels, size, size) for name, size, channels in PAPER_TABLE}


def test_paper_parameters() -> None:
    with torch.device("meta"):
        network = UNet(UNetSpec.paper())
    assert sum(p.numel() for p in network.parameters()) == 31_030_658


def test_paper_crops_the_middle_of_the_skip() -> None:
    spec = UNetSpec(channels=(1, 1), padding="valid", norm="none")
    network = UNet(spec)
    joined = []
    network.decoder[0].register_forward_pre_hook(lambda m, inputs: joined.append(inputs[0]))
    network.encoder[0] = nn.Identity()  # the skip is then the input itself
    image = torch.arange(16.0 * 16).reshape(1, 1, 16, 16)
    with torch.no_grad():
        network(image)
    size = joined[0].shape[-1]
    border = (16 - size) // 2
    assert border > 0
    assert torch.equal(joined[0][:, :1], image[..., border:-border, border:-border])


@pytest.mark.parametrize(
    ("spec", "shape"),
    [
        (UNetSpec(in_channels=3, channels=(4, 8, 16)), (32, 48)),
        (UNetSpec(dims=3, in_channels=2, channels=(4, 8, 16)), (8, 12, 16)),
        (
            UNetSpec(
                dims=3, channels=(4, 8, 16), strides=((1, 2, 2), (2, 2, 2)), kernels=((1, 3, 3), (3, 3, 3), (3, 3, 3))
            ),
            (6, 16, 24),
        ),
    ],
)
def test_output_has_the_shape_of_the_input(spec: UNetSpec, shape: tuple[int, ...]) -> None:
    with torch.no_grad():
        logits = UNet(spec).eval()(torch.zeros(2, spec.in_channels, *shape))
    assert logits.shape == (2, spec.out_channels, *shape)


@pytest.mark.parametrize(
    "change",
    [
        {"dims": 4},
        {"channels": ()},
        {"channels": (16, 10**9)},
        {"strides": ((2, 2),)},
        {"kernels": ((4, 4),) * 5},
        {"norm": "instance"},
        {"padding": "reflect"},
        {"dropout": 1.5},
    ],
)
def test_a_spec_that_cannot_be_built_is_refused(change: dict) -> None:
    with pytest.raises(InvalidModel, match="The network's"):
        UNetSpec(**change)
