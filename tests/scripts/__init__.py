"""Whether scripts for guests are what their interpreters take: PowerShell's grammar, wine's cmd."""
