"""Programs on pictures, by torch and torchvision: transfer learning, neural style transfer."""
