"""What people look at: pages that a browser shows with nothing beside them, and progress while work goes on."""
