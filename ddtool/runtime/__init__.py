"""Hardware, the frame of every optimisation, processes that work together."""
