"""What a folder of results says of its fields: which are in focus, as a table and as a page."""
