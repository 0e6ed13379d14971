"""The commands, one module for each stage. What takes long to import is imported inside them."""
