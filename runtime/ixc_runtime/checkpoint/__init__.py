"""Model folders on disk: what their files hold, and how to make one that can be served."""
