"""What several widgets use: layers, jobs, the session, small controls."""
