"""Which models there are: specification strings, descriptions of architectures, names of classes and layers."""
