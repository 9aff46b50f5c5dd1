"""Host networking in a real kernel, in namespaces of its own. Root is needed."""
