"""Networks: ConvNet, random features, the generator."""
