"""Where two versions of one model part, and why."""
