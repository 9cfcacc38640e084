"""Which part of a LightningModule is explained, and how it is called."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from cam_callbacks import CAMCallback, ProbeSet


class TestModelsOfOtherKinds:
    def test_no_forward_and_one_network(self, fit, make_module, package):
        model = make_module(package)
        del type(model).forward
        callback = CAMCallback(on_error="raise")
        fit(callback, package=package, model=model, epochs=1)
        assert ("gradcam", "8") in callback.store[0].maps

    def test_a_class_that_is_called_module_has_its_forward(self, fit, make_module, net):
        class Module(type(make_module())):
            def __init__(self):
                super(type(self).__mro__[1], self).__init__()
                self.body, self.head = net[:-1], nn.Linear(16, 4)

            def forward(self, x):
                return self.head(self.body(x))

            net = forward

        callback = CAMCallback(on_error="raise")
        fit(callback, model=Module(), epochs=1)
        assert ("gradcam", "body.8") in callback.store[0].maps

    def test_model_names_an_attribute(self, fit):
        callback = CAMCallback(model="net", on_error="raise")
        fit(callback, epochs=1)
        assert ("gradcam", "8") in callback.store[0].maps

    def test_wrong_attribute_lists_modules(self, fit):
        with pytest.raises(RuntimeError, match="no such attribute; its modules are net"):
            fit(CAMCallback(model="nett", on_error="raise"), epochs=1)

    def test_forward_takes_a_dictionary(self, fit, make_module):
        model = make_module()
        type(model).forward = lambda self, batch: {"logits": self.net(batch["image"])}
        callback = CAMCallback(forward=lambda m, images: m({"image": images}), output="logits", on_error="raise")
        fit(callback, model=model, epochs=1)
        assert callback.store[0].predictions.shape == (16,)


def test_frozen_backbone_and_binary_head(fit, make_module):
    model = make_module()
    model.net[:8].requires_grad_(False)
    model.net[-1] = nn.Linear(16, 1)
    type(model).training_step = lambda self, batch, index: nn.functional.binary_cross_entropy_with_logits(
        self.net(batch[0])[:, 0], (batch[1] > 1).float()
    )
    type(model).validation_step = lambda self, batch, index: None
    data_probe = ProbeSet(torch.randn(4, 3, 24, 24), [0, 1, 0, 1])
    callback = CAMCallback(data_probe, on_error="raise")
    fit(callback, model=model, epochs=1)
    assert set(callback.store[0].predictions) <= {0, 1}
