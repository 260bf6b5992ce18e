"""One plug-in of every kind, each as small as it can be."""
