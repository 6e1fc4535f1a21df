"""Pictures of what a network looks for: objectives, parameterizations, recipes, the ascent, mosaics."""
