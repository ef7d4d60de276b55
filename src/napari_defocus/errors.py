"""The one error that users are meant to read."""


class DefocusError(ValueError):
    """Something the user can mend; the message says what is wrong, where, and what to do."""
