"""The local metric: patch sets, ConvNets, kernel PCA, and the response to its filters."""
