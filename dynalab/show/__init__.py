"""What an analysis says, as data, and what renders it: the terminal, the page and a notebook have the same words."""
