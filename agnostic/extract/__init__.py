"""Activations of whole data sets in stores: reading, running, reducing and writing, and what is asked of stores."""
