"""Classes for pictures, by a published network with a new last layer (needs torch and
torchvision)."""

from fastrnn.vision.transfer.course import finetune, freeze, train_model
from fastrnn.vision.transfer.plots import visualize_model

__all__ = ["finetune", "freeze", "train_model", "visualize_model"]
