import pytest
import torch


@pytest.fixture
def awake():
    """Give weight to what writes to the residual stream, so that attention has a say."""

    def wake(model, std=0.3):
        torch.manual_seed(7)
        for block in model.blocks:
            for layer in (block.attention.output, block.mlp.output):
                torch.nn.init.normal_(layer.weight, std=std)
        return model

    return wake
