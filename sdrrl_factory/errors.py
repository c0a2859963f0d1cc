"""The one error a user is meant to see."""


class UserError(Exception):
    """A mistake the user can mend: one line that names the place, what is wrong, and the next step.

    The command line prints it without a traceback and ends with status 2.
    """
