"""Sample data that come with the package."""
