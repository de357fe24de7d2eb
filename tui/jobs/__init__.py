"""The table of jobs: what is known of them, which are shown, in which order, and how they look."""
